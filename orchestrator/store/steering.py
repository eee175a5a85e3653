"""Interventions, each one script, and the ledger of them."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from orchestrator.domain import LedgerEntry, Note, OperatorAction, OperatorHold, Stop, Tag
from orchestrator.errors import Conflict, NotFound
from orchestrator.store import keys, records
from orchestrator.store.client import TextRedis
from orchestrator.store.experiments import unknown_experiment, unknown_tag
from orchestrator.store.jobs import unknown_gpu
from orchestrator.store.scripts import Reply, Scripts, redis_errors

CHUNK = 1000


@dataclass(frozen=True)
class LedgerPage:
    """Entries, newest first, and the cursor for those before them, if there are any."""

    entries: list[LedgerEntry]
    next_cursor: str | None


class SteeringStore:
    def __init__(self, scripts: Scripts, redis: TextRedis) -> None:
        self._scripts = scripts
        self._redis = redis

    # -- tags

    async def pause(self, tag: str, act: OperatorAction) -> Tag:
        """Keep the tag's jobs from being claimed; a paused tag stays as it is."""
        return self._tag(tag, await self._scripts.run("pause", tag, _json(act)))

    async def resume(self, tag: str, act: OperatorAction) -> Tag:
        return self._tag(tag, await self._scripts.run("resume", tag, _json(act)))

    @staticmethod
    def _tag(tag: str, reply: Reply) -> Tag:
        _check_tag(reply, tag)
        return records.tag_from(reply["tag"])

    async def add_note(self, tag: str, act: OperatorAction, at_most: int) -> Note:
        """Leave the act's reason as a note. Raises `Conflict` where there are `at_most` already."""
        reply = await self._scripts.run("add_note", tag, _json(act), at_most)
        _check_tag(reply, tag)
        if reply.outcome == "FULL":
            raise Conflict(f"Tag {tag!r} has {at_most} notes already; drop one first (drop-note).")
        return records.note_from(reply["id"], reply["note"])

    async def drop_note(self, tag: str, act: OperatorAction) -> None:
        reply = await self._scripts.run("drop_note", tag, _json(act))
        _check_tag(reply, tag)
        if reply.outcome == "NO_NOTE":
            raise NotFound(f"Tag {tag!r} has no {act.target}; GET /api/steer/notes lists them.")

    async def notes(self, tag: str) -> list[Note]:
        """The notes of a tag, newest first; none for a tag that is not there."""
        with redis_errors():
            return records.notes_from(await self._redis.hgetall(keys.of_tag(tag, "notes")))

    # -- runs

    async def stop(self, tag: str, experiment_id: str, what: Stop, act: OperatorAction) -> Reply:
        """Ask the worker of a leased run to stop it. Outcomes: see stop.lua."""
        reply = await self._scripts.run("stop", tag, experiment_id, what, _json(act))
        return _known(reply, experiment_id)

    async def repeat(self, tag: str, experiment_id: str, act: OperatorAction) -> Reply:
        """Queue a decided run's source again. Outcomes: see repeat.lua."""
        reply = await self._scripts.run("repeat", tag, experiment_id, _json(act))
        return _known(reply, experiment_id)

    async def set_priority(
        self, tag: str, experiment_id: str, priority: int, act: OperatorAction
    ) -> Reply:
        """Move a queued run in its queue. Outcomes: see set_priority.lua."""
        reply = await self._scripts.run("set_priority", tag, experiment_id, priority, _json(act))
        return _known(reply, experiment_id)

    # -- GPUs

    async def drain(self, gpu_id: str, act: OperatorAction) -> OperatorHold:
        """Give a GPU no new run; one that is drained stays as it is."""
        reply = await self._scripts.run("drain", gpu_id, _json(act))
        if reply.outcome == "UNKNOWN_GPU":
            raise unknown_gpu(gpu_id)
        return records.drain_from(reply["drained"])

    async def undrain(self, gpu_id: str, act: OperatorAction) -> None:
        reply = await self._scripts.run("undrain", gpu_id, _json(act))
        if reply.outcome == "UNKNOWN_GPU":
            raise unknown_gpu(gpu_id)

    # -- the ledger

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


def _json(act: OperatorAction) -> str:
    return json.dumps(vars(act))


def _check_tag(reply: Reply, tag: str) -> None:
    if reply.outcome == "UNKNOWN_TAG":
        raise unknown_tag(tag)


def _known(reply: Reply, experiment_id: str) -> Reply:
    if reply.outcome == "UNKNOWN_ID":
        raise unknown_experiment(experiment_id)
    return reply
