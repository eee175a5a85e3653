"""The three standard streams as a program needs them; the first thing that each command does."""

import io
import logging
import os
import sys


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


def log_to_stderr() -> None:
    """One line per event, unless the caller has set up logging itself."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
