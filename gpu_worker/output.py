"""A run's log file with a cap: its head and its tail are kept, the middle is counted and dropped.

The file only grows, so its readers (the upload, `log -f`) can continue from their offset. The tail
of a run that exceeds the cap joins the file when the run ends. Standard library only.
"""

import os
from contextlib import suppress
from pathlib import Path

TAIL_SHARE = 4  # a quarter of the cap is kept for the tail
UNWRITTEN_BYTES = 32 * 1024  # as JSON it has to fit the buffer of a Unix socket


class CappedLog:
    """Takes all output; never raises and never blocks the run that writes it."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._tail_limit = max(1, limit_bytes // TAIL_SHARE)
        self._head_left = limit_bytes - self._tail_limit
        self._tail = bytearray()
        self.dropped = 0
        self.error: str | None = None
        # The end of the output that a full disk did not take: the run's result may be in it.
        self.unwritten = b""

    def write(self, data: bytes) -> None:
        head, rest = data[: self._head_left], data[self._head_left :]
        if head and not self._append(head):
            # The disk is full: from here on the output is kept in memory like any other tail.
            self._head_left, rest = 0, data
        else:
            self._head_left -= len(head)
        self._tail += rest
        # Cutting only at twice the limit moves each byte once, however small the writes are.
        if len(self._tail) > 2 * self._tail_limit:
            self._trim()

    def _trim(self) -> None:
        surplus = len(self._tail) - self._tail_limit
        if surplus > 0:
            del self._tail[:surplus]
            self.dropped += surplus

    def _append(self, data: bytes | bytearray) -> bool:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            self.error = f"the log could not be written: {error.strerror}"
            return False
        return True

    def finish(self) -> None:
        """Add the tail. The file does not change after this."""
        self._trim()
        if self.dropped:
            self._append(f"\n[... {self.dropped} bytes of output left out ...]\n".encode())
        if self._tail and not self._append(self._tail):
            self.unwritten = bytes(self._tail[-UNWRITTEN_BYTES:])
        self._tail = bytearray()

    def close(self) -> None:
        """Make the file durable, if the disk takes it."""
        with suppress(OSError):
            os.fsync(self._file)
        os.close(self._file)
