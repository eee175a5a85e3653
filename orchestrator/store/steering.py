"""Operator actions, each one script, and the audit log of them (the key `ledger`)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.domain import LedgerEntry, Note, OperatorAction, OperatorHold, Stop, Tag
from orchestrator.errors import Conflict, NotFound
from orchestrator.ids import tag_of
from orchestrator.rules.race import State, begin
from orchestrator.rules.race.state import to_json
from orchestrator.store import entries, keys, records, verbs
from orchestrator.store.client import TextRedis
from orchestrator.store.experiments import Queued
from orchestrator.store.reads import ReadStore
from orchestrator.store.records import action_fields
from orchestrator.store.scripts import R, Reply, Script, Scripts, redis_errors

CHUNK = 1000

_WHY_NOT_REQUEUED = {
    "queued": "waits in the queue already",
    "hand": "is trained by hand, and only its reporter ends it",
}
_WHY_NO_PRIORITY = {
    "leased": "has left the queue: it runs, and its priority has no meaning any more",
    "running": "has left the queue: it runs, and its priority has no meaning any more",
    "hand": "is trained by hand and was never in the queue",
    "measured": "has had its run, and waits for the repeats that decide it",
    "decided": "is decided; requeue it to run it again",
}


@dataclass(frozen=True)
class LedgerPage:
    """Entries, newest first, and the cursor for those before them, if there are any."""

    entries: list[LedgerEntry]
    next_cursor: str | None


class SteeringStore:
    def __init__(self, scripts: Scripts, redis: TextRedis, reads: ReadStore) -> None:
        self._scripts = scripts
        self._reads = reads
        self._redis = redis

    # -- tags

    async def pause(self, tag: str, action: OperatorAction) -> Tag:
        """Keep the tag's jobs from being claimed; a paused tag stays as it is."""
        reply = await self._steer(verbs.PAUSE, tag, None, action)
        return records.tag_from(reply["tag"])

    async def race(self, tag: str, action: OperatorAction) -> Tag:
        """Let the tag keep by `race` from now on, from what it holds as its best. Raises `Conflict`
        if that, or a run under way, was made by hand: the race repeats sources."""

        async def arguments() -> tuple[object, ...]:
            found = await self._scripts.run(verbs.SNAPSHOT, tag, None)
            now, seed, state = records.tag_from(found["tag"]), None, State()
            if now.best is not None:
                experiment, run = await self._reads.entry(now.best.experiment_id)
                if experiment.source_sha256 is None:
                    raise Conflict(
                        f"The best of {tag!r}, {experiment.id}, was trained by hand, and a race"
                        " repeats its best: set up another tag with keep_rule race, and submit"
                        " that train.py as its baseline."
                    )
                seed = run.seed
                state = begin(now.best, seed)
            data = entries.switched_data(now, action, seed)
            entry = self._scripts.entry(now, "steered", data)
            return tag, None, action_fields(action) | entry, to_json(state)

        reply = await self._scripts.run_on_snapshot(verbs.RACE, arguments)
        if reply.name == "HAND":
            raise Conflict(
                f"Runs of {tag!r} by hand are under way ({reply['n']}), which a race cannot"
                " repeat: report or cancel them first."
            )
        return records.tag_from(reply["tag"])

    async def resume(self, tag: str, action: OperatorAction) -> Tag:
        reply = await self._steer(verbs.RESUME, tag, None, action)
        return records.tag_from(reply["tag"])

    async def add_note(self, tag: str, action: OperatorAction, at_most: int) -> Note:
        """Leave the action's reason as a note. Raises `Conflict` where there are `at_most`."""
        reply = await self._steer(verbs.ADD_NOTE, tag, None, action, at_most)
        if reply.name == "FULL":
            raise Conflict(f"Tag {tag!r} has {at_most} notes already; drop one first (drop-note).")
        return records.note_from(reply["id"], reply["note"])

    async def drop_note(self, tag: str, action: OperatorAction) -> None:
        reply = await self._steer(verbs.DROP_NOTE, tag, None, action)
        if reply.name == "NO_NOTE":
            raise NotFound(f"Tag {tag!r} has no {action.target}; GET /api/steer/notes lists them.")

    async def notes(self, tag: str) -> list[Note]:
        """The notes of a tag, newest first; an empty list for an unknown tag."""
        with redis_errors():
            return records.notes_from(await self._redis.hgetall(keys.of_tag(tag, "notes")))

    # -- runs

    async def stop(
        self, experiment_id: str, what: Stop, action: OperatorAction
    ) -> Literal["asked", "decided", "not leased"]:
        """Ask the worker of a leased run to stop it. Other runs stay as they are."""
        tag = tag_of(experiment_id)
        reply = await self._steer(verbs.STOP, tag, experiment_id, action, what)
        if reply.name == "DONE":
            return "decided"
        return "not leased" if reply.name == "CONFLICT" else "asked"

    async def repeat(self, experiment_id: str, action: OperatorAction) -> Queued | None:
        """Queue a decided run's source again; None for a run that a worker has.

        Raises `Conflict` for a run that waits, is trained by hand, or has no source here.
        """
        tag = tag_of(experiment_id)
        reply = await self._steer(verbs.REPEAT, tag, experiment_id, action)
        if reply.name == "NO_SOURCE":
            raise Conflict(
                f"{experiment_id} was trained by hand: its train.py is not here; submit it."
            )
        if reply.name == "CONFLICT":
            why = _WHY_NOT_REQUEUED.get(reply["state"])
            if why is not None:
                raise Conflict(f"{experiment_id} {why}.")
            return None
        return Queued(reply["id"], reply["position"])

    async def set_priority(self, experiment_id: str, priority: int, action: OperatorAction) -> int:
        """Move a queued run; returns its place. Raises `Conflict` for one that is not queued."""
        tag = tag_of(experiment_id)
        reply = await self._steer(verbs.SET_PRIORITY, tag, experiment_id, action, priority)
        if reply.name == "CONFLICT":
            raise Conflict(f"{experiment_id} {_WHY_NO_PRIORITY[reply['state']]}.")
        return int(reply["position"])

    async def _steer(
        self,
        script: Script[R],
        tag: str,
        experiment_id: str | None,
        action: OperatorAction,
        *more: object,
    ) -> Reply[R]:
        """Run a verb that writes the action into the journal of a tag."""

        async def arguments() -> tuple[object, ...]:
            found = await self._scripts.run(verbs.SNAPSHOT, tag, experiment_id)
            now = records.tag_from(found["tag"])
            # A note is named after the revision that it makes.
            note = f"note-{now.revision + 1}"
            done = replace(action, target=note) if action.kind == "note" else action
            data = entries.steered_data(now, done)
            entry = self._scripts.entry(now, "steered", data, experiment_id or "")
            return tag, experiment_id, action_fields(done) | entry, *more

        return await self._scripts.run_on_snapshot(script, arguments)

    # -- GPUs

    async def drain(self, gpu_id: str, action: OperatorAction) -> OperatorHold:
        """Give a GPU no new run; one that is drained stays as it is."""
        reply = await self._scripts.run(verbs.DRAIN, gpu_id, action_fields(action))
        return records.hold_from(reply["drained"])

    async def undrain(self, gpu_id: str, action: OperatorAction) -> None:
        await self._scripts.run(verbs.UNDRAIN, gpu_id, action_fields(action))

    # -- the audit log

    async def ledger(self, tag: str | None, limit: int, before: str | None) -> LedgerPage:
        """The newest `limit` entries, of one tag or of all and the pool, or those before the cursor
        `before`."""
        key = keys.of_tag(tag, "ledger") if tag else keys.of_all("ledger")
        newest = f"({before}" if before else "+"
        with redis_errors():
            found = await self._redis.xrevrange(key, newest, "-", limit + 1)
        entries = [records.ledger_entry_from(i, stored) for i, stored in found[:limit]]
        return LedgerPage(entries, entries[-1].id if len(found) > limit else None)

    async def whole_ledger(self, tag: str) -> AsyncIterator[LedgerEntry]:
        """All entries on a tag, newest first: for the audit."""
        before: str | None = None
        while True:
            page = await self.ledger(tag, CHUNK, before)
            for entry in page.entries:
                yield entry
            if page.next_cursor is None:
                return
            before = page.next_cursor
