"""Steering: what people do to a running search. The audit log keeps who did it, and why.

An action that changes nothing (a second pause) gets the answer of the first and is not recorded.
"""

from orchestrator import callers, schemas
from orchestrator.decisions import RunResult
from orchestrator.domain import OperatorAction
from orchestrator.errors import Conflict
from orchestrator.services import views
from orchestrator.services.core.judge import Judge
from orchestrator.services.core.race import Race
from orchestrator.store.connection import Store
from orchestrator.store.experiments import UNLEASED


def operator_action(kind: str, by: str, reason: str, target: str = "") -> OperatorAction:
    """What the present caller does. `by` is what the request says; the credential is the actor."""
    return OperatorAction(kind, by, reason, target, callers.current().label)


class Steering:
    def __init__(self, store: Store, judge: Judge, race: Race) -> None:
        self._store = store
        self._judge = judge
        self._race = race

    # -- tags

    async def pause(self, request: schemas.TagSteerRequest) -> schemas.PauseAnswer:
        action = operator_action("pause", request.by, request.reason)
        return views.pause_answer(await self._store.steering.pause(request.tag, action))

    async def resume(self, request: schemas.TagSteerRequest) -> schemas.PauseAnswer:
        action = operator_action("resume", request.by, request.reason)
        return views.pause_answer(await self._store.steering.resume(request.tag, action))

    async def race(self, request: schemas.TagSteerRequest) -> schemas.RaceAnswer:
        """Let a tag keep by `race` from now on, and queue the first repeats of its best."""
        action = operator_action("race", request.by, request.reason)
        tag = await self._store.steering.race(request.tag, action)
        await self._race.fill(tag.name)
        return schemas.RaceAnswer(
            tag=tag.name,
            keep_rule=tag.keep_rule,
            best_experiment_id=tag.best_experiment_id,
            best_val_bpb=tag.best_val_bpb,
        )

    async def add_note(self, request: schemas.NoteRequest) -> schemas.NoteAnswer:
        action = operator_action("note", request.by, request.text)
        note = await self._store.steering.add_note(request.tag, action, schemas.NOTES_LIMIT)
        return schemas.NoteAnswer(note=views.note(note))

    async def drop_note(self, request: schemas.DropNoteRequest) -> schemas.DropNoteAnswer:
        action = operator_action("drop-note", request.by, "", request.note_id)
        await self._store.steering.drop_note(request.tag, action)
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
        if (caller := callers.current()).role == "agent":
            entry = await self._store.reads.entry(experiment_id)
            caller.check_owns(entry.experiment.submitted_by, experiment_id)
        action = operator_action("cancel", request.by, request.reason, experiment_id)
        while await self._store.steering.stop(experiment_id, "cancel", action) != "asked":
            try:
                verdict = await self._judge.settle(
                    experiment_id, RunResult("cancelled"), UNLEASED, action
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
        action = operator_action("requeue", request.by, request.reason, experiment_id)
        while await self._store.steering.stop(experiment_id, "requeue", action) != "asked":
            queued = await self._store.steering.repeat(experiment_id, action)
            if queued is None:
                continue  # it was claimed in between
            return schemas.RequeueAnswer(
                experiment_id=queued.experiment_id,
                status="queued",
                requeueing=False,
                repeat_of=experiment_id,
                position=queued.position,
            )
        return schemas.RequeueAnswer(experiment_id=experiment_id, status="running", requeueing=True)

    async def set_priority(
        self, experiment_id: str, request: schemas.PriorityRequest
    ) -> schemas.PriorityAnswer:
        """Move a queued run. Raises `Conflict` for one that is not in the queue."""
        action = operator_action("priority", request.by, request.reason, experiment_id)
        position = await self._store.steering.set_priority(experiment_id, request.priority, action)
        return schemas.PriorityAnswer(
            experiment_id=experiment_id, priority=request.priority, position=position
        )

    # -- GPUs

    async def drain(self, request: schemas.DrainRequest) -> schemas.DrainAnswer:
        action = operator_action("drain", request.by, request.reason, request.gpu_id)
        drain = await self._store.steering.drain(request.gpu_id, action)
        return schemas.DrainAnswer(
            gpu_id=request.gpu_id, draining=True, drain=views.operator_hold(drain)
        )

    async def undrain(self, request: schemas.DrainRequest) -> schemas.DrainAnswer:
        action = operator_action("undrain", request.by, request.reason, request.gpu_id)
        await self._store.steering.undrain(request.gpu_id, action)
        return schemas.DrainAnswer(gpu_id=request.gpu_id, draining=False, drain=None)

    # -- the audit log

    async def ledger(self, request: schemas.LedgerRequest) -> schemas.LedgerAnswer:
        if request.tag is not None:
            await self._store.reads.tag(request.tag)
        page = await self._store.steering.ledger(request.tag, request.limit, request.cursor)
        return schemas.LedgerAnswer(
            entries=[views.ledger_entry(entry) for entry in page.entries],
            next_cursor=page.next_cursor,
        )
