"""Commands on single experiments: submit, wait, log, cancel."""

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.errors import DISCARDED, FAILED, CommandError, ConfigError
from orchestrator.cli.options import Experiment, Json, Token, Url
from orchestrator.cli.output import answer, note, write_json

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.schemas import ExperimentDetail

_PROGRESS_SECONDS = 1.0
_LONG_POLL_SECONDS = 20.0
_EXIT_CODES = {"keep": 0, "discard": DISCARDED}


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
    """Queue a train.py. With --wait: its verdict; exit code 0 keep, 4 discard, 1 crash."""
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
    """Stay until an experiment is decided; exit code 0 keep, 4 discard, 1 anything else."""
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
    raw: Annotated[
        bool, typer.Option("--raw", help="Byte for byte, with all that a terminal would act on.")
    ] = False,
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """What a run printed, as lines that are harmless to show; with -f, on to its verdict.

    With --json: objects with `text`, one a line.
    """
    from orchestrator.cli.config import connect
    from orchestrator.cli.logs import Lines, Objects, Raw, show
    from orchestrator.cli.tables import verdict_line

    if raw and json:
        raise ConfigError("--raw and --json exclude each other")
    sink = Raw() if raw else Objects() if json else Lines()
    with connect(orchestrator, token) as client:
        try:
            detail = show(client, experiment, sink, follow=follow)
        except KeyboardInterrupt:
            note(f"`autoresearch log -f {experiment}` goes on")
            raise
    if follow and not json:
        note(verdict_line(detail))


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
    """Wait for the decision; stderr shows how far it is. Ctrl-C leaves the run alone."""
    from orchestrator.cli.waiting import WaitBar

    deadline = math.inf if timeout is None else time.monotonic() + timeout
    detail = client.experiment(experiment)
    try:
        with WaitBar(experiment) as bar:
            often = bar.drawn or timeout is not None
            every = _PROGRESS_SECONDS if often else _LONG_POLL_SECONDS
            for detail in client.watch(experiment, every=every):
                bar.update(detail)
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
    code = _EXIT_CODES.get(detail.status, FAILED)
    if code == FAILED and not as_json and detail.status != "cancelled":
        note(f"`autoresearch log {detail.id}` shows what it printed.")
    if code:
        raise typer.Exit(code)
