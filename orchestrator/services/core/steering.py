"""Steering: what people do to a running search. Each act has who and why, and is in the ledger.

An act that changes nothing (a second pause) is answered as the first one was and recorded nowhere.
"""

from orchestrator import schemas
from orchestrator.domain import OperatorAction, Outcome, Stop
from orchestrator.errors import Conflict
from orchestrator.services import views
from orchestrator.services.core.judge import Judge, tag_of
from orchestrator.store.connection import Store
from orchestrator.store.experiments import UNLEASED

_WHY_NOT_REQUEUED = {
    "queued": "waits in the queue already",
    "hand": "is trained by hand, and only its reporter ends it",
}
_WHY_NO_PRIORITY = {
    "leased": "has left the queue: it runs, and its priority has no meaning any more",
    "running": "has left the queue: it runs, and its priority has no meaning any more",
    "hand": "is trained by hand and was never in the queue",
    "decided": "is decided; requeue it to run it again",
}


class Steering:
    def __init__(self, store: Store, judge: Judge) -> None:
        self._store = store
        self._judge = judge

    # -- tags

    async def pause(self, request: schemas.TagSteerRequest) -> schemas.PauseAnswer:
        act = OperatorAction("pause", request.by, request.reason)
        return views.pause_answer(await self._store.steering.pause(request.tag, act))

    async def resume(self, request: schemas.TagSteerRequest) -> schemas.PauseAnswer:
        act = OperatorAction("resume", request.by, request.reason)
        return views.pause_answer(await self._store.steering.resume(request.tag, act))

    async def add_note(self, request: schemas.NoteRequest) -> schemas.NoteAnswer:
        act = OperatorAction("note", request.by, request.text)
        note = await self._store.steering.add_note(request.tag, act, schemas.NOTES_LIMIT)
        return schemas.NoteAnswer(note=views.note(note))

    async def drop_note(self, request: schemas.DropNoteRequest) -> schemas.DropNoteAnswer:
        act = OperatorAction("drop-note", request.by, "", request.note_id)
        await self._store.steering.drop_note(request.tag, act)
        return schemas.DropNoteAnswer()

    async def notes(self, tag: str) -> schemas.NotesAnswer:
        await self._store.reads.tag(tag)
        notes = await self._store.steering.notes(tag)
        return schemas.NotesAnswer(notes=[views.note(note) for note in notes])

    # -- runs

    async def cancel(
        self, experiment_id: str, request: schemas.CancelRequest
    ) -> schemas.CancelAnswer:
        """End a run that is not leased at once; ask the worker of a leased one to stop it."""
        act = OperatorAction("cancel", request.by, request.reason, experiment_id)
        while not await self._stopping(experiment_id, "cancel", act):
            try:
                verdict = await self._judge.settle(
                    experiment_id, Outcome("cancelled"), UNLEASED, act
                )
            except Conflict:
                continue  # it was claimed in between
            return schemas.CancelAnswer(
                experiment_id=experiment_id, status=verdict.status, cancelling=False
            )
        return schemas.CancelAnswer(experiment_id=experiment_id, status="running", cancelling=True)

    async def requeue(
        self, experiment_id: str, request: schemas.RequeueRequest
    ) -> schemas.RequeueAnswer:
        """Have a leased run given back; queue the source of a decided one once more.

        Raises `Conflict` for a run that waits, is trained by hand, or whose source is not here.
        """
        act = OperatorAction("requeue", request.by, request.reason, experiment_id)
        while not await self._stopping(experiment_id, "requeue", act):
            reply = await self._store.steering.repeat(tag_of(experiment_id), experiment_id, act)
            if reply.outcome == "OK":
                return schemas.RequeueAnswer(
                    experiment_id=reply["id"],
                    status="queued",
                    requeueing=False,
                    repeat_of=experiment_id,
                    position=reply["position"],
                )
            if reply.outcome == "NO_SOURCE":
                raise Conflict(
                    f"{experiment_id} was trained by hand: its train.py is not here; submit it."
                )
            if reply["state"] in _WHY_NOT_REQUEUED:
                raise Conflict(f"{experiment_id} {_WHY_NOT_REQUEUED[reply['state']]}.")
            # Else it was claimed in between.
        return schemas.RequeueAnswer(experiment_id=experiment_id, status="running", requeueing=True)

    async def _stopping(self, experiment_id: str, what: Stop, act: OperatorAction) -> bool:
        """Whether the run is leased; then its worker has been asked to stop it."""
        reply = await self._store.steering.stop(tag_of(experiment_id), experiment_id, what, act)
        return reply.outcome in ("OK", "UNCHANGED")

    async def set_priority(
        self, experiment_id: str, request: schemas.PriorityRequest
    ) -> schemas.PriorityAnswer:
        """Move a queued run. Raises `Conflict` for one that is not in the queue."""
        act = OperatorAction("priority", request.by, request.reason, experiment_id)
        reply = await self._store.steering.set_priority(
            tag_of(experiment_id), experiment_id, request.priority, act
        )
        if reply.outcome == "CONFLICT":
            raise Conflict(f"{experiment_id} {_WHY_NO_PRIORITY[reply['state']]}.")
        return schemas.PriorityAnswer(
            experiment_id=experiment_id, priority=request.priority, position=reply["position"]
        )

    # -- GPUs

    async def drain(self, request: schemas.DrainRequest) -> schemas.DrainAnswer:
        act = OperatorAction("drain", request.by, request.reason, request.gpu_id)
        drain = await self._store.steering.drain(request.gpu_id, act)
        return schemas.DrainAnswer(
            gpu_id=request.gpu_id, draining=True, drain=views.hold(drain)
        )

    async def undrain(self, request: schemas.DrainRequest) -> schemas.DrainAnswer:
        act = OperatorAction("undrain", request.by, request.reason, request.gpu_id)
        await self._store.steering.undrain(request.gpu_id, act)
        return schemas.DrainAnswer(gpu_id=request.gpu_id, draining=False, drain=None)

    # -- the ledger

    async def ledger(self, request: schemas.LedgerRequest) -> schemas.LedgerAnswer:
        if request.tag is not None:
            await self._store.reads.tag(request.tag)
        page = await self._store.steering.ledger(request.tag, request.limit, request.cursor)
        return schemas.LedgerAnswer(
            entries=[views.ledger_entry(entry) for entry in page.entries],
            next_cursor=page.next_cursor,
        )
