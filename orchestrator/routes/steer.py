"""Steering: tags, runs and GPUs by a person's hand, and the ledger of it."""

from typing import Annotated

from fastapi import Query

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import SteeringDep, TagQuery

router = problems.router(tags=["steering"])


@router.post("/api/steer/pause")
async def pause(body: schemas.TagSteerRequest, service: SteeringDep) -> schemas.PauseAnswer:
    return await service.pause(body)


@router.post("/api/steer/resume")
async def resume(body: schemas.TagSteerRequest, service: SteeringDep) -> schemas.PauseAnswer:
    return await service.resume(body)


@router.post("/api/steer/note")
async def add_note(body: schemas.NoteRequest, service: SteeringDep) -> schemas.NoteAnswer:
    return await service.add_note(body)


@router.post("/api/steer/drop-note")
async def drop_note(body: schemas.DropNoteRequest, service: SteeringDep) -> schemas.DropNoteAnswer:
    return await service.drop_note(body)


@router.get("/api/steer/notes")
async def notes(query: TagQuery, service: SteeringDep) -> schemas.NotesAnswer:
    return await service.notes(query.tag)


@router.get("/api/steer/ledger")
async def ledger(
    query: Annotated[schemas.LedgerRequest, Query()], service: SteeringDep
) -> schemas.LedgerAnswer:
    return await service.ledger(query)


@router.post("/api/experiment/{experiment_id}/cancel")
async def cancel(
    experiment_id: str, service: SteeringDep, body: schemas.CancelRequest | None = None
) -> schemas.CancelAnswer:
    return await service.cancel(experiment_id, body or schemas.CancelRequest())


@router.post("/api/experiment/{experiment_id}/requeue")
async def requeue(
    experiment_id: str, body: schemas.RequeueRequest, service: SteeringDep
) -> schemas.RequeueAnswer:
    return await service.requeue(experiment_id, body)


@router.post("/api/experiment/{experiment_id}/priority")
async def set_priority(
    experiment_id: str, body: schemas.PriorityRequest, service: SteeringDep
) -> schemas.PriorityAnswer:
    return await service.set_priority(experiment_id, body)


@router.post("/api/pool/drain")
async def drain(body: schemas.DrainRequest, service: SteeringDep) -> schemas.DrainAnswer:
    return await service.drain(body)


@router.post("/api/pool/undrain")
async def undrain(body: schemas.DrainRequest, service: SteeringDep) -> schemas.DrainAnswer:
    return await service.undrain(body)
