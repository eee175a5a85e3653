"""A command in a real pseudo-terminal, and what a person would see of it."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping

import pyte

from tests.conftest import eventually

ALTERNATE_ON, ALTERNATE_OFF = b"\x1b[?1049h", b"\x1b[?1049l"
CURSOR_OFF, CURSOR_ON = b"\x1b[?25l", b"\x1b[?25h"
END = b"\0"  # a terminal shows nothing for it


def take_terminal() -> None:
    """Make it the session's own, so that Ctrl-C becomes SIGINT as for a person.

    A suite that was started in the background ignores SIGINT, and so would what it starts.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """`autoresearch ARGUMENTS` as the foreground of a terminal of so many columns and rows."""

    def __init__(
        self, arguments: tuple[str, ...], environment: Mapping[str, str], columns: int, rows: int
    ) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self.written = b""
        self._master, slave = pty.openpty()
        self.resize(columns, rows)
        self._before = termios.tcgetattr(slave)
        self._slave = slave
        # xdist's workers inherit a size that readline has put there, and rich goes by it.
        told = {k: v for k, v in environment.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", *arguments],
            env=told | {"TERM": "xterm-256color", "PYTHONUTF8": "1"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509  (two system calls are harmless beside threads)
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            with self._lock:
                self.written += data
                self._stream.feed(data)

    def resize(self, columns: int, rows: int) -> None:
        """As a window manager would; the foreground gets SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        with self._lock:
            self._screen.resize(rows, columns)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    @property
    def shown(self) -> str:
        """The screen as text."""
        with self._lock:
            return "\n".join(line.rstrip() for line in self._screen.display)

    def until(self, *words: str, seconds: float = 90) -> str:
        """The screen once all these words stand on it."""
        deadline = time.monotonic() + seconds
        while True:
            shown = self.shown
            if all(word in shown for word in words):
                return shown
            assert time.monotonic() < deadline, (
                f"{words} did not come:\n{shown}\nended: {self.process.poll()}, written:"
                f" {self.written[-600:]!r}"
            )
            time.sleep(0.05)

    def ended(self, seconds: float = 20) -> int:
        """The exit code; the terminal must be as it was before."""
        code = self.process.wait(seconds)
        # A byte of ours comes after all that the process wrote.
        os.write(self._slave, END)
        eventually(lambda: self.written.endswith(END))
        self.written = self.written.removesuffix(END)
        assert termios.tcgetattr(self._slave) == self._before
        assert self.written.count(ALTERNATE_ON) == self.written.count(ALTERNATE_OFF)
        assert self.written.rfind(CURSOR_OFF) <= self.written.rfind(CURSOR_ON)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._slave)
        os.close(self._master)
        self._reader.join(5)
