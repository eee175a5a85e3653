"""Steering: tags, runs and GPUs by a person's hand, and the ledger of it."""

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import FromQuery, ServicesDep, TagQuery

router = problems.router(tags=["steering"])


@router.post("/api/steer/pause")
async def pause(body: schemas.TagSteerRequest, services: ServicesDep) -> schemas.PauseAnswer:
    return await services.steering.pause(body)


@router.post("/api/steer/resume")
async def resume(body: schemas.TagSteerRequest, services: ServicesDep) -> schemas.PauseAnswer:
    return await services.steering.resume(body)


@router.post("/api/steer/race")
async def race(body: schemas.TagSteerRequest, services: ServicesDep) -> schemas.RaceAnswer:
    return await services.steering.race(body)


@router.post("/api/steer/note")
async def add_note(body: schemas.NoteRequest, services: ServicesDep) -> schemas.NoteAnswer:
    return await services.steering.add_note(body)


@router.post("/api/steer/drop-note")
async def drop_note(body: schemas.DropNoteRequest, services: ServicesDep) -> schemas.DropNoteAnswer:
    return await services.steering.drop_note(body)


@router.get("/api/steer/notes")
async def notes(query: TagQuery, services: ServicesDep) -> schemas.NotesAnswer:
    return await services.steering.notes(query.tag)


@router.get("/api/steer/ledger")
async def ledger(
    query: FromQuery[schemas.LedgerRequest], services: ServicesDep
) -> schemas.LedgerAnswer:
    return await services.steering.ledger(query)


@router.post("/api/experiment/{experiment_id}/cancel")
async def cancel(
    experiment_id: str, services: ServicesDep, body: schemas.CancelRequest | None = None
) -> schemas.CancelAnswer:
    return await services.steering.cancel(experiment_id, body or schemas.CancelRequest())


@router.post("/api/experiment/{experiment_id}/requeue")
async def requeue(
    experiment_id: str, body: schemas.RequeueRequest, services: ServicesDep
) -> schemas.RequeueAnswer:
    return await services.steering.requeue(experiment_id, body)


@router.post("/api/experiment/{experiment_id}/priority")
async def set_priority(
    experiment_id: str, body: schemas.PriorityRequest, services: ServicesDep
) -> schemas.PriorityAnswer:
    return await services.steering.set_priority(experiment_id, body)


@router.post("/api/pool/drain")
async def drain(body: schemas.DrainRequest, services: ServicesDep) -> schemas.DrainAnswer:
    return await services.steering.drain(body)


@router.post("/api/pool/undrain")
async def undrain(body: schemas.DrainRequest, services: ServicesDep) -> schemas.DrainAnswer:
    return await services.steering.undrain(body)
