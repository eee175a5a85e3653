"""Which losses are expected: a lease may end only when a fault hit its worker or its network path.

Redis being away is no reason: the reaper waits a full lease after its return. Neither is a pause of
the harness; but a stall of the whole machine is one, so stalls are noted too.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_LOOK_SECONDS = 0.1
_STALL_SECONDS = 0.7


@dataclass
class _Period:
    gpus: frozenset[str] | None  # None: all of them
    start: float
    end: float = float("inf")


class ExpectedLosses:
    """Times are those of the wall clock, which Redis on this machine shares."""

    def __init__(self, aftermath_seconds: float) -> None:
        self._aftermath = aftermath_seconds
        self._periods: list[_Period] = []

    @contextmanager
    def expected(self, gpus: Iterable[str] | None) -> Iterator[None]:
        """These GPUs may lose a lease within the block, and for an aftermath."""
        period = _Period(None if gpus is None else frozenset(gpus), time.time())
        self._periods.append(period)
        try:
            yield
        finally:
            period.end = time.time() + self._aftermath

    def explain(self, gpu_id: str, start: float, end: float) -> bool:
        """True if a fault explains a loss on this GPU between two times."""
        return any(
            (period.gpus is None or gpu_id in period.gpus)
            and period.start <= end
            and period.end >= start
            for period in self._periods
        )

    async def watch_stalls(self) -> None:
        """Note when this machine gave us no time, and so perhaps none to the system."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LOOK_SECONDS)
            late = time.monotonic() - before - _LOOK_SECONDS
            if late > _STALL_SECONDS:
                with self.expected(None):
                    self._periods[-1].start = time.time() - late
