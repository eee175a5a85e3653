"""Draws faults from a mix by a seed, runs several at once, and spreads them over the whole run."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from random import Random

import anyio

from bench.chaos import faults, partitions, replays
from bench.chaos.targets import Missed, Targets

Fault = Callable[[Targets, Random], Awaitable[None]]
Mix = Mapping[Fault, float]

# The share of each fault.
FULL: dict[Fault, float] = {
    faults.worker_dies_and_returns: 8,
    faults.worker_dies_for_long: 4,
    faults.worker_stands_still: 6,
    faults.worker_stutters: 4,
    faults.worker_is_drained: 3,
    faults.worker_gets_a_twin: 1,
    faults.supervisor_dies: 6,
    faults.supervisor_and_guard_die: 4,
    faults.worker_and_supervisor_die: 4,
    faults.orchestrator_dies: 6,
    faults.orchestrator_stands_still: 4,
    faults.redis_dies: 4,
    faults.redis_dies_for_long: 1,
    faults.redis_stands_still: 5,
    faults.connections_are_reset: 8,
    faults.connections_are_refused: 4,
    faults.connections_pause: 4,
    faults.answers_vanish: 6,
    faults.requests_vanish: 4,
    replays.reports_come_again: 8,
    replays.stale_epoch_reports: 8,
    replays.traffic_is_replayed: 6,
    replays.submission_comes_twice: 5,
    replays.run_is_cancelled: 5,
    replays.hand_run: 6,
    replays.stampede: 4,
}
# Between hosts apart (network.py): no proxies, and TLS hides what could be sent again.
NETWORK: dict[Fault, float] = {
    partitions.worker_is_cut_off: 8,
    partitions.worker_is_cut_off_one_way: 8,
    partitions.redis_is_cut_off: 4,
    partitions.redis_is_cut_off_one_way: 6,
    partitions.orchestrator_is_cut_off: 4,
    partitions.agents_are_cut_off: 4,
    faults.worker_dies_and_returns: 4,
    faults.worker_dies_for_long: 2,
    faults.worker_stands_still: 3,
    faults.worker_is_drained: 2,
    faults.supervisor_dies: 2,
    faults.orchestrator_dies: 4,
    faults.orchestrator_stands_still: 2,
    faults.redis_dies: 3,
    faults.redis_dies_for_long: 1,
    faults.redis_stands_still: 2,
    replays.stale_epoch_reports: 3,
    replays.submission_comes_twice: 3,
    replays.run_is_cancelled: 3,
    replays.hand_run: 4,
    replays.stampede: 2,
}
_AT_ONCE = 6
_LOOK_SECONDS = 0.05


class Injector:
    """`count` faults in all; fault number n comes when the share n / count of the run is over."""

    def __init__(self, targets: Targets, mix: Mix, count: int, seed: int) -> None:
        self.count = count
        self.begun = 0
        self.done: Counter[str] = Counter()
        self._targets = targets
        self._mix = mix
        self._random = Random(seed)
        self._numbers = iter(range(count))

    @property
    def injected(self) -> int:
        return sum(self.done.values())

    async def run(self, share_of_run: Callable[[], float]) -> None:
        """Return when the last fault is over."""
        async with anyio.create_task_group() as tasks:
            for _ in range(_AT_ONCE):
                tasks.start_soon(self._one_by_one, share_of_run)

    async def _one_by_one(self, share_of_run: Callable[[], float]) -> None:
        for number in self._numbers:
            while number > share_of_run() * self.count:
                await anyio.sleep(_LOOK_SECONDS)
            await self._inject()

    async def _inject(self) -> None:
        """One fault; where it finds nothing to hit, another one."""
        while True:
            [fault] = self._random.choices(list(self._mix), list(self._mix.values()))
            self.begun += 1
            try:
                await fault(self._targets, Random(self._random.random()))
            except Missed:
                self.begun -= 1
                continue
            self.done[fault.__name__.replace("_", " ")] += 1
            return
