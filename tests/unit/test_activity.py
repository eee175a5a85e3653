"""Pace and idleness, and the noise between repeats, on plain values."""

import math

import pytest
from hypothesis import given, strategies as st

from orchestrator.gpus import Gpu
from orchestrator.rules.activity import (
    HOUR_US,
    Training,
    idle_gpu_hours,
    per_gpu_hour,
    thinned,
)
from orchestrator.rules.noise import estimate
from orchestrator.schemas import Noise


def training(hour: float, gpu_id: str = "a") -> Training:
    """One that ended at `hour` and took half of one."""
    end = int(hour * HOUR_US)
    return Training(gpu_id, end - HOUR_US // 2, end)


def gpu(gpu_id: str, registered: float = 0, heartbeat: float = 10) -> Gpu:
    return Gpu(gpu_id, gpu_id, 0, "", 0, int(registered * HOUR_US), int(heartbeat * HOUR_US))


def test_the_pace_counts_finished_runs_for_each_hour_of_training() -> None:
    """A run without a start counts, and takes no time."""
    assert per_gpu_hour([training(1), training(2), training(3), training(4)]) == 2
    assert per_gpu_hour([training(1), Training(None, None, 5)]) == 4
    assert per_gpu_hour([Training(None, None, 5)]) is None
    assert per_gpu_hour([]) is None


def test_idle_is_the_time_in_which_a_gpu_of_the_pool_trains_nothing() -> None:
    """From the moment on, or its registration; to now, or its last word."""
    gpus = [gpu("a"), gpu("late", registered=9), gpu("silent", heartbeat=8.5)]
    now = Training("a", int(9.5 * HOUR_US), 10 * HOUR_US)
    trainings = [training(8.25), training(9, "gone"), now]
    # a: 8 to 10, a quarter of it busy with a run that began before and half an hour with one now
    hours = idle_gpu_hours(gpus, trainings, 8 * HOUR_US)
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
    assert estimate([[1.0, 1.0]]) == Noise(sd=0.0, band=0.0, runs=2, sources=1)
