"""Finds leases whose worker has gone, holds that have lapsed, GPUs that fell silent or have no run.

A lease is dead when the reaper has seen it unrenewed for one full lease by its own monotonic clock.
So no host's clock can end a live run or keep a dead one. After its start, after Redis was away and
after a pause of its own process, the reaper waits one full lease before it ends any. Any number of
reapers may work at once: the script checks the renewal that each of them saw.

The claim says how long its lease is. A run is read for that only when it is silent for longer than
a lease that would be granted now, so a pass over live runs costs one command.
"""

import logging
import time
from dataclasses import dataclass

import anyio

from orchestrator.domain import Run
from orchestrator.errors import (
    AutoresearchError,
    LeaseLost,
    LeaseRenewed,
    Unavailable,
    bucket_away,
)
from orchestrator.ids import AttemptId
from orchestrator.services.core.jobs import Jobs
from orchestrator.services.core.judge import Judge
from orchestrator.services.core.race import Race
from orchestrator.services.core.timing import PoolTiming
from orchestrator.store.connection import Store
from orchestrator.store.jobs import LeaseSeen

logger = logging.getLogger(__name__)

# Decisions queue what the keep rule `race` asks for; this is for GPUs that come in between.
FILL_SECONDS = 10.0
# An idle GPU repeats the champion of a search, not those of searches that ended long ago.
RECENT_SECONDS = 86_400


@dataclass(frozen=True)
class _Watched:
    renewal: str
    since: float


class Reaper:
    def __init__(
        self, store: Store, judge: Judge, jobs: Jobs, race: Race, timing: PoolTiming
    ) -> None:
        self._store = store
        self._judge = judge
        self._jobs = jobs
        self._race = race
        self._timing = timing
        self._watched: dict[str, _Watched] = {}
        self._last_pass = time.monotonic()
        self._last_fill = 0.0

    async def run(self) -> None:
        """Make passes until cancelled."""
        while True:
            try:
                await self.make_pass()
            except Unavailable as error:
                if not bucket_away(error):  # without its files too, Redis showed every lease
                    self._watched.clear()
                logger.warning("Reaper: %s", error)
            except AutoresearchError:
                logger.exception("Reaper: a record is broken; it goes on without it")
            await anyio.sleep(self.pause_seconds())

    def pause_seconds(self) -> float:
        """Between two passes. A pass looks at all leases, so in a large pool, whose leases are
        longer, the pauses are longer by the same factor."""
        base, now = self._timing.base.lease_seconds, self._timing.now.lease_seconds
        return min(1.0, base / 10) * now / base

    async def make_pass(self) -> None:
        """Look at all leases once and end the dead ones."""
        leases = await self._store.jobs.leases()
        now = time.monotonic()  # after the answer, which may have waited for Redis to return
        if now - self._last_pass > self._timing.now.lease_seconds / 2:
            self._watched.clear()
        self._last_pass = now
        for lease, silence in self._silent(leases, now):
            try:
                await self._expire(lease, silence)
            except (LeaseRenewed, LeaseLost):
                pass  # its worker is back, or another reaper was faster
            except Unavailable:
                raise
            except AutoresearchError:
                # One broken record must not keep the other dead leases alive.
                logger.exception("Reaper: %s", lease.experiment_id)
        self._timing.count(await self._store.pool.tidy(self._timing.now.offline_seconds))
        if now - self._last_fill > FILL_SECONDS:
            self._last_fill = now
            await self._fill()

    async def _fill(self) -> None:
        """Give GPUs that are free, or have come lately, the repeats and merges of recent tags."""
        for state in await self._store.reads.tags():
            tag = state.tag
            recent = max(tag.created_us, tag.last_decided_us) / 1e6 > time.time() - RECENT_SECONDS
            if tag.keep_rule != "greedy" and recent:
                await self._race.fill(tag.name)

    def _silent(self, leases: list[LeaseSeen], now: float) -> list[tuple[LeaseSeen, float]]:
        """The leases that may be dead, and for how many seconds they were not renewed."""
        before, self._watched, silent = self._watched, {}, []
        for lease in leases:
            known = before.get(lease.experiment_id)
            if known is None or known.renewal != lease.renewal:
                known = _Watched(lease.renewal, now)
            self._watched[lease.experiment_id] = known
            if now - known.since > self._timing.now.lease_seconds:
                silent.append((lease, now - known.since))
        return silent

    async def _expire(self, lease: LeaseSeen, silence: float) -> None:
        run = (await self._store.reads.entry(lease.experiment_id)).run
        if silence <= self._granted_seconds(run):
            return
        logger.warning(
            "%s: attempt %d on %s has not been renewed for %.0f s",
            lease.experiment_id,
            run.epoch,
            run.gpu_id,
            silence,
        )
        attempt = AttemptId(lease.experiment_id, run.epoch)
        why = f"its worker on {run.gpu_id} fell silent"
        await self._judge.attempt_lost(attempt, why, ending="expired", renewal=lease.renewal)
        await self._jobs.close_log(attempt)

    def _granted_seconds(self, run: Run) -> float:
        """What the claim said, perhaps when the pool was larger."""
        return run.lease_seconds or self._timing.base.lease_seconds
