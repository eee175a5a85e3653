"""What evaluate_bpb measured, on its way from prepare.py to the report.

A tag's prepare.py reports in one of three ways, found by what it names. `channel`: over a socket
to the supervisor, with a nonce; a result block that no measure agrees with does not count. `file`,
of tags that are older: to a file in the workspace, and a block counts too if nothing was measured.
`none`: not at all. Standard library only.
"""

import math
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Literal

Way = Literal["channel", "file", "none"]

KEPT = 1024  # measures of one run; a run needs one
_LINE_BYTES = 256
ENTRY = Path(__file__).with_name("entry.py")
VERIFY = Path(__file__).parent / "scripts" / "verify.py"
REFUTED = 3  # an exit code of verify.py
VERIFY_SECONDS = 180.0  # torch is imported again, and the whole validation text read


def way_of(prepare: bytes) -> Way:
    """How a pinned prepare.py reports."""
    if b"autoresearch_run" in prepare:
        return "channel"
    return "file" if b"AUTORESEARCH_MEASURES" in prepare else "none"


class Channel:
    """The supervisor's end. `remote` is the run's, which finds the nonce in it."""

    def __init__(self) -> None:
        self._local, self.remote = socket.socketpair()
        self._local.settimeout(0)
        self._nonce = os.urandom(16).hex().encode()
        self._local.send(self._nonce)
        self._buffer = b""
        self.values: list[float] = []

    def fileno(self) -> int:
        return self._local.fileno()

    def close(self) -> None:
        self._local.close()

    def read(self, most: int = 4) -> bool:
        """Take what has come, in at most so many pieces: a run may send faster than they are read.
        False when no process can send more."""
        for _ in range(most):
            try:
                data = self._local.recv(65536)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            *lines, rest = (self._buffer + data).split(b"\n")
            self._buffer = rest[:_LINE_BYTES]
            for line in lines:
                self._take(line)
        return True

    def _take(self, line: bytes) -> None:
        nonce, _, text = line.partition(b" ")
        if nonce != self._nonce or len(self.values) >= KEPT:
            return
        with suppress(ValueError):
            value = float(text)
            if math.isfinite(value):
                self.values.append(value)
