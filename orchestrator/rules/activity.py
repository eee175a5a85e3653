"""What a tag's finished runs come to since a moment: counts, pace, and how busy GPUs were. Pure."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.domain import INFRA_LOST, Gpu, Status

HOUR_US = 3_600_000_000

T = TypeVar("T")


@dataclass(frozen=True)
class FinishedRun:
    """One finished run, as far as its time and its verdict go."""

    experiment_id: str
    status: Status
    finished_us: int
    started_us: int | None = None
    gpu_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Tally:
    """Finished runs by verdict; `crash` holds time-outs too, and no run lost to infrastructure."""

    finished: int = 0
    keep: int = 0
    discard: int = 0
    crash: int = 0
    gpu_hours: float = 0.0

    @property
    def per_gpu_hour(self) -> float | None:
        return self.finished / self.gpu_hours if self.gpu_hours > 0 else None


def since(runs: Sequence[FinishedRun], moment_us: int) -> Sequence[FinishedRun]:
    """Those decided at `moment_us` or later, of `runs` in order of decision."""
    return runs[bisect_left(runs, moment_us, key=lambda run: run.finished_us) :]


def tally(runs: Iterable[FinishedRun]) -> Tally:
    counts = {"keep": 0, "discard": 0, "crash": 0}
    finished, busy_us = 0, 0
    for run in runs:
        finished += 1
        busy_us += run.finished_us - run.started_us if run.started_us else 0
        if run.reason != INFRA_LOST:
            counts["crash" if run.status is Status.TIMEOUT else run.status.value] += 1
    return Tally(finished, gpu_hours=busy_us / HOUR_US, **counts)


def idle_gpu_hours(
    gpus: Iterable[Gpu],
    runs: Iterable[FinishedRun],
    running: Iterable[tuple[str, int]],
    moment_us: int,
    now_us: int,
) -> float:
    """Hours in which a GPU of the pool was there and trained nothing, since `moment_us`.

    `running` holds each GPU that is busy now with the start of its run. A GPU that has fallen
    silent counts up to its last heartbeat.
    """
    alive = {gpu.id: (max(moment_us, gpu.registered_us), gpu.heartbeat_us) for gpu in gpus}
    there = sum(max(0, end - begin) for begin, end in alive.values())
    busy = 0
    spans = [(run.gpu_id, run.started_us, run.finished_us) for run in runs]
    for gpu_id, started_us, ended_us in [*spans, *((g, start, now_us) for g, start in running)]:
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
