"""Reads of a tag's journal, which the scripts write, and of the state that it must explain."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from orchestrator.decisions import EarlyStops
from orchestrator.domain import Counts, Note, Status, Strategy, Tag
from orchestrator.errors import unknown_tag
from orchestrator.rules.race.state import State as RaceState, from_json
from orchestrator.rules.replay import Step
from orchestrator.rules.seals import JournalEntry
from orchestrator.store import entries, keys, records
from orchestrator.store.client import TextRedis
from orchestrator.store.reads import Keep, counts_from, keep_from
from orchestrator.store.scripts import redis_errors
from orchestrator.store.shared import SharedConnection

# Entries read at a time: parsing them blocks the event loop for some milliseconds.
CHUNK = 250


@dataclass(frozen=True)
class Books:
    """A tag's totals at one moment, which the journal up to `tag.revision` must explain.

    `categories` is the raw hash of counters; `experiments` counts all there are, `last_created_us`
    is when the newest was created.
    """

    tag: Tag
    strategy: Strategy
    counts: Counts
    recent: tuple[Status, ...]
    near_misses: int
    keeps: int
    experiments: int
    last_created_us: int
    categories: dict[str, int]
    notes: dict[str, Note]
    race: RaceState
    stops: EarlyStops


class JournalStore:
    def __init__(self, redis: TextRedis, shared: SharedConnection) -> None:
        self._redis = redis
        self._shared = shared

    async def entries(self, tag: str, after: str = "-") -> AsyncIterator[JournalEntry]:
        """The journal of a tag, oldest first, from the entry after the id `after` on."""
        key = keys.of_tag(tag, "journal")
        start = after if after == "-" else f"({after}"
        while True:
            with redis_errors():
                # redis-py's own parsing into dictionaries would take four times as long.
                page = await self._shared.ask("XRANGE", key, start, "+", "COUNT", CHUNK)
            for entry_id, flat in page:
                stored = dict(zip(flat[::2], flat[1::2], strict=True))
                yield entries.journal_entry_from(entry_id, stored)
            if len(page) < CHUNK:
                return
            start = f"({page[-1][0]}"

    async def steps(self, tag: str) -> AsyncIterator[tuple[JournalEntry, Step]]:
        """The journal with the steps of a replay, oldest first."""
        async for entry in self.entries(tag):
            yield entry, entries.step_from(entry)

    async def books(self, tag: str) -> Books:
        """All totals of a tag, read in one step."""
        transaction = self._redis.pipeline(transaction=True)
        transaction.hgetall(keys.of_tag(tag, "tag"))
        transaction.hgetall(keys.of_tag(tag, "strategy"))
        transaction.hgetall(keys.of_tag(tag, "cats"))
        transaction.hgetall(keys.of_tag(tag, "notes"))
        transaction.lrange(keys.of_tag(tag, "recent"), 0, -1)
        transaction.get(keys.of_tag(tag, "race"))
        transaction.get(keys.of_tag(tag, "stops"))
        for name in ("near", "keeps", "all"):
            transaction.zcard(keys.of_tag(tag, name))
        for status in Status:
            transaction.zcard(keys.of_tag(tag, "status:", status.value))
        with redis_errors():
            found = await transaction.execute()
        fields, strategy, categories, notes, recent, race, stops, *sizes = found
        if not fields:
            raise unknown_tag(tag)
        return Books(
            tag=records.tag_from(fields),
            strategy=records.strategy_from(strategy),
            counts=counts_from(fields, sizes[3:]),
            recent=tuple(Status(status) for status in recent),
            near_misses=sizes[0],
            keeps=sizes[1],
            experiments=sizes[2],
            last_created_us=int(fields.get("last_created", 0)),
            categories={name: int(count) for name, count in categories.items() if int(count)},
            notes={note.id: note for note in records.notes_from(notes)},
            race=from_json(race),
            stops=records.stops_from(stops),
        )

    async def keeps(self, tag: str, after_us: int = 0, until_us: int | None = None) -> list[Keep]:
        """All keeps decided after a moment and until another, in order of decision."""
        last = "+inf" if until_us is None else until_us
        with redis_errors():
            pairs = await self._redis.zrange(
                keys.of_tag(tag, "keeps"), f"({after_us}", last, byscore=True, withscores=True
            )
        return [keep_from(text, score) for text, score in pairs]

    async def near_misses(self, tag: str) -> dict[str, float]:
        """The distance of every near miss."""
        with redis_errors():
            pairs = await self._redis.zrange(keys.of_tag(tag, "near"), 0, -1, withscores=True)
        return dict(pairs)
