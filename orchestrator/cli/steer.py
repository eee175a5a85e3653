"""Commands that steer a running search: each says who and why, and is kept in the audit log."""

from typing import Annotated

import typer

from orchestrator import schemas
from orchestrator.cli import tables
from orchestrator.cli.client import Client, experiment_path
from orchestrator.cli.options import Experiment, Tag, load_model
from orchestrator.cli.output import note as remark, respond

Reason = Annotated[
    str, typer.Option("--reason", "-r", metavar="TEXT", help="Why: one line for the ledger.")
]
By = Annotated[str, typer.Option(metavar="NAME", help="Who does it, for the ledger.")]
Gpu = Annotated[str, typer.Argument(metavar="GPU", help="Its id, as `autoresearch status` has it.")]


def pause(client: Client, tag: Tag, *, reason: Reason, by: By = "human", json: bool) -> None:
    _steer_tag(client, "pause", tag, reason, by, json=json)


def resume(client: Client, tag: Tag, *, reason: Reason, by: By = "human", json: bool) -> None:
    _steer_tag(client, "resume", tag, reason, by, json=json)


def race(client: Client, tag: Tag, *, reason: Reason, by: By = "human", json: bool) -> None:
    request = load_model(schemas.TagSteerRequest, tag=tag, reason=reason, by=by)
    result = client.post("/api/steer/race", schemas.RaceAnswer, request)
    best = result.best_experiment_id
    first = f"; its best, {best}, is repeated first" if best else ""
    respond(json, result, f"{tag} keeps by race from now on{first}")


def cancel(
    client: Client,
    experiment: Experiment,
    *,
    reason: Reason = "no reason given",
    by: By = "human",
    json: bool,
) -> None:
    request = load_model(schemas.CancelRequest, reason=reason, by=by)
    result = client.cancel(experiment, request)
    state = "is being stopped" if result.cancelling else result.status
    respond(json, result, f"{experiment} {state}")


def requeue(
    client: Client, experiment: Experiment, *, reason: Reason, by: By = "human", json: bool
) -> None:
    request = load_model(schemas.RequeueRequest, reason=reason, by=by)
    path = experiment_path(experiment, "requeue")
    result = client.post(path, schemas.RequeueAnswer, request)
    if result.requeueing:
        text = f"{experiment} is being stopped and goes back into the queue"
    else:
        text = f"{result.experiment_id} queued, position {result.position}"
    respond(json, result, text)


def priority(
    client: Client,
    experiment: Experiment,
    priority: Annotated[int, typer.Argument(metavar="N", help="Higher runs sooner; 0 is usual.")],
    *,
    reason: Reason,
    by: By = "human",
    json: bool,
) -> None:
    request = load_model(schemas.PriorityRequest, priority=priority, reason=reason, by=by)
    path = experiment_path(experiment, "priority")
    result = client.post(path, schemas.PriorityAnswer, request)
    text = f"{experiment} has priority {result.priority}, position {result.position}"
    respond(json, result, text)


def drain(client: Client, gpu: Gpu, *, reason: Reason, by: By = "human", json: bool) -> None:
    request = load_model(schemas.DrainRequest, gpu_id=gpu, reason=reason, by=by)
    result = client.post("/api/pool/drain", schemas.DrainAnswer, request)
    respond(json, result, f"{gpu} gets no new run")


def undrain(client: Client, gpu: Gpu, *, reason: Reason, by: By = "human", json: bool) -> None:
    request = load_model(schemas.DrainRequest, gpu_id=gpu, reason=reason, by=by)
    result = client.post("/api/pool/undrain", schemas.DrainAnswer, request)
    respond(json, result, f"{gpu} gets runs again")


def note(
    client: Client,
    tag: Tag,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What agents are to know.")],
    *,
    by: By = "human",
    json: bool,
) -> None:
    request = load_model(schemas.NoteRequest, tag=tag, text=text, by=by)
    result = client.post("/api/steer/note", schemas.NoteAnswer, request)
    respond(json, result, f"{result.note.id} is left for the agents of {tag}")


def notes(
    client: Client,
    tag: Tag,
    *,
    drop: Annotated[
        str | None, typer.Option(metavar="NOTE", help="Take this one away, note-….")
    ] = None,
    by: By = "human",
    json: bool,
) -> None:
    if drop is not None:
        request = load_model(schemas.DropNoteRequest, tag=tag, note_id=drop, by=by)
        dropped = client.post("/api/steer/drop-note", schemas.DropNoteAnswer, request)
        respond(json, dropped, f"{drop} is dropped")
        return
    result = client.get("/api/steer/notes", schemas.NotesAnswer, tag=tag)
    texts = [
        f"{n.id}  {tables.moment(n.at)}  {n.by}\n  " + n.text.replace("\n", "\n  ")
        for n in result.notes
    ]
    respond(json, result, *texts)
    if not texts and not json:
        remark(f"no notes; `autoresearch note {tag} TEXT` leaves one")


def ledger(
    client: Client,
    tag: Annotated[
        str | None, typer.Argument(metavar="[TAG]", help="All tags and GPUs by default.")
    ] = None,
    *,
    limit: Annotated[int, typer.Option(help="Only the newest N.", min=1, max=1000)] = 100,
    json: bool,
) -> None:
    result = client.get("/api/steer/ledger", schemas.LedgerAnswer, tag=tag, limit=limit)
    respond(json, result, tables.ledger_table(result.entries))
    if result.next_cursor is not None and not json:
        remark(f"the newest {limit}; --limit shows more")


def _steer_tag(client: Client, verb: str, tag: str, reason: str, by: str, *, json: bool) -> None:
    request = load_model(schemas.TagSteerRequest, tag=tag, reason=reason, by=by)
    result = client.post(f"/api/steer/{verb}", schemas.PauseAnswer, request)
    text = f"{tag} is {'paused' if result.paused else 'not paused'}"
    if result.pause is not None:
        text += f" by {result.pause.by}: {result.pause.reason}"
    respond(json, result, text)
