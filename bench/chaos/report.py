"""Prints a line of progress during the run, and the tables at its end."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from rich.console import Console
from rich.table import Table

from bench.chaos.hunt import Catch
from bench.chaos.recovery import Sample
from bench.chaos.rounds import Harness
from bench.chaos.violations import INVARIANTS
from bench.harness.figures import percentile

_console = Console()
_SHOWN = 20


@asynccontextmanager
async def follow(harness: Harness) -> AsyncIterator[None]:
    """Print the progress now and then, while the block runs."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_print_progress, harness)
        yield
        tasks.cancel_scope.cancel()


async def _print_progress(harness: Harness) -> None:
    seconds = 1.0 if _console.is_terminal else 10.0
    while True:
        await asyncio.sleep(seconds)
        _console.print(_line(harness), soft_wrap=True, end="\r" if _console.is_terminal else "\n")


def _line(harness: Harness) -> str:
    promises, injector = harness.promises, harness.injector
    return (
        f"{time.monotonic() - harness.started:6.0f} s  {len(promises.decided):6} decided,"
        f" {promises.open:3} open  {injector.injected:5} of {injector.count} faults "
        f" {harness.observer.events:7} events  {len(harness.findings.found)} violations"
    )


def print_audit(harness: Harness) -> None:
    """The faults, the decisions, and the violations of each invariant."""
    decisions = Counter(decision.status for decision in harness.observer.decisions)
    done = Table("fault", "injected", title="Faults", title_justify="left")
    for name, count in sorted(harness.injector.done.items()):
        done.add_row(name, str(count))
    _console.print(done)
    _console.print(f"decisions: {dict(decisions)}")
    if harness.races:
        _console.print(harness.races, markup=False, soft_wrap=True)
    checks = Table("invariant", "what it says", "violations", title="Audit", title_justify="left")
    for name, count in harness.findings.by_invariant.items():
        checks.add_row(name, INVARIANTS[name], str(count))
    _console.print(checks)
    for violation in harness.findings.found[:_SHOWN]:
        _console.print(f"{violation.invariant}: {violation.what}", markup=False, soft_wrap=True)
    _console.print(_line(harness), soft_wrap=True)


def print_network(harness: Harness) -> None:
    """What the network did, once it has ended."""
    if (network := harness.system.network) is not None:
        counts = ", ".join(f"{count} {what}" for what, count in network.packets.items())
        _console.print(f"packets: {counts}; an hour ahead: {network.ahead}", soft_wrap=True)


def print_recovery(samples: list[Sample]) -> None:
    """Seconds by kind of kill; with 100 samples or fewer p99 is the maximum."""
    seconds = Table("kill", "n", "clock", "p50", "p99", "max", title="Recovery, seconds")
    for kind in dict.fromkeys(sample.kind for sample in samples):
        some = [sample for sample in samples if sample.kind == kind]
        dead = [sample.tree_dead for sample in some if sample.tree_dead is not None]
        clocks = {"until the tree is dead": dead, "until recovery": [s.recovered for s in some]}
        for clock, values in clocks.items():
            if values:
                figures = [f"{percentile(values, q):.2f}" for q in (50, 99, 100)]
                seconds.add_row(kind, str(len(values)), clock, *figures)
        if dead:
            first = sum(s.tree_dead < s.recovered for s in some if s.tree_dead is not None)
            seconds.add_row(kind, str(len(some)), f"tree dead first: {first}", "", "", "")
    _console.print(seconds)


def print_catch(catch: Catch) -> None:
    """One line for one hunt."""
    found = f"{catch.invariant}: {catch.evidence}" if catch.invariant else "not caught"
    _console.print(
        f"{catch.bug}: {found} ({catch.faults} faults, {catch.seconds:.0f} s)",
        markup=False,
        soft_wrap=True,
    )
