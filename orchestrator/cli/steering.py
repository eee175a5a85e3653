"""Commands that steer a running search: each says who and why, and lands in the ledger."""

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import Experiment, Json, Tag, Token, Url
from orchestrator.cli.output import answer, note as remark, write_json

if TYPE_CHECKING:
    from pydantic import BaseModel

Reason = Annotated[
    str, typer.Option("--reason", "-r", metavar="TEXT", help="Why: one line for the ledger.")
]
By = Annotated[str, typer.Option("--by", metavar="NAME", help="Who does it, for the ledger.")]
Gpu = Annotated[str, typer.Argument(metavar="GPU", help="Its id, as `autoresearch status` has it.")]


def pause(
    tag: Tag,
    *,
    reason: Reason,
    by: By = "human",
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Start none of a tag's runs until it is resumed. Those that run go on."""
    _steer_tag("pause", tag, reason, by, orchestrator, token, json=json)


def resume(
    tag: Tag,
    *,
    reason: Reason,
    by: By = "human",
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Let a paused tag's runs start again."""
    _steer_tag("resume", tag, reason, by, orchestrator, token, json=json)


def requeue(
    experiment: Experiment,
    *,
    reason: Reason,
    by: By = "human",
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Put a running experiment back into the queue, or run a decided one again."""
    from orchestrator import schemas
    from orchestrator.cli.config import connect, load_model

    request = load_model(schemas.RequeueRequest, reason=reason, by=by)
    with connect(orchestrator, token) as client:
        path = f"/api/experiment/{experiment}/requeue"
        result = client.post(path, schemas.RequeueAnswer, request)
    if json:
        write_json(result)
    elif result.requeueing:
        answer(f"{experiment} is being stopped and goes back into the queue")
    else:
        answer(f"{result.experiment_id} queued, position {result.position}")


def priority(
    experiment: Experiment,
    priority: Annotated[int, typer.Argument(metavar="N", help="Higher runs sooner; 0 is usual.")],
    *,
    reason: Reason,
    by: By = "human",
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Give a queued experiment another place. A negative N goes after `--`."""
    from orchestrator import schemas
    from orchestrator.cli.config import connect, load_model

    request = load_model(schemas.PriorityRequest, priority=priority, reason=reason, by=by)
    with connect(orchestrator, token) as client:
        path = f"/api/experiment/{experiment}/priority"
        result = client.post(path, schemas.PriorityAnswer, request)
    if json:
        write_json(result)
    else:
        answer(f"{experiment} has priority {result.priority}, position {result.position}")


def drain(
    gpu: Gpu,
    *,
    reason: Reason,
    by: By = "human",
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Give a GPU no new run, until it is undrained. The one that it has goes on to its end."""
    result = _steer_gpu("drain", gpu, reason, by, orchestrator, token)
    _tell(result, f"{gpu} gets no new run", as_json=json)


def undrain(
    gpu: Gpu,
    *,
    reason: Reason,
    by: By = "human",
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Give a drained GPU runs again."""
    result = _steer_gpu("undrain", gpu, reason, by, orchestrator, token)
    _tell(result, f"{gpu} gets runs again", as_json=json)


def note(
    tag: Tag,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What agents are to know.")],
    *,
    by: By = "human",
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Leave a note that every agent of the tag gets with its next `suggest`."""
    from orchestrator import schemas
    from orchestrator.cli.config import connect, load_model
    from orchestrator.cli.reports import explained

    request = load_model(schemas.NoteRequest, tag=tag, text=text, by=by)
    with connect(orchestrator, token) as client, explained(client, tag):
        result = client.post("/api/steer/note", schemas.NoteAnswer, request)
    _tell(result, f"{result.note.id} is left for the agents of {tag}", as_json=json)


def notes(
    tag: Tag,
    *,
    drop: Annotated[
        str | None, typer.Option("--drop", metavar="NOTE", help="Take this one away, note-….")
    ] = None,
    by: By = "human",
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """The notes that agents of a tag get, newest first."""
    from orchestrator import schemas
    from orchestrator.cli.config import connect, load_model
    from orchestrator.cli.reports import explained

    with connect(orchestrator, token) as client:
        if drop is not None:
            request = load_model(schemas.DropNoteRequest, tag=tag, note_id=drop, by=by)
            dropped = client.post("/api/steer/drop-note", schemas.DropNoteAnswer, request)
            _tell(dropped, f"{drop} is dropped", as_json=json)
            return
        with explained(client, tag):
            result = client.get("/api/steer/notes", schemas.NotesAnswer, tag=tag)
    if json:
        write_json(result)
        return
    for left in result.notes:
        text = left.text.replace("\n", "\n  ")
        answer(f"{left.id}  {left.at[:19].replace('T', ' ')}  {left.by}\n  {text}")
    if not result.notes:
        remark(f"no notes; `autoresearch note {tag} TEXT` leaves one")


def ledger(
    tag: Annotated[
        str | None, typer.Argument(metavar="[TAG]", help="All tags and GPUs by default.")
    ] = None,
    *,
    limit: Annotated[int, typer.Option(help="Only the newest N.", min=1, max=1000)] = 100,
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Who steered what, when and why, newest first."""
    from orchestrator import schemas
    from orchestrator.cli import tables
    from orchestrator.cli.config import connect
    from orchestrator.cli.reports import explained

    with connect(orchestrator, token) as client, explained(client, tag or ""):
        result = client.get("/api/steer/ledger", schemas.LedgerAnswer, tag=tag, limit=limit)
    if json:
        write_json(result)
        return
    tables.show(tables.ledger_table(result.entries))
    if result.next_cursor is not None:
        remark(f"the newest {limit}; --limit shows more")


def _steer_tag(
    verb: str, tag: str, reason: str, by: str, url: str | None, token: str | None, *, json: bool
) -> None:
    from orchestrator import schemas
    from orchestrator.cli.config import connect, load_model
    from orchestrator.cli.reports import explained

    request = load_model(schemas.TagSteerRequest, tag=tag, reason=reason, by=by)
    with connect(url, token) as client, explained(client, tag):
        result = client.post(f"/api/steer/{verb}", schemas.PauseAnswer, request)
    told = f"{tag} is {'paused' if result.paused else 'not paused'}"
    if result.pause is not None:
        told += f" by {result.pause.by}: {result.pause.reason}"
    _tell(result, told, as_json=json)


def _steer_gpu(
    verb: str, gpu: str, reason: str, by: str, url: str | None, token: str | None
) -> "BaseModel":
    from orchestrator import schemas
    from orchestrator.cli.config import connect, load_model

    request = load_model(schemas.DrainRequest, gpu_id=gpu, reason=reason, by=by)
    with connect(url, token) as client:
        return client.post(f"/api/pool/{verb}", schemas.DrainAnswer, request)


def _tell(result: "BaseModel", text: str, *, as_json: bool) -> None:
    if as_json:
        write_json(result)
    else:
        answer(text)
