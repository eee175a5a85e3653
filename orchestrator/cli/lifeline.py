"""How a child learns that the `autoresearch up` that started it is gone, kill -9 included.

The parent holds the writing end of a pipe that is the child's standard input and never writes. When
the parent ends, however that happens, the child reads the end of the file and stops as for SIGTERM.
"""

import os
import signal
import sys
import threading

VARIABLE = "AUTORESEARCH_LIFELINE"


def hold() -> None:
    """Watch standard input, if the parent said that it is a lifeline. Call once, early."""
    # Not passed on: what this process starts has a standard input of its own.
    if os.environ.pop(VARIABLE, "") == "stdin":
        threading.Thread(target=_watch, name="lifeline", daemon=True).start()


def _watch() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
