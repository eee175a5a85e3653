"""Queries: records, pages and counters. Each costs what it answers, however long the history is."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from orchestrator.decisions import Snapshot
from orchestrator.domain import Attempt, Counts, Experiment, Note, Run, State, Status, Strategy, Tag
from orchestrator.errors import unknown_experiment, unknown_tag
from orchestrator.ids import created_us_of, tag_of
from orchestrator.rules.suggest import CategoryCount
from orchestrator.store import keys, records, verbs
from orchestrator.store.client import TextRedis
from orchestrator.store.scripts import Scripts, redis_errors

CHUNK = 500


class Entry(NamedTuple):
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
class TagState:
    """A tag, its strategy, and its runs by status."""

    tag: Tag
    strategy: Strategy
    counts: Counts
    near_misses: int

    @property
    def waits(self) -> bool:
        """True if a GPU could have one of its runs."""
        return self.counts.queued > 0 and self.tag.pause is None


@dataclass(frozen=True)
class TagSummary:
    """What suggest and summary say of a tag. `keeps` are the newest, in order of decision; `gpus`
    counts all, idle and busy ones (a silent one is idle until the reaper's next pass); `abandoned`
    counts hand-runs that were never reported; `failures` are ids of the newest crashes and
    time-outs."""

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

    async def tags(self, limit: int = 0) -> list[TagState]:
        """All tags, newest first; at most `limit`, if that is not 0. Two round trips."""
        with redis_errors():
            names = await self._redis.zrange(keys.of_all("tags"), 0, limit - 1, desc=True)
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                pipeline.hgetall(keys.of_tag(name, "tag"))
                pipeline.hgetall(keys.of_tag(name, "strategy"))
                pipeline.zcard(keys.of_tag(name, "near"))
                for status in Status:
                    pipeline.zcard(keys.of_tag(name, "status:", status.value))
            flat = await pipeline.execute()
        width = 3 + len(Status)
        found = []
        for start in range(0, len(flat), width):
            fields, strategy, near, *sizes = flat[start : start + width]
            if fields:
                tag, mode = records.tag_from(fields), records.strategy_from(strategy)
                found.append(TagState(tag, mode, counts_from(fields, sizes), near))
        return found

    async def entry(self, experiment_id: str) -> Entry:
        """One experiment. Raises `NotFound`."""
        entries = await self.entries(tag_of(experiment_id), [experiment_id])
        if not entries:
            raise unknown_experiment(experiment_id)
        return entries[0]

    async def entries(self, tag: str, ids: Sequence[str]) -> list[Entry]:
        """Experiments of one tag by id; ids that do not exist are left out."""
        found: list[Entry] = []
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            pipeline = self._redis.pipeline(transaction=False)
            for experiment_id in chunk:
                pipeline.hgetall(keys.of_tag(tag, "exp:", experiment_id))
                pipeline.hgetall(keys.of_tag(tag, "run:", experiment_id))
            with redis_errors():
                flat = await pipeline.execute()
            found += [
                Entry(
                    records.experiment_from(experiment_id, tag, flat[2 * i]),
                    records.run_from(experiment_id, flat[2 * i + 1]),
                )
                for i, experiment_id in enumerate(chunk)
                if flat[2 * i]
            ]
        return found

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
        ids, total, more = await self._ids(tag, status, limit, before, newest=True)
        ids.reverse()
        return Page(await self.entries(tag, ids), total, ids[0] if more else None)

    async def page(self, tag: str, status: Status | None, limit: int, after: str | None) -> Page:
        """The oldest `limit` experiments, or those after the cursor `after`, oldest first."""
        ids, total, more = await self._ids(tag, status, limit, after, newest=False)
        return Page(await self.entries(tag, ids), total, ids[-1] if more else None)

    async def _ids(
        self, tag: str, status: Status | None, limit: int, cursor: str | None, *, newest: bool
    ) -> tuple[list[str], int, bool]:
        """At most `limit` ids beyond the cursor, the number of all, and True if there are more."""
        await self.tag(tag)
        key = keys.of_tag(tag, "status:", status.value) if status else keys.of_tag(tag, "all")
        first, last = ("+inf", "-inf") if newest else ("-inf", "+inf")
        if cursor:
            first = f"({created_us_of(cursor)}"
        with redis_errors():
            ids = await self._redis.zrange(
                key, first, last, desc=newest, byscore=True, offset=0, num=limit + 1
            )
            total = await self._redis.zcard(key)
        return ids[:limit], total, len(ids) > limit

    async def created_after(self, tag: str, created_us: int, limit: int) -> list[Entry]:
        """The first `limit` experiments created after that moment, in order of creation."""
        with redis_errors():
            ids = await self._redis.zrange(
                keys.of_tag(tag, "all"), f"({created_us}", "+inf", byscore=True, offset=0, num=limit
            )
        return await self.entries(tag, ids)

    async def next_in_queue(self, tag: str, limit: int) -> list[Entry]:
        """The tag's first jobs, next one first, without those that are meant for one GPU."""
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
        entries = await self.entries(tag, [member for member, _ in pairs])
        return list(zip(entries, (score for _, score in pairs), strict=True)), total

    async def starts(self, tag: str, ids: Sequence[str]) -> list[tuple[int | None, str | None]]:
        """When each run started last, and on which GPU."""
        found: list[Any] = []
        for start in range(0, len(ids), CHUNK):
            pipeline = self._redis.pipeline(transaction=False)
            for experiment_id in ids[start : start + CHUNK]:
                pipeline.hmget(keys.of_tag(tag, "run:", experiment_id), ["started", "gpu_id"])
            with redis_errors():
                found += await pipeline.execute()
        return [(int(started) if started else None, gpu_id) for started, gpu_id in found]

    async def repeats(self, tag: str, sources: Sequence[str]) -> list[list[str]]:
        """The experiments of each `SHA256:SEED` of a tag."""
        pipeline = self._redis.pipeline(transaction=False)
        for source in sources:
            pipeline.hget(keys.of_tag(tag, "sources"), source)
        with redis_errors():
            return [(found or "").split() for found in await pipeline.execute()]

    async def complaint(self) -> str | None:
        """What Redis itself says is wrong with it, or None."""
        with redis_errors():
            persistence = await self._redis.info("persistence")
            memory = await self._redis.info("memory")
        if persistence.get("aof_last_write_status", "ok") != "ok":
            return "its last write to disk failed: look at the disk's space and health."
        limit, used = int(memory.get("maxmemory", 0)), int(memory.get("used_memory", 0))
        if limit and used > 0.9 * limit:
            return f"{used / limit:.0%} of its memory limit is used: raise maxmemory."
        return None

    async def summary(
        self, tag: str, keeps: int, abandoned_after_seconds: float = 0, failures: int = 0
    ) -> TagSummary:
        """A tag with its newest `keeps` and `failures`, read in one step. A hand-run counts as
        abandoned when its budget and this much more have passed."""
        reply = await self._scripts.run(
            verbs.SNAPSHOT, tag, None, keeps, int(abandoned_after_seconds * 1e6), failures
        )
        newest = reply["keeps"] or []  # an empty Lua table encodes as {}
        total, idle, busy = reply["pool"]
        return TagSummary(
            snapshot=records.snapshot_from(reply.fields),
            keeps=[keep_from(*pair) for pair in zip(newest[::2], newest[1::2], strict=True)],
            categories=_categories_from(reply["cats"] or []),
            gpus=(total, idle, busy),
            abandoned=reply["abandoned"],
            notes=records.notes_from(reply["notes"]),
            failures=sorted(reply["failures"] or [])[-failures:] if failures else [],
        )


def counts_from(fields: records.Fields, sizes: Sequence[int]) -> Counts:
    """Counts from a tag's hash and the sizes of its sets by status."""
    by_status = dict(zip((status.value for status in Status), sizes, strict=True))
    return Counts(**by_status, infra_lost=int(fields.get("infra_lost", 0)))


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
