"""How fast experiments are finished, and how long GPUs were idle. Pure."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from orchestrator.gpus import Gpu

HOUR_US = 3_600_000_000

T = TypeVar("T")


class Training(NamedTuple):
    """When a GPU trained a run; a run by hand may name no GPU."""

    gpu_id: str | None
    started_us: int | None
    ended_us: int


def per_gpu_hour(trainings: Iterable[Training]) -> float | None:
    """Finished runs for each hour that they kept a GPU busy."""
    lengths = [end - start if start else 0 for _, start, end in trainings]
    return len(lengths) * HOUR_US / sum(lengths) if sum(lengths) > 0 else None


def idle_gpu_hours(gpus: Iterable[Gpu], trainings: Iterable[Training], moment_us: int) -> float:
    """Hours in which a GPU of the pool was there and trained nothing, since `moment_us`.

    A GPU counts from its registration to its last heartbeat.
    """
    alive = {gpu.id: (max(moment_us, gpu.registered_us), gpu.heartbeat_us) for gpu in gpus}
    there = sum(max(0, end - begin) for begin, end in alive.values())
    busy = 0
    for gpu_id, started_us, ended_us in trainings:
        if gpu_id in alive and started_us is not None:
            begin, end = alive[gpu_id]
            busy += max(0, min(ended_us, end) - max(started_us, begin))
    return max(0, there - busy) / HOUR_US


def thinned(values: Sequence[T], at_most: int) -> list[T]:
    """At most `at_most` of `values`, evenly spread, the first and the last among them."""
    if len(values) <= at_most:
        return list(values)
    step = (len(values) - 1) / (at_most - 1)
    return [values[round(index * step)] for index in range(at_most)]
