"""Draws faults from a mix by a seed, runs several at once, and spreads them over the whole run."""

from collections import Counter
from collections.abc import Callable
from random import Random

import anyio

from bench.chaos.mix import Fault, Mix, named
from bench.chaos.stage import Missed, Stage

_LANES = 6
_LOOK_SECONDS = 0.05


class Injector:
    """`count` faults in all; fault number n comes when the share n / count of the run is over."""

    def __init__(self, stage: Stage, mix: Mix, count: int, seed: int) -> None:
        self.count = count
        self.begun = 0
        self.done: Counter[str] = Counter()
        self._stage = stage
        self._mix = mix
        self._dice = Random(seed)
        self._numbers = iter(range(count))

    @property
    def injected(self) -> int:
        return sum(self.done.values())

    async def run(self, share_of_run: Callable[[], float]) -> None:
        """Return when the last fault is over."""
        async with anyio.create_task_group() as lanes:
            for _ in range(_LANES):
                lanes.start_soon(self._lane, share_of_run)

    async def _lane(self, share_of_run: Callable[[], float]) -> None:
        for number in self._numbers:
            while number > share_of_run() * self.count:
                await anyio.sleep(_LOOK_SECONDS)
            await self._inject()

    async def _inject(self) -> None:
        """One fault; where it finds nothing to hit, another one."""
        while True:
            fault, dice = self._draw()
            self.begun += 1
            try:
                await fault(self._stage, dice)
            except Missed:
                self.begun -= 1
                continue
            self.done[named(fault)] += 1
            return

    def _draw(self) -> tuple[Fault, Random]:
        fault = self._dice.choices(list(self._mix), list(self._mix.values()))[0]
        return fault, Random(self._dice.random())
