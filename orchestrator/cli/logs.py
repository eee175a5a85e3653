"""Shows the log of a run, to its present end or, following it, to the verdict.

What a run prints is not to be trusted: nothing of it reaches the terminal as it is, but with
`--raw`.
"""

import sys
import time
from functools import partial
from typing import Protocol

from orchestrator.cli.client import Client
from orchestrator.cli.output import answer, note, write_json
from orchestrator.cli.patience import patiently
from orchestrator.cli.text import LogLines
from orchestrator.schemas import ExperimentDetail

_PAUSES = (0.3, 0.5, 1.0, 2.0)


class Sink(Protocol):
    """Where a log goes, piece by piece; `end` when no more will come."""

    def write(self, offset: int, data: bytes) -> None: ...
    def end(self) -> None: ...


class Raw:
    """Byte for byte."""

    def write(self, offset: int, data: bytes) -> None:
        del offset
        sys.stdout.buffer.write(data)
        sys.stdout.flush()

    def end(self) -> None:
        pass


class Objects:
    """One JSON object a piece."""

    def write(self, offset: int, data: bytes) -> None:
        write_json({"offset": offset, "text": data.decode(errors="replace")})

    def end(self) -> None:
        pass


class Lines:
    """Lines made harmless. On a terminal the one that is not complete shows, too, and is written
    over."""

    def __init__(self) -> None:
        self._lines = LogLines()
        self._live = sys.stdout.isatty()

    def write(self, offset: int, data: bytes) -> None:
        if offset == 0:
            self._lines = LogLines()
        done = self._lines.feed(data)
        self._clear()
        for line in done:
            answer(line)
        if self._live:
            from rich.console import Console
            from rich.text import Text

            # One column is left, for the cursor: no terminal then wraps the line.
            text = Text(self._lines.line)
            text.truncate(Console().width - 1, overflow="ellipsis")
            sys.stdout.write(text.plain)
            sys.stdout.flush()

    def end(self) -> None:
        self._clear()
        if self._lines.line:
            answer(self._lines.line)
        self._lines = LogLines()

    def _clear(self) -> None:
        if self._live:
            sys.stdout.write("\r\x1b[K")


def show(client: Client, experiment: str, sink: Sink, *, follow: bool) -> ExperimentDetail:
    """The log from its beginning; the experiment as it was when the log ended."""
    detail = client.experiment(experiment)
    offset = attempt = quiet = 0
    try:
        while True:
            if detail.lease and detail.lease.epoch != attempt:
                if offset:
                    sink.end()
                    note(f"attempt {detail.lease.epoch} begins")
                offset, attempt = 0, detail.lease.epoch
            before = offset
            while piece := patiently(partial(client.log, experiment, offset)):
                sink.write(offset, piece)
                offset += len(piece)
            if not follow or detail.finished_at:
                return detail
            quiet = 0 if offset > before else quiet + 1
            time.sleep(_PAUSES[min(quiet, len(_PAUSES) - 1)])
            # The state before the log: what a run printed until its end is then not missed.
            detail = patiently(partial(client.experiment, experiment))
    finally:
        sink.end()
