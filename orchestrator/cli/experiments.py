"""Commands on single experiments: submit, wait, log.

A run's output is untrusted: only `--raw` passes it on to the terminal as it is.
"""

import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from orchestrator import schemas
from orchestrator.cli import tables
from orchestrator.cli.client import Client, retried
from orchestrator.cli.errors import (
    DISCARDED,
    FAILED,
    ConfigError,
    UndecidedError,
    UnreachableError,
)
from orchestrator.cli.options import Experiment, load_model
from orchestrator.cli.output import answer, console, note, respond, write_json
from orchestrator.cli.text import LogLines, visible
from orchestrator.schemas import ExperimentDetail

_PROGRESS_SECONDS = 1.0
_LONG_POLL_SECONDS = 20.0
_EXIT_CODES = {"keep": 0, "discard": DISCARDED}
# Pauses between reads of a log that does not grow.
_PAUSES = (0.3, 0.5, 1.0, 2.0)


def submit(
    client: Client,
    source: Annotated[str, typer.Argument(metavar="TRAIN_PY", help="The file; - reads stdin.")],
    *,
    tag: Annotated[str, typer.Option(help="The search it belongs to.")],
    hypothesis: Annotated[str, typer.Option(help="What is tried, and why it should help.")],
    category: Annotated[str, typer.Option(help="architecture, optimizer, …")] = "other",
    description: Annotated[str | None, typer.Option(help="For the results table.")] = None,
    diff_summary: Annotated[str, typer.Option(help="What was changed.")] = "",
    parent: Annotated[
        str | None, typer.Option(metavar="EXPERIMENT", help="Its source; the best by default.")
    ] = None,
    priority: Annotated[int, typer.Option(help="Higher runs sooner.")] = 0,
    seed: Annotated[int, typer.Option(help="Reaches train.py as AUTORESEARCH_SEED.")] = 42,
    repeat: Annotated[bool, typer.Option("--repeat", help="Run an equal source again.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is decided.")] = False,
    json: bool,
) -> None:
    """With --wait the exit code is 0 keep, 4 discard, 1 crash."""
    request = load_model(
        schemas.SubmitRequest,
        tag=tag,
        hypothesis=hypothesis,
        train_py=read_source(source),
        category=category,
        description=description,
        diff_summary=diff_summary,
        parent_id=parent,
        priority=priority,
        seed=seed,
        repeat=repeat,
    )
    submitted = client.submit(request)
    pool = client.pool()
    if pool.idle + pool.training == 0:  # else such a queue looks like a slow one
        why = "; ".join(worker.problem for worker in pool.workers if worker.problem)
        note(f"no worker takes runs now{f' ({why})' if why else ''}: see `autoresearch worker`")
    if wait:
        _finish(_decided(client, submitted.experiment_id), as_json=json)
        return
    place = "" if submitted.position is None else f", position {submitted.position}"
    respond(json, submitted, f"{submitted.experiment_id} {submitted.status}{place}")


def wait(
    client: Client,
    experiment: Experiment,
    *,
    timeout: Annotated[float | None, typer.Option(help="Give up after so many seconds.")] = None,
    json: bool,
) -> None:
    """0 keep, 4 discard, 5 undecided after --timeout, 1 anything else."""
    if timeout is not None and not 0 <= timeout < math.inf:
        raise ConfigError(f"--timeout: give a number of seconds, not {timeout:g}")
    _finish(_decided(client, experiment, timeout), as_json=json)


def log(
    client: Client,
    experiment: Experiment,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the experiment is decided.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Byte for byte, control characters included.")
    ] = False,
    json: bool,
) -> None:
    """With --json: objects with `text`, one a line."""
    if raw and json:
        raise ConfigError("--raw and --json exclude each other")
    sink = Raw() if raw else Objects() if json else Lines()
    try:
        detail = _show_log(client, experiment, sink, follow=follow)
    except KeyboardInterrupt:
        note(f"`autoresearch log -f {experiment}` goes on")
        raise
    if follow and not json:
        note(tables.verdict_line(detail))


def read_source(name: str) -> str:
    """The text of a file, or of stdin for `-`; ConfigError if it is no UTF-8 file."""
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode()
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8 text: {error}") from error


def _decided(client: Client, experiment: str, timeout: float | None = None) -> ExperimentDetail:
    """Wait for the verdict; stderr shows the progress. Ctrl-C leaves the run alone."""
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    screen = console(stderr=True)
    drawn = screen.is_terminal and not screen.is_dumb_terminal
    every = _PROGRESS_SECONDS if drawn or timeout is not None else _LONG_POLL_SECONDS
    told, away = "", False
    try:
        with run_bar(screen, drawn=drawn) as bar:
            task = bar.add_task(experiment, total=None, state="")
            for detail in client.watch(experiment, every=every):
                share, state = step(detail)
                total = None if share is None else 1.0  # without a total the bar pulses
                bar.update(task, state=state, total=total, completed=share or 0.0)
                if detail.finished_at:
                    return detail
                if client.away and not away:
                    note(f"no orchestrator answers at {client.url}; it is asked again")
                away = client.away
                if not drawn and detail.status != told:
                    told = detail.status
                    note(f"{experiment} {state}")
                if time.monotonic() >= deadline:
                    break
    except KeyboardInterrupt:
        note(f"{experiment} goes on without you: `autoresearch wait {experiment}`")
        raise
    if away:
        raise UnreachableError(
            f"no orchestrator answers at {client.url}; {experiment} was {detail.status} before"
        )
    raise UndecidedError(
        f"{experiment} is still {detail.status} after {timeout:g} s; it goes on: "
        f"`autoresearch wait {experiment}`",
        experiment_id=experiment,
        status=detail.status,
    )


def run_bar(screen: Console, *, drawn: bool) -> Progress:
    """A bar for a run, whose task has a field `state`; `drawn` False shows nothing."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=not drawn,
    )


def step(detail: ExperimentDetail) -> tuple[float | None, str]:
    """The share of its training that is done (None if unknown), and what it does, in words."""
    if detail.status == "queued":
        place = "" if detail.position is None else f", position {detail.position}"
        return None, f"queued{place}" + (f": {visible(detail.blocked)}" if detail.blocked else "")
    if detail.status == "candidate":
        return None, f"candidate: {tables.why(detail)}"
    if detail.status != "running":
        return None, detail.status
    where = f" on {detail.gpu_id}" if detail.gpu_id else ""
    if not detail.curve:
        return None, f"starting{where}"
    last = detail.curve[-1]
    share = min(1.0, last.percent / 100)
    if share >= 1:
        return None, f"evaluating{where}, loss {last.loss:.4f}"
    left = detail.time_budget_seconds * (1 - share)
    # At most, since it may end by itself.
    return share, f"step {last.step}, loss {last.loss:.4f}, at most {left:.0f} s to train{where}"


def _finish(detail: ExperimentDetail, *, as_json: bool) -> None:
    respond(as_json, detail, tables.verdict_line(detail))
    code = _EXIT_CODES.get(detail.status, FAILED)
    if code == FAILED and not as_json and detail.status != "cancelled":
        note(f"`autoresearch log {detail.id}` shows what it printed.")
    if code:
        raise typer.Exit(code)


class Raw:
    """Prints a log byte for byte, piece by piece; `end` when no more will come."""

    def write(self, data: bytes, offset: int) -> None:  # noqa: ARG002
        sys.stdout.buffer.write(data)
        sys.stdout.flush()

    def end(self) -> None:
        pass


class Objects(Raw):
    """One JSON object a piece."""

    def write(self, data: bytes, offset: int) -> None:
        write_json({"offset": offset, "text": data.decode(errors="replace")})


class Lines(Raw):
    """Sanitized lines. On a terminal the last, incomplete line shows too and is overwritten."""

    def __init__(self) -> None:
        self._lines = LogLines()
        self._live = sys.stdout.isatty()

    def write(self, data: bytes, offset: int) -> None:  # noqa: ARG002
        self._clear()
        for line in self._lines.feed(data):
            answer(line)
        if self._live:
            text = Text(self._lines.line)
            # One column is left for the cursor, so that no terminal wraps the line.
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


def _show_log(client: Client, experiment: str, sink: Raw, *, follow: bool) -> ExperimentDetail:
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
            while piece := retried(partial(client.log, experiment, offset)):
                sink.write(piece, offset)
                offset += len(piece)
            if not follow or detail.finished_at:
                return detail
            quiet = 0 if offset > before else quiet + 1
            time.sleep(_PAUSES[min(quiet, len(_PAUSES) - 1)])
            # The state is read before the log, so that the end of the log is not missed.
            detail = retried(partial(client.experiment, experiment))
    finally:
        sink.end()
