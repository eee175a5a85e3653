"""Calls that bear with an orchestrator that is away for a while."""

import time
from collections.abc import Callable
from typing import TypeVar

from orchestrator.cli.client import OUTAGE_SECONDS
from orchestrator.cli.errors import UnreachableError
from orchestrator.cli.output import note

T = TypeVar("T")


def patiently(call: Callable[[], T]) -> T:
    """The answer, if it comes within a minute."""
    deadline = time.monotonic() + OUTAGE_SECONDS
    told = False
    while True:
        try:
            return call()
        except UnreachableError as error:
            if time.monotonic() > deadline:
                raise
            if not told:
                note(f"{error.message} Waiting for it.")
                told = True
        time.sleep(1)
