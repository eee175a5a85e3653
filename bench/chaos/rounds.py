"""One run: start, submit and inject at the same time, come to rest, audit.

A `Trial` says how much of each. A `Harness` may do several rounds on one system, each with its
audit; the hunt for seeded bugs does so until one is caught.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random

import anyio
import anyio.abc

from bench.chaos import journals, race
from bench.chaos.agents import TAGS, Agents
from bench.chaos.audit import Records, audit, audit_summary
from bench.chaos.expected_losses import ExpectedLosses
from bench.chaos.injector import FULL, Injector, Mix
from bench.chaos.observer import Observer
from bench.chaos.process_checks import ProcessChecks
from bench.chaos.promises import Promises
from bench.chaos.stub import Results
from bench.chaos.system import Plan, System
from bench.chaos.targets import Targets
from bench.chaos.violations import Findings
from orchestrator.domain import KeepRule
from orchestrator.folder import Folder
from orchestrator.seals import Seals
from orchestrator.services.core.audit import Audit
from orchestrator.services.core.reaper import FILL_SECONDS
from orchestrator.settings import HomePaths
from orchestrator.store.connection import Store

# How many experiments wait or run at a time, and how many agents submit at once.
_DEPTH = 24
_AGENTS = 4
# One submission in so many is waited for, by an agent of its own.
_WATCHED_EVERY = 7
# A fault explains losses for some time after its end: a restarted worker needs seconds to serve.
_AFTERMATH_SECONDS = 8.0
_LOOK_SECONDS = 0.1
_JOURNAL_SECONDS = 30.0
# After so long without an event the reapers of all orchestrators have found nothing to repeat.
_FILL_SECONDS = FILL_SECONDS + 3.0


@dataclass(frozen=True)
class Trial:
    """With `steep` most results are better than all before; `rest_seconds` is how long the system
    may take to come to rest after the last fault. The first tag keeps by `keep_rule`."""

    jobs: int
    faults: int
    seed: int
    mix: Mix = field(default_factory=lambda: FULL)
    steep: bool = False
    rest_seconds: float = 120.0
    keep_rule: KeepRule = "greedy"


class Harness:
    """One system under test with its agents, faults and checks; made by `running`."""

    def __init__(self, plan: Plan, trial: Trial) -> None:
        self.trial = trial
        self.findings = Findings()
        self.promises = Promises(self.findings)
        self.system = System(plan)
        self.racing = TAGS[:1] if trial.keep_rule != "greedy" else ()
        self.losses = ExpectedLosses(_AFTERMATH_SECONDS + plan.timing.lease)
        self.agents = Agents(
            self.system,
            self.promises,
            self.findings,
            Results(trial.jobs, trial.steep),
            Random(trial.seed),
            self.racing,
            trial.keep_rule,
        )
        self.observer = Observer(
            self.system, self.promises, self.findings, self.racing, trial.keep_rule
        )
        self.processes = ProcessChecks(self.system, self.findings)
        self.targets = Targets(self.system, self.agents, self.losses, self.findings)
        self.injector = self._injector(trial)
        self.started = time.monotonic()
        self._faults_before = 0
        self._submitted = 0
        self.races = ""

    @classmethod
    @asynccontextmanager
    async def running(cls, plan: Plan, trial: Trial) -> AsyncIterator["Harness"]:
        """A started system with its watchers; all of it ends with the block."""
        harness = cls(plan, trial)
        try:
            await harness.system.start()
            async with anyio.create_task_group() as watchers:
                for watcher in (
                    harness.observer.follow,
                    harness.observer.watch_progress,
                    harness.processes.watch,
                    harness.losses.watch_stalls,
                ):
                    watchers.start_soon(watcher)
                await harness.agents.set_up()
                yield harness
                watchers.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await harness.agents.close()
                await harness.system.stop()

    def _injector(self, trial: Trial) -> Injector:
        return Injector(self.targets, trial.mix, trial.faults, trial.seed)

    def again(self) -> None:
        """Prepare another round of the same size, with another seed."""
        self.trial = replace(self.trial, seed=self.trial.seed + 1)
        self._faults_before += self.injector.begun
        self.injector = self._injector(self.trial)
        self._submitted = 0

    @property
    def faults(self) -> int:
        """How many have begun, in all rounds."""
        return self._faults_before + self.injector.begun

    # ------------------------------------------------------------------------ the round

    async def round(self) -> None:
        """All jobs and all faults of the trial, then rest and audit."""
        before = len(self.promises.decided)

        def share_decided() -> float:
            return (len(self.promises.decided) - before) / self.trial.jobs

        async with anyio.create_task_group() as watch:
            watch.start_soon(self._give_up_when_stalled, watch.cancel_scope)
            async with anyio.create_task_group() as tasks:
                for _ in range(_AGENTS):
                    tasks.start_soon(self._submit, tasks)
                tasks.start_soon(self.injector.run, share_decided)
            watch.cancel_scope.cancel()
        await self._come_to_rest()
        await self.audit()

    async def _give_up_when_stalled(self, scope: anyio.CancelScope) -> None:
        await self.observer.stalled.wait()
        scope.cancel()

    async def _submit(self, tasks: anyio.abc.TaskGroup) -> None:
        while self._submitted < self.trial.jobs:
            if self.promises.open < _DEPTH and self._submitted < self._due():
                self._submitted += 1
                experiment_id = await self.agents.submit()
                if experiment_id and self._submitted % _WATCHED_EVERY == 0:
                    tasks.start_soon(self.agents.watch, experiment_id)
            else:
                await asyncio.sleep(_LOOK_SECONDS / 5)

    def _due(self) -> float:
        """The jobs that fit the share of injected faults, and a few more."""
        share = (self.injector.injected + 1) / max(1, self.injector.count)
        return self.trial.jobs * share + 2 * _DEPTH

    async def _come_to_rest(self) -> None:
        """Return when nothing is left to do, or when the time for that is over."""
        deadline = time.monotonic() + self.trial.rest_seconds
        while time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
            if self.racing and time.monotonic() < self.observer.last_event + _FILL_SECONDS:
                continue
            if self.promises.acknowledged <= self.promises.decided and await self.system.at_rest():
                break
        await asyncio.sleep(self.system.plan.timing.heartbeat)  # supervisors of the last runs

    # ------------------------------------------------------------------------ the audit

    async def audit(self) -> None:
        """Every invariant, on a system that should be at rest."""
        await self.observer.catch_up()
        records = await Records.read(self.system.direct)
        seen = [decision.experiment_id for decision in self.observer.decisions]
        gpus = [worker.gpu_id for worker in self.system.workers]
        audit(records, self.promises, self.losses, seen, gpus, self.findings)
        race.check(records, len(gpus), self.findings)
        self.races = race.summary(records, Folder(HomePaths(self.system.plan.home)))
        for tag in records.model.tags.values():
            summary = await self.agents.call("/api/report/summary", {"tag": tag.name})
            audit_summary(tag, records.model.runs_of(tag), summary.body, self.findings)
        for worker in self.system.workers:
            entries = journals.read(worker.folder.journal)
            journals.check(entries, self.findings)
        self.processes.check_rest()
        await self._audit_journals()

    async def _audit_journals(self) -> None:
        """What `autoresearch audit` says, without the proxies."""
        store = Store(self.system.redis.direct, _JOURNAL_SECONDS)
        auditor = Audit(store, Seals(Folder(HomePaths(self.system.plan.home))))
        try:
            for tag in TAGS:
                report = await auditor.check(tag)
                for difference in report.differences:
                    self.findings.add("journal", f"{tag}: {difference}")
        finally:
            with anyio.CancelScope(shield=True):  # a hunt may end in the middle of an audit
                await store.close()
