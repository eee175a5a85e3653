"""The hunt for seeded bugs: each is put into a fresh system, and faults come until it is caught.

Only faults that provoke the bug are injected, so that a hunt takes a minute and not an hour. The
checks are those of every run, and any of them may catch the bug.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from bench.chaos import faults, partitions, replays
from bench.chaos.injector import FULL, NETWORK, Fault, Mix
from bench.chaos.rounds import Harness, Trial
from bench.chaos.sabotage import BUGS, check
from bench.chaos.system import Plan, apart

_LIMIT_SECONDS = 300.0
_LOOK_SECONDS = 0.1
_JOBS, _FAULTS, _REST_SECONDS = 24, 5, 25.0


@dataclass(frozen=True)
class Bait:
    """What provokes a bug: faults, and with `steep` results that are mostly improvements."""

    mix: Mix
    steep: bool = False


def _bait(*some: Fault, steep: bool = False) -> Bait:
    return Bait({fault: (FULL | NETWORK)[fault] for fault in some}, steep)


BAITS = {
    "no-epoch-check": _bait(replays.stale_epoch_reports, faults.worker_stands_still),
    "no-nonce": _bait(faults.redis_stands_still, replays.stampede, replays.hand_run),
    "short-lease": _bait(faults.worker_stutters),
    "parent-only-kill": _bait(faults.supervisor_dies, replays.run_is_cancelled),
    "no-compare": _bait(replays.stampede, steep=True),
    "two-step-claim": _bait(replays.submission_comes_twice),
    "client-clocks": _bait(faults.connections_are_reset),
    "finish-decides-again": _bait(replays.reports_come_again, replays.hand_run),
    "hasty-reaper": _bait(faults.redis_dies_for_long),
    "no-reaper": _bait(faults.worker_stands_still, faults.worker_dies_for_long),
    "no-release": _bait(faults.worker_stutters),
    "keep-on-tie": _bait(replays.stampede),
    "no-gpu-lock": _bait(faults.worker_gets_a_twin),
    "no-wait-for-the-end": _bait(faults.worker_stands_still, faults.connections_are_refused),
    "volatile-redis": _bait(faults.redis_dies),
}

# Those that a partition between hosts brings out.
NETWORK_BAITS = {
    "finish-decides-again": _bait(partitions.worker_is_cut_off_one_way),
    "no-nonce": _bait(partitions.redis_is_cut_off_one_way),
    "no-epoch-check": _bait(partitions.worker_is_cut_off),
}


@dataclass(frozen=True)
class Catch:
    """How a hunt ended; `invariant` is None when nothing was caught."""

    bug: str
    invariant: str | None
    evidence: str
    also: list[str]
    faults: int
    decided: int
    seconds: float


async def hunt(bug: str, folder: Path, seed: int, *, network: bool = False) -> Catch:
    """Faults upon a system with this bug, until a check finds something."""
    check(bug)
    bait = (NETWORK_BAITS if network else BAITS)[bug]
    plan = apart(folder, seed) if network else Plan(folder)
    plan = replace(plan, sabotage=bug)
    trial = Trial(_JOBS, _FAULTS, seed, bait.mix, bait.steep, _REST_SECONDS)
    started = time.monotonic()
    async with Harness.running(plan, trial) as harness:
        with anyio.move_on_after(_LIMIT_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_rounds, harness)
                while not harness.findings.found:
                    await anyio.sleep(_LOOK_SECONDS)
                tasks.cancel_scope.cancel()
        return _catch(bug, harness, time.monotonic() - started)


async def _rounds(harness: Harness) -> None:
    while True:
        await harness.round()
        harness.again()


def _catch(bug: str, harness: Harness, seconds: float) -> Catch:
    first = harness.findings.first
    found = {violation.invariant for violation in harness.findings.found}
    return Catch(
        bug=bug,
        invariant=first.invariant if first else None,
        evidence=first.what if first else "",
        also=sorted(found - {first.invariant}) if first else [],
        faults=harness.faults,
        decided=len(harness.promises.decided),
        seconds=seconds,
    )


def markdown(catches: Iterable[Catch]) -> str:
    """The table of docs/chaos.md."""
    rows = ["| seeded bug | what is missing | caught by | faults | jobs decided | seconds |"]
    rows.append("|---|---|---|---|---|---|")
    for catch in catches:
        by = f"`{catch.invariant}`" if catch.invariant else "**not caught**"
        if catch.also:
            by += f" (with {', '.join(f'`{name}`' for name in catch.also)})"
        rows.append(
            f"| {catch.bug} | {BUGS[catch.bug].without} | {by} | {catch.faults} "
            f"| {catch.decided} | {catch.seconds:.0f} |"
        )
    return "\n".join(rows)
