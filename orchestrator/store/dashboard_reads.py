"""What the overview and an experiment's surroundings need: many small reads in few round trips.

Each costs what it answers, whatever the length of the history.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.domain import FINISHED, Counts, Status, Strategy, Tag
from orchestrator.rules.activity import FinishedRun
from orchestrator.store import keys, records
from orchestrator.store.client import TextRedis
from orchestrator.store.reads import Keep, keep_from
from orchestrator.store.scripts import redis_errors

CHUNK = 500


@dataclass(frozen=True)
class TagState:
    """A tag as it stands: what it has come to, and its runs by status."""

    tag: Tag
    strategy: Strategy
    counts: Counts
    near_misses: int


@dataclass(frozen=True)
class Verdicts:
    """The finished runs among some entries of a journal, with the id of the best at each one's
    decision; `first_id` and `last_id` are the first and last entry read, of whatever kind."""

    runs: list[FinishedRun]
    best_ids: list[str | None]
    first_id: str | None
    last_id: str | None


class DashboardReads:
    def __init__(self, redis: TextRedis) -> None:
        self._redis = redis

    async def tags(self) -> list[TagState]:
        """All tags, newest first: two round trips."""
        with redis_errors():
            names = await self._redis.zrange(keys.of_all("tags"), 0, -1, desc=True)
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                pipeline.hgetall(keys.of_tag(name, "tag"))
                pipeline.hgetall(keys.of_tag(name, "strategy"))
                pipeline.zcard(keys.of_tag(name, "near"))
                for status in Status:
                    pipeline.zcard(keys.of_tag(name, "status:", status.value))
            flat = await pipeline.execute()
        width = 3 + len(Status)
        rows = [flat[i : i + width] for i in range(0, len(flat), width)]
        return [_tag_state(row) for row in rows if row[0]]

    async def keeps_after(self, tag: str, decided_us: int, at_most: int) -> list[Keep]:
        """The newest keeps that were decided after a moment, in that order."""
        with redis_errors():
            pairs = await self._redis.zrange(
                keys.of_tag(tag, "keeps"), "+inf", f"({decided_us}", desc=True, byscore=True,
                withscores=True, offset=0, num=at_most,
            )  # fmt: skip
        return [keep_from(*pair) for pair in reversed(pairs)]

    async def keep_before(self, tag: str, decided_us: int) -> Keep | None:
        """The keep that was the best just before a moment."""
        return await self._nearest_keep(tag, f"({decided_us}", "-inf", desc=True)

    async def keep_after(self, tag: str, decided_us: int) -> Keep | None:
        """The first keep after a moment."""
        return await self._nearest_keep(tag, f"({decided_us}", "+inf", desc=False)

    async def first_keep(self, tag: str) -> Keep | None:
        """The baseline: a tag's first result is always kept."""
        return await self._nearest_keep(tag, "-inf", "+inf", desc=False)

    async def _nearest_keep(self, tag: str, first: str, last: str, *, desc: bool) -> Keep | None:
        with redis_errors():
            pairs = await self._redis.zrange(
                keys.of_tag(tag, "keeps"), first, last, desc=desc, byscore=True, withscores=True,
                offset=0, num=1,
            )  # fmt: skip
        return keep_from(*pairs[0]) if pairs else None

    async def verdicts_after(self, tag: str, entry_id: str, count: int) -> Verdicts:
        """Those of the `count` journal entries after one, oldest first."""
        with redis_errors():
            entries = await self._redis.xrange(
                keys.of_tag(tag, "journal"), f"({entry_id}", "+", count
            )
        return _verdicts(entries)

    async def verdicts_before(self, tag: str, entry_id: str, count: int) -> Verdicts:
        """Those of the `count` entries before one (`+` for the end), newest first."""
        last = entry_id if entry_id == "+" else f"({entry_id}"
        with redis_errors():
            entries = await self._redis.xrevrange(keys.of_tag(tag, "journal"), last, "-", count)
        return _verdicts(entries)

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


def _tag_state(row: Sequence[Any]) -> TagState:
    fields, strategy, near, *sizes = row
    by_status = dict(zip((status.value for status in Status), sizes, strict=True))
    return TagState(
        tag=records.tag_from(fields),
        strategy=records.strategy_from(strategy),
        counts=Counts(**by_status, infra_lost=int(fields.get("infra_lost", 0))),
        near_misses=near,
    )


def _verdicts(entries: Sequence[tuple[str, dict[str, str]]]) -> Verdicts:
    ends = (entries[0][0], entries[-1][0]) if entries else (None, None)
    found = Verdicts([], [], *ends)
    for _, stored in entries:
        if stored["kind"] != "decided":
            continue
        data = json.loads(stored["data"])
        status = Status(data["decision"]["status"])
        if status in FINISHED:
            found.runs.append(
                FinishedRun(
                    experiment_id=stored["id"],
                    status=status,
                    finished_us=int(stored["at"]),
                    reason=data["outcome"].get("reason"),
                )
            )
            found.best_ids.append(data["on"].get("best_id"))
    return found
