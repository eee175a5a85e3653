"""The three standard streams as a program needs them; the first thing that each command does."""

import io
import logging
import os
import re
import sys
from typing import Any

# A terminal acts on some characters, hides others or turns their order: all but Latin letters.
_UNSAFE = re.compile(r"[^\n -~\xae-\u02af]")


def complete() -> None:
    """Open what is closed, and let stdout spell what its encoding lacks.

    The number of a closed descriptor would be given to the next file or socket, and a child would
    take that for its standard input.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)  # noqa: FBT003 - it takes no keyword
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_stdout() -> OSError | None:
    """Write what stdout still holds; why it takes nothing, if so.

    Then the rest goes nowhere: Python writes it once more at its end, with a traceback.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


class SafeFormatter(logging.Formatter):
    """Messages quote what callers and runs say: it forges no line and moves no cursor."""

    @staticmethod
    def visible(text: str) -> str:
        return _UNSAFE.sub(lambda match: ascii(match.group())[1:-1], text)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = self.visible(" ".join(record.message.split()))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return self.visible(super().formatException(ei))


def log_to_stderr() -> None:
    """One line per event, unless the caller has set up logging itself."""
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
