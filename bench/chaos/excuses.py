"""Which losses the faults explain: a lease may die only when a fault hit its worker or its way.

Redis being away explains none: the reaper waits a full lease after its return. Neither does a
harness that pauses, but a machine that stalls as a whole does, and so stalls are written down too.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_LOOK_SECONDS = 0.1
_STALL_SECONDS = 0.7


@dataclass
class _Excuse:
    gpus: frozenset[str] | None  # None: all of them
    start: float
    end: float = float("inf")


class Excuses:
    """Times are those of the wall clock, which Redis on this machine shares."""

    def __init__(self, aftermath_seconds: float) -> None:
        self._aftermath = aftermath_seconds
        self._excuses: list[_Excuse] = []

    @contextmanager
    def excusing(self, gpus: Iterable[str] | None) -> Iterator[None]:
        """What these GPUs lose meanwhile, and for an aftermath, is explained."""
        excuse = _Excuse(None if gpus is None else frozenset(gpus), time.time())
        self._excuses.append(excuse)
        try:
            yield
        finally:
            excuse.end = time.time() + self._aftermath

    def explain(self, gpu_id: str, start: float, end: float) -> bool:
        """Whether a fault explains a loss on this GPU between two times."""
        return any(
            (excuse.gpus is None or gpu_id in excuse.gpus)
            and excuse.start <= end
            and excuse.end >= start
            for excuse in self._excuses
        )

    async def watch_stalls(self) -> None:
        """Write down when this machine had no time for us, and so maybe none for the system."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LOOK_SECONDS)
            late = time.monotonic() - before - _LOOK_SECONDS
            if late > _STALL_SECONDS:
                with self.excusing(None):
                    self._excuses[-1].start = time.time() - late
