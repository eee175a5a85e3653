"""What a fault may hit. It takes the lock of one process, and that process may lose its lease."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from bench.chaos.agents import Agents
from bench.chaos.expected_losses import ExpectedLosses
from bench.chaos.process import Process
from bench.chaos.system import Orchestrator, System, Worker
from bench.chaos.violations import Findings
from bench.harness.proxy import Proxy

AnyProcess = TypeVar("AnyProcess", bound=Process)


class Missed(Exception):
    """There was nothing to hit just now."""


@dataclass(frozen=True)
class Targets:
    system: System
    agents: Agents
    losses: ExpectedLosses
    findings: Findings

    @asynccontextmanager
    async def worker(self, random: Random) -> AsyncIterator[Worker]:
        worker = _choose(self.system.workers, random)
        async with worker.lock:
            with self.losses.expected([worker.gpu_id]):
                yield worker

    @asynccontextmanager
    async def orchestrator(self, random: Random) -> AsyncIterator[Orchestrator]:
        orchestrator = _choose(self.system.orchestrators, random)
        served = [w.gpu_id for w in self.system.workers if w.orchestrator is orchestrator]
        async with orchestrator.lock:
            with self.losses.expected(served):
                yield orchestrator

    @asynccontextmanager
    async def network(self, random: Random) -> AsyncIterator[Proxy]:
        kind = random.choice(("worker", "worker", "redis", "agents"))
        if kind == "worker":
            async with self.worker(random) as worker:
                yield self.system.proxies[worker.name, worker.orchestrator.name]
        else:
            async with self.orchestrator(random) as orchestrator:
                way = (
                    (orchestrator.name, "redis")
                    if kind == "redis"
                    else ("agents", orchestrator.name)
                )
                yield self.system.proxies[way]

    @property
    def lease(self) -> float:
        return self.system.plan.timing.lease


def _choose(processes: list[AnyProcess], random: Random) -> AnyProcess:
    free = [process for process in processes if not process.lock.locked()]
    return random.choice(free or processes)
