"""The decided runs of each tag, read from its journal once and then followed, in memory.

- Nothing is lost with the process: when it starts it reads the journals from their beginning, one
  to three seconds for 100 000 runs, and from then on only what is new.
- A run takes about 30 bytes, so all tags are kept.
"""

import asyncio
from bisect import bisect_left, bisect_right
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter

from orchestrator.domain import Status, Tag
from orchestrator.errors import Unavailable
from orchestrator.ids import id_of
from orchestrator.rules.activity import Training
from orchestrator.rules.series import Series
from orchestrator.store.connection import Store
from orchestrator.store.reads import Keep

# When a run started is not in the journal but in its own record, so it is read of the newest only.
TRAININGS = 5000
_decided_us = attrgetter("decided_us")


@dataclass
class History:
    """A tag's decided runs, its keeps, and the newest trainings, all in the order of decision.

    `revision` is that of the tag when the history was read.
    """

    tag: Tag
    revision: int = -1
    journal_id: str = "-"
    series: Series = field(default_factory=Series)
    keeps: list[Keep] = field(default_factory=list)
    trainings: deque[Training] = field(default_factory=lambda: deque(maxlen=TRAININGS))
    # Ids and moments of trainings whose start was not read yet.
    ended: deque[tuple[str, int]] = field(default_factory=lambda: deque(maxlen=TRAININGS))
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def id_of(self, row: int) -> str:
        return id_of(self.series.created_us[row], self.tag.name)

    def keep_before(self, moment_us: int) -> Keep | None:
        """The best just before a moment."""
        index = bisect_left(self.keeps, moment_us, key=_decided_us)
        return self.keeps[index - 1] if index else None

    def keep_after(self, moment_us: int) -> Keep | None:
        index = bisect_right(self.keeps, moment_us, key=_decided_us)
        return self.keeps[index] if index < len(self.keeps) else None


class Histories:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, History] = {}

    async def warm_up(self) -> None:
        """Read all histories before a page asks for them. What fails is left to the page."""
        with suppress(Unavailable):
            for state in await self._store.reads.tags():
                await self.of(state.tag)

    async def of(self, tag: Tag) -> History:
        """The tag's history with all that had been decided when `tag` was read."""
        history = self._kept.get(tag.name)
        if history is None or history.tag.created_us != tag.created_us:
            history = self._kept[tag.name] = History(tag)
        async with history.reading:
            if history.revision == tag.revision:
                return history
            # Another caller may have read on since `tag` was read.
            tag = await self._store.reads.tag(tag.name)
            if history.revision <= tag.revision:
                await self._read_on(history)
                history.revision = tag.revision
                return history
        # A backup was restored, which holds less than what is in memory.
        self._kept.pop(tag.name, None)
        return await self.of(tag)

    async def _read_on(self, history: History) -> None:
        name, series = history.tag.name, history.series
        async for entry in self._store.journal.entries(name, history.journal_id):
            series.append(entry)
            history.journal_id = entry.id
            # Repeats and candidates keep a GPU busy too. A later verdict is no training.
            if entry.kind == "decided" and entry.data["decision"]["status"] != Status.CANCELLED:
                history.ended.append((entry.experiment_id, entry.at_us))
        last_us = history.keeps[-1].decided_us if history.keeps else 0
        history.keeps += await self._store.journal.keeps(name, after_us=last_us)
        starts = await self._store.reads.starts(name, [run for run, _ in history.ended])
        for (_, ended_us), (started_us, gpu_id) in zip(history.ended, starts, strict=True):
            history.trainings.append(Training(gpu_id, started_us, ended_us))
        history.ended.clear()
