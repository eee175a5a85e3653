"""Commands on tags: setup, status, best, history."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.errors import ApiError, CommandError, ConfigError
from orchestrator.cli.options import Json, Tag, Token, Url
from orchestrator.cli.output import answer, note, write_json

if TYPE_CHECKING:
    from orchestrator.cli.client import Client


def setup(
    tag: Tag,
    *,
    time_budget: Annotated[
        float, typer.Option(metavar="SECONDS", help="Training time of each run.")
    ] = 300,
    near_miss: Annotated[
        float, typer.Option(metavar="BPB", help="How close to the best counts as a near miss.")
    ] = 0.002,
    max_crashes: Annotated[
        int, typer.Option(help="Crashes in a row after which agents are told to stop.")
    ] = 3,
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Create a tag: one search, whose runs all have the same training time."""
    from orchestrator import schemas
    from orchestrator.cli.config import connect, load_model

    request = load_model(
        schemas.SetupRequest,
        tag=tag,
        time_budget_seconds=time_budget,
        near_miss_threshold=near_miss,
        max_consecutive_crashes=max_crashes,
    )
    with connect(orchestrator, token) as client:
        result = client.setup(request)
    if json:
        write_json(result)
    else:
        answer(f"tag {tag} is set up: {result.tag.time_budget_seconds:g} s of training a run")


def status(
    what: Annotated[
        str | None, typer.Argument(metavar="[TAG|EXPERIMENT]", help="All tags by default.")
    ] = None,
    *,
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """GPUs and tags at a glance; with a tag its numbers, with an experiment its record."""
    from orchestrator.cli import tables
    from orchestrator.cli.config import connect

    with connect(orchestrator, token) as client:
        if what is None:
            pool, tags = client.pool(), client.tags()
            if json:
                write_json({"url": client.url, "pool": pool.model_dump(mode="json"),
                            "tags": [t.model_dump(mode="json") for t in tags]})  # fmt: skip
            else:
                tables.show(tables.pool_table(pool), "", tables.tags_table(tags))
        elif what.startswith("exp-"):
            detail = client.experiment(what)
            if json:
                write_json(detail)
            else:
                line = tables.verdict_line if detail.finished_at else tables.state_line
                answer(line(detail))
        else:
            with explained(client, what):
                summary = client.summary(what)
            if json:
                write_json(summary)
            else:
                answer(tables.summary_lines(summary))


def best(
    tag: Tag,
    *,
    source: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the best train.py there; - for stdout."),
    ] = None,
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """The best experiment of a tag, and its train.py to go on from."""
    from orchestrator.cli.config import connect
    from orchestrator.cli.writing import written

    if source == "-" and json:
        raise ConfigError("--source - and --json both want stdout; give --source a file name")
    with connect(orchestrator, token) as client, explained(client, tag):
        result = client.best(tag)
        text = client.source(result.best.experiment_id) if source else ""
    if source:
        with written(source) as file:
            file.write(text.encode())
    if source == "-":
        return
    if json:
        write_json(result)
        return
    answer(
        f"{result.best.val_bpb:.6f}  {result.best.experiment_id}  {result.experiment.description}"
    )
    if source:
        note(f"its train.py is in {source}")


def history(
    tag: Tag,
    *,
    status: Annotated[
        str | None, typer.Option(help="Only queued, running, keep, discard, crash, …")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the newest N.", min=1, max=10_000)] = None,
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """The experiments of a tag, oldest first."""
    from orchestrator.cli import tables
    from orchestrator.cli.config import connect

    with connect(orchestrator, token) as client, explained(client, tag):
        result = client.history(tag, status, limit)
    if json:
        write_json(result)
        return
    tables.show(tables.experiments_table(result.experiments))
    if result.total > len(result.experiments):
        note(f"the newest {len(result.experiments)} of {result.total}")


@contextmanager
def explained(client: "Client", tag: str) -> Iterator[None]:
    """Say in the terms of this command line what to do about a refusal that concerns a tag."""
    try:
        yield
    except ApiError as error:
        if error.status == 409 and "existing" in error.body:
            error.message = error.message.replace("send repeat: true", "add --repeat")
        if error.status != 404:
            raise
        names = [t.name for t in client.tags()]
        if tag in names:
            raise
        close = get_close_matches(tag, names, n=1)
        hint = f"Did you mean '{close[0]}'? " if close else ""
        raise CommandError(
            f"no tag '{tag}'. {hint}`autoresearch setup {tag}` creates it.", tag=tag, tags=names
        ) from error
