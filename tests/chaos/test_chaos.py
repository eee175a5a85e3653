"""A short run of the chaos harness with a fixed seed, and proof that it finds bugs."""

import asyncio
from pathlib import Path

import pytest

from bench.chaos.hunt import Catch, hunt
from bench.chaos.rounds import Harness, Trial
from bench.chaos.system import Plan

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("_clean_environment")]


def test_a_slice_of_all_faults_breaks_no_invariant(tmp_path: Path) -> None:
    """Faults of every kind over stub jobs: nothing lost, nothing decided twice, no process left."""

    async def run() -> Harness:
        async with Harness.running(Plan(tmp_path), Trial(jobs=120, faults=40, seed=7)) as harness:
            await harness.round()
        return harness

    harness = asyncio.run(run())
    assert harness.findings.found == []
    assert len(harness.promises.decided) >= 120
    assert harness.injector.injected == 40


def test_the_repeats_of_a_race_are_queued_once_under_faults(tmp_path: Path) -> None:
    """Two tags share the GPUs, and one of them races: three orchestrators decide and queue."""

    async def run() -> Harness:
        trial = Trial(jobs=100, faults=30, seed=7, keep_rule="race")
        async with Harness.running(Plan(tmp_path), trial) as harness:
            await harness.round()
        return harness

    harness = asyncio.run(run())
    assert harness.findings.found == []
    assert len(harness.promises.decided) > len(harness.promises.acknowledged)  # by the repeats


@pytest.mark.parametrize(
    ("bug", "invariants"),
    [
        ("no-epoch-check", {"fencing"}),
        ("finish-decides-again", {"decided-twice", "verdict-changed"}),
        ("two-step-claim", {"two-leases"}),
        ("parent-only-kill", {"orphan"}),
    ],
)
def test_a_seeded_bug_is_caught(bug: str, invariants: set[str], tmp_path: Path) -> None:
    """The harness would be worth nothing if it found nothing."""
    catch: Catch = asyncio.run(hunt(bug, tmp_path, seed=7))
    assert catch.invariant in invariants, catch
