"""Counts, pace and idleness of finished runs, and the noise between repeats, on plain values."""

import math

import pytest
from hypothesis import given, strategies as st

from orchestrator.domain import Gpu, Status
from orchestrator.rules.activity import (
    HOUR_US,
    FinishedRun,
    Tally,
    idle_gpu_hours,
    since,
    tally,
    thinned,
)
from orchestrator.rules.noise import Noise, estimate


def run(
    hour: float, status: Status = Status.DISCARD, gpu_id: str = "a", **more: object
) -> FinishedRun:
    """A run that ended at `hour` and took half of one."""
    end = int(hour * HOUR_US)
    return FinishedRun("e", status, end, end - HOUR_US // 2, gpu_id, **more)  # type: ignore[arg-type]


def gpu(gpu_id: str, registered: float = 0, heartbeat: float = 10) -> Gpu:
    return Gpu(gpu_id, gpu_id, 0, "", 0, int(registered * HOUR_US), int(heartbeat * HOUR_US))


def test_a_moment_belongs_to_what_comes_after_it() -> None:
    runs = [run(1), run(2), run(3)]
    assert since(runs, 2 * HOUR_US) == runs[1:]
    assert since(runs, 2 * HOUR_US + 1) == runs[2:]
    assert since([], 0) == []


def test_a_tally_counts_verdicts_and_hours() -> None:
    """A time-out is a crash; a run lost to the infrastructure is finished and nothing else."""
    counted = tally(
        [run(1, Status.KEEP), run(2), run(3, Status.CRASH), run(4, Status.TIMEOUT),
         run(5, Status.CRASH, reason="infra_lost")]
    )  # fmt: skip
    assert counted == Tally(finished=5, keep=1, discard=1, crash=2, gpu_hours=2.5)
    assert counted.per_gpu_hour == 2
    assert tally([]).per_gpu_hour is None


def test_idle_is_the_time_in_which_a_gpu_of_the_pool_trains_nothing() -> None:
    """From the moment on, or its registration; to now, or its last word."""
    gpus = [gpu("a"), gpu("late", registered=9), gpu("silent", heartbeat=8.5)]
    runs = [run(8.25), run(9, gpu_id="gone")]
    # a: 8 to 10, a quarter of it busy with a run that began before and half an hour with one now
    hours = idle_gpu_hours(gpus, runs, [("a", int(9.5 * HOUR_US))], 8 * HOUR_US, 10 * HOUR_US)
    assert hours == pytest.approx((2 - 0.25 - 0.5) + 1 + 0.5)


@given(st.lists(st.integers(), max_size=200), st.integers(2, 50))
def test_thinning_keeps_both_ends(values: list[int], at_most: int) -> None:
    kept = thinned(values, at_most)
    assert len(kept) == min(len(values), at_most)
    assert (kept[:1], kept[-1:]) == (values[:1], values[-1:])


def test_noise_is_pooled_over_repeats_of_equal_sources() -> None:
    """Singles say nothing; two groups weigh by their degrees of freedom."""
    noise = estimate([[1.0], [0.9, 1.1], [2.0, 2.0, 2.0]])
    assert noise is not None
    assert (noise.runs, noise.sources) == (5, 2)
    assert noise.sd == pytest.approx(math.sqrt(0.02 / 3))
    assert noise.band == pytest.approx(1.96 * math.sqrt(2) * noise.sd)


def test_without_repeats_the_noise_is_unknown() -> None:
    assert estimate([[1.0], [2.0], []]) is None
    assert estimate([[1.0, 1.0]]) == Noise(0.0, 2, 1)
