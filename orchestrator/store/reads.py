"""Queries: pages and counters, each as large as its answer and no larger."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from orchestrator.domain import Attempt, Experiment, Note, Run, Snapshot, State, Status, Tag
from orchestrator.errors import unknown_experiment, unknown_tag
from orchestrator.ids import created_us_of, tag_of
from orchestrator.rules.suggest import CategoryCount
from orchestrator.store import keys, records, verbs
from orchestrator.store.client import TextRedis
from orchestrator.store.scripts import Scripts, redis_errors

CHUNK = 500


@dataclass(frozen=True)
class Entry:
    """An experiment with its run."""

    experiment: Experiment
    run: Run


@dataclass(frozen=True)
class Detail:
    """An entry with its leases, its place in the queue, and when its lease was last renewed."""

    entry: Entry
    attempts: list[Attempt]
    position: int | None
    renewed_us: int | None


@dataclass(frozen=True)
class Page:
    """Entries, oldest first, the number of all matches, and where the page before begins."""

    entries: list[Entry]
    total: int
    next_cursor: str | None


@dataclass(frozen=True)
class Keep:
    """A kept run as the progression shows it."""

    experiment_id: str
    val_bpb: float
    description: str
    category: str
    decided_us: int


@dataclass(frozen=True)
class Overview:
    """What suggest and summary tell of a tag. `keeps` are the newest, in order of decision;
    `gpus` counts all, idle and busy ones, where one that has just fallen silent counts as idle
    until the reaper's next pass; `abandoned` counts hand-runs that were never reported."""

    snapshot: Snapshot
    keeps: list[Keep]
    categories: dict[str, CategoryCount]
    gpus: tuple[int, int, int]
    abandoned: int
    notes: list[Note]
    failures: list[str]


class ReadStore:
    def __init__(self, redis: TextRedis, scripts: Scripts) -> None:
        self._redis = redis
        self._scripts = scripts

    async def tag(self, tag: str) -> Tag:
        with redis_errors():
            stored = await self._redis.hgetall(keys.of_tag(tag, "tag"))
        if not stored:
            raise unknown_tag(tag)
        return records.tag_from(stored)

    async def tags(self, limit: int = 0) -> list[Tag]:
        """All tags, newest first; at most `limit`, if that is not 0."""
        with redis_errors():
            names = await self._redis.zrange(keys.of_all("tags"), 0, limit - 1, desc=True)
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                pipeline.hgetall(keys.of_tag(name, "tag"))
            return [records.tag_from(stored) for stored in await pipeline.execute()]

    async def totals(self, tags: Sequence[str]) -> list[tuple[int, int]]:
        """Experiments (cancelled ones apart) and keeps of each tag."""
        pipeline = self._redis.pipeline(transaction=False)
        for tag in tags:
            pipeline.zcard(keys.of_tag(tag, "all"))
            pipeline.zcard(keys.of_tag(tag, "status:", Status.CANCELLED.value))
            pipeline.zcard(keys.of_tag(tag, "status:", Status.KEEP.value))
        with redis_errors():
            flat = await pipeline.execute()
        return [(flat[i] - flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3)]

    async def entry(self, experiment_id: str) -> Entry:
        """One experiment. Raises `NotFound`."""
        entries = await self.entries(tag_of(experiment_id), [experiment_id])
        if not entries:
            raise unknown_experiment(experiment_id)
        return entries[0]

    async def entries(self, tag: str, ids: Sequence[str]) -> list[Entry]:
        """Experiments of one tag by id; ids that do not exist are left out."""
        pipeline = self._redis.pipeline(transaction=False)
        for experiment_id in ids:
            pipeline.hgetall(keys.of_tag(tag, "exp:", experiment_id))
            pipeline.hgetall(keys.of_tag(tag, "run:", experiment_id))
        with redis_errors():
            flat = await pipeline.execute()
        return [
            Entry(
                records.experiment_from(experiment_id, tag, flat[2 * i]),
                records.run_from(experiment_id, flat[2 * i + 1]),
            )
            for i, experiment_id in enumerate(ids)
            if flat[2 * i]
        ]

    async def detail(self, experiment_id: str) -> Detail:
        entry = await self.entry(experiment_id)
        tag, run = entry.experiment.tag, entry.run
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.lrange(keys.of_tag(tag, "attempts:", experiment_id), 0, -1)
        pipeline.zscore(keys.of_all("leases"), experiment_id)
        if run.target_gpu:
            pipeline.zrank(keys.of_all("direct:", run.target_gpu), experiment_id)
        else:
            pipeline.zrank(keys.of_tag(tag, "queue"), experiment_id)
        with redis_errors():
            attempts, renewed, rank = await pipeline.execute()
        queued = run.state is State.QUEUED and rank is not None
        return Detail(
            entry=entry,
            attempts=[records.attempt_from(text) for text in attempts],
            position=rank + 1 if queued else None,
            renewed_us=None if renewed is None else int(renewed),
        )

    async def history(
        self, tag: str, status: Status | None, limit: int, before: str | None
    ) -> Page:
        """The newest `limit` experiments, or those before the cursor `before`, oldest first."""
        await self.tag(tag)
        key = keys.of_tag(tag, "status:", status.value) if status else keys.of_tag(tag, "all")
        highest = f"({created_us_of(before)}" if before else "+inf"
        with redis_errors():
            newest_first = await self._redis.zrange(
                key, highest, "-inf", desc=True, byscore=True, offset=0, num=limit + 1
            )
            total = await self._redis.zcard(key)
        ids = newest_first[:limit][::-1]
        entries = [e async for e in self._in_chunks(tag, ids)]
        more = len(newest_first) > limit
        return Page(entries, total, ids[0] if more and ids else None)

    async def page(self, tag: str, status: Status | None, limit: int, after: str | None) -> Page:
        """The oldest `limit` experiments after the cursor `after`, oldest first."""
        await self.tag(tag)
        key = keys.of_tag(tag, "status:", status.value) if status else keys.of_tag(tag, "all")
        lowest = f"({created_us_of(after)}" if after else "-inf"
        with redis_errors():
            ids = await self._redis.zrange(
                key, lowest, "+inf", byscore=True, offset=0, num=limit + 1
            )
            total = await self._redis.zcard(key)
        entries = [e async for e in self._in_chunks(tag, ids[:limit])]
        return Page(entries, total, ids[limit - 1] if len(ids) > limit else None)

    async def created_after(self, tag: str, created_us: int, limit: int) -> list[Entry]:
        """The first `limit` experiments created after that moment, in order of creation."""
        with redis_errors():
            ids = await self._redis.zrange(
                keys.of_tag(tag, "all"), f"({created_us}", "+inf", byscore=True, offset=0, num=limit
            )
        return await self.entries(tag, ids)

    async def next_in_queue(self, tag: str, limit: int) -> list[Entry]:
        """The tag's first jobs, next one first; those that are meant for one GPU stand apart."""
        with redis_errors():
            ids = await self._redis.zrange(keys.of_tag(tag, "queue"), 0, limit - 1)
        return await self.entries(tag, ids)

    async def number_of_all(self, tag: str) -> int:
        with redis_errors():
            return int(await self._redis.zcard(keys.of_tag(tag, "all")))

    async def everything(self, tag: str) -> AsyncIterator[Entry]:
        """All experiments of a tag in order of creation: for exports, whose answer is as long."""
        await self.tag(tag)
        with redis_errors():
            ids = await self._redis.zrange(keys.of_tag(tag, "all"), 0, -1)
        async for entry in self._in_chunks(tag, ids):
            yield entry

    async def _in_chunks(self, tag: str, ids: Sequence[str]) -> AsyncIterator[Entry]:
        for start in range(0, len(ids), CHUNK):
            for entry in await self.entries(tag, ids[start : start + CHUNK]):
                yield entry

    async def near_misses(self, tag: str, limit: int) -> tuple[list[tuple[Entry, float]], int]:
        """The nearest misses with their distances, and how many there are in all."""
        await self.tag(tag)
        key = keys.of_tag(tag, "near")
        with redis_errors():
            pairs = await self._redis.zrange(key, 0, limit - 1, withscores=True)
            total = await self._redis.zcard(key)
        entries = [e async for e in self._in_chunks(tag, [member for member, _ in pairs])]
        return list(zip(entries, (score for _, score in pairs), strict=True)), total

    async def overview(
        self, tag: str, keeps: int, abandoned_after_seconds: float = 0, failures: int = 0
    ) -> Overview:
        """A tag with its newest `keeps` and `failures`, read in one step. A hand-run counts as
        abandoned when its budget and this much more have passed."""
        reply = await self._scripts.run(
            verbs.SNAPSHOT, tag, None, keeps, int(abandoned_after_seconds * 1e6), failures
        )
        newest = reply["keeps"] or []  # an empty Lua table encodes as {}
        total, idle, busy = reply["pool"]
        return Overview(
            snapshot=records.snapshot_from(reply.fields),
            keeps=[keep_from(*pair) for pair in zip(newest[::2], newest[1::2], strict=True)],
            categories=_categories_from(reply["cats"] or []),
            gpus=(total, idle, busy),
            abandoned=reply["abandoned"],
            notes=records.notes_from(reply["notes"]),
            failures=sorted(reply["failures"] or [])[-failures:] if failures else [],
        )


def _categories_from(flat: Sequence[str]) -> dict[str, CategoryCount]:
    """Counters of each category that has experiments."""
    stored = dict(zip(flat[::2], map(int, flat[1::2]), strict=True))
    return {
        field[2:]: CategoryCount(
            total=total,
            kept=stored.get(f"kept:{field[2:]}", 0),
            near=stored.get(f"near:{field[2:]}", 0),
        )
        for field, total in stored.items()
        if field.startswith("n:") and total
    }


def keep_from(text: str, decided_us: float | str) -> Keep:
    value = json.loads(text)
    return Keep(
        experiment_id=value["id"],
        val_bpb=value["val_bpb"],
        description=value["description"],
        category=value["category"],
        decided_us=int(decided_us),
    )
