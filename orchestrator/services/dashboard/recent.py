"""The newest verdicts of each tag, read once a process and then followed.

What happened since a moment is a question of the last hours. Asking Redis for it anew at each look
would cost a night's journal each time; this way a look costs what has been decided since the last.
Older verdicts than `RUNS` are forgotten: `Window.whole` says whether some are missing.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from orchestrator.domain import Tag
from orchestrator.rules.activity import FinishedRun
from orchestrator.store.dashboard_reads import DashboardReads, Verdicts
from orchestrator.store.reads import Keep

RUNS = 5000
KEEPS = 1000
CHUNK = 1000


@dataclass
class Window:
    """The newest finished runs and keeps of one tag, in order of decision.

    `baseline` is the tag's first keep, `whole` whether no finished run is missing.
    """

    runs: deque[FinishedRun] = field(default_factory=lambda: deque(maxlen=RUNS))
    keeps: deque[Keep] = field(default_factory=lambda: deque(maxlen=KEEPS))
    baseline: Keep | None = None
    whole: bool = True
    revision: int = -1
    last_entry: str | None = None


class Recent:
    def __init__(self, reads: DashboardReads) -> None:
        self._dashboard = reads
        self._windows: dict[tuple[str, int], Window] = {}
        self._reading = asyncio.Lock()

    async def windows(self, tags: Iterable[Tag]) -> list[Window]:
        """The window of each tag, up to the tag's revision at least."""
        async with self._reading:
            current: dict[tuple[str, int], Window] = {}
            for tag in tags:
                # A tag of the same name that was made again is another one.
                key = tag.name, tag.created_us
                window = self._windows.get(key) or Window()
                if window.revision > tag.revision:  # an older state was restored
                    window = Window()
                if window.revision < tag.revision:
                    await self._follow(tag, window)
                current[key] = window
            self._windows = current
            return list(current.values())

    async def _follow(self, tag: Tag, window: Window) -> None:
        if window.last_entry is None:
            await self._fill(tag.name, window)
        else:
            await self._go_on(tag.name, window)
        last_us = window.keeps[-1].decided_us if window.keeps else 0
        window.keeps.extend(await self._dashboard.keeps_after(tag.name, last_us, KEEPS))
        if window.baseline is None:
            window.baseline = await self._dashboard.first_keep(tag.name)
        window.revision = tag.revision

    async def _fill(self, tag: str, window: Window) -> None:
        """Read backwards from the end of the journal, at most `RUNS` entries."""
        place, newest_first, end = "+", [], None
        for _ in range(RUNS // CHUNK):
            page = await self._dashboard.verdicts_before(tag, place, CHUNK)
            if page.last_id is None:
                break
            end = end or page.first_id
            newest_first += await self._with_starts(tag, page)
            place = page.last_id
        else:
            window.whole = False
        window.runs.extend(reversed(newest_first))
        window.last_entry = end

    async def _go_on(self, tag: str, window: Window) -> None:
        while window.last_entry is not None:
            page = await self._dashboard.verdicts_after(tag, window.last_entry, CHUNK)
            if page.last_id is None:
                return
            if len(window.runs) + len(page.runs) > RUNS:
                window.whole = False
            window.runs.extend(await self._with_starts(tag, page))
            window.last_entry = page.last_id

    async def _with_starts(self, tag: str, page: Verdicts) -> list[FinishedRun]:
        starts = await self._dashboard.starts(tag, [run.experiment_id for run in page.runs])
        return [
            replace(run, started_us=started, gpu_id=gpu_id)
            for run, (started, gpu_id) in zip(page.runs, starts, strict=True)
        ]
