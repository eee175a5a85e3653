"""Commands on single experiments: submit, wait, log, cancel."""

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.errors import FAILED, CommandError, ConfigError
from orchestrator.cli.options import Experiment, Json, Token, Url
from orchestrator.cli.output import answer, note, write_json

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.schemas import ExperimentDetail

_PROGRESS_SECONDS = 1.0
_LONG_POLL_SECONDS = 20.0
_FOLLOW_SECONDS = 0.5
_GOOD = ("keep", "discard")


def submit(
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
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it is decided.")] = False,
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Queue a train.py. With --wait: its verdict, and exit code 1 unless it ran to the end."""
    from orchestrator import schemas
    from orchestrator.cli.config import connect, load_model
    from orchestrator.cli.reports import explained

    request = load_model(
        schemas.SubmitRequest,
        tag=tag,
        hypothesis=hypothesis,
        train_py=_read_source(source),
        category=category,
        description=description,
        diff_summary=diff_summary,
        parent_id=parent,
        priority=priority,
        seed=seed,
        repeat=repeat,
    )
    with connect(orchestrator, token) as client:
        with explained(client, tag):
            submitted = client.submit(request)
        _warn_of_an_empty_pool(client)
        if wait:
            _finish(_watched(client, submitted.experiment_id), as_json=json)
        elif json:
            write_json(submitted)
        else:
            place = "" if submitted.position is None else f", position {submitted.position}"
            answer(f"{submitted.experiment_id} {submitted.status}{place}")


def wait(
    experiment: Experiment,
    *,
    timeout: Annotated[float | None, typer.Option(help="Give up after so many seconds.")] = None,
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Stay until an experiment is decided; exit code 1 unless it ran to the end."""
    from orchestrator.cli.config import connect

    with connect(orchestrator, token) as client:
        _finish(_watched(client, experiment, timeout), as_json=json)


def cancel(
    experiment: Experiment,
    *,
    reason: Annotated[
        str, typer.Option("--reason", "-r", metavar="TEXT", help="Why: one line for the ledger.")
    ] = "no reason given",
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who does it.")] = "human",
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Take an experiment out of the queue, or have its worker stop it."""
    from orchestrator import schemas
    from orchestrator.cli.config import connect, load_model

    request = load_model(schemas.CancelRequest, reason=reason, by=by)
    with connect(orchestrator, token) as client:
        result = client.cancel(experiment, request)
    if json:
        write_json(result)
    else:
        answer(f"{experiment} {'is being stopped' if result.cancelling else result.status}")


def log(
    experiment: Experiment,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the experiment is decided.")
    ] = False,
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """What a run printed, byte for byte. With --json: objects with `text`, one a line."""
    from orchestrator.cli.config import connect

    with connect(orchestrator, token) as client:
        detail = client.experiment(experiment)
        offset = attempt = 0
        while True:
            if detail.lease and detail.lease.epoch != attempt:
                offset, attempt = 0, detail.lease.epoch  # a new attempt begins a new log
            offset = _pass_on(client, experiment, offset, as_json=json)
            if not follow or detail.finished_at:
                return
            time.sleep(_FOLLOW_SECONDS)
            # The state before the log: what a run printed until its end is then not missed.
            detail = client.experiment(experiment)


def _pass_on(client: "Client", experiment: str, offset: int, *, as_json: bool) -> int:
    """Print the log from `offset` to its present end; give back where that is."""
    while piece := client.log(experiment, offset):
        if as_json:
            write_json({"offset": offset, "text": piece.decode(errors="replace")})
        else:
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
        offset += len(piece)
    return offset


def _warn_of_an_empty_pool(client: "Client") -> None:
    """A queue that nobody serves looks like a slow one."""
    pool = client.pool()
    if pool.idle + pool.training == 0:
        why = "; ".join(worker.problem for worker in pool.workers if worker.problem)
        note(f"no worker takes runs now{f' ({why})' if why else ''}: see `autoresearch worker`")


def _read_source(source: str) -> str:
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror or error}") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source} is not UTF-8 text: {error}") from error


def _watched(client: "Client", experiment: str, timeout: float | None = None) -> "ExperimentDetail":
    """Wait for the decision; on a terminal, one line on stderr shows how far it is."""
    from orchestrator.cli.output import console
    from orchestrator.cli.tables import state_line

    deadline = math.inf if timeout is None else time.monotonic() + timeout
    screen = console(stderr=True)
    every = _PROGRESS_SECONDS if screen.is_terminal or timeout is not None else _LONG_POLL_SECONDS
    detail = client.experiment(experiment)
    try:
        with screen.status(f"{experiment} …") as line:
            for detail in client.watch(experiment, every=every):
                line.update(state_line(detail))
                if detail.finished_at or time.monotonic() >= deadline:
                    break
    except KeyboardInterrupt:
        note(f"{experiment} goes on without you: `autoresearch wait {experiment}`")
        raise
    if detail.finished_at:
        return detail
    raise CommandError(
        f"{experiment} is still {detail.status} after {timeout:g} s; it goes on: "
        f"`autoresearch wait {experiment}`",
        experiment_id=experiment,
        status=detail.status,
    )


def _finish(detail: "ExperimentDetail", *, as_json: bool) -> None:
    from orchestrator.cli.tables import verdict_line

    if as_json:
        write_json(detail)
    else:
        answer(verdict_line(detail))
    if detail.status not in _GOOD:
        if not as_json and detail.status != "cancelled":
            note(f"`autoresearch log {detail.id}` shows what it printed.")
        raise typer.Exit(FAILED)
