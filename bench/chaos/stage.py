"""What a fault may touch, and how it gets hold of it.

A fault takes the lock of the one process that it works on; what that process loses meanwhile is
written down as the fault's doing.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from bench.chaos.agents import Agents
from bench.chaos.excuses import Excuses
from bench.chaos.process import Process
from bench.chaos.proxy import Proxy
from bench.chaos.system import Orchestrator, System, Worker
from bench.chaos.violations import Findings

AnyProcess = TypeVar("AnyProcess", bound=Process)


class Missed(Exception):
    """There was nothing to hit just now."""


@dataclass(frozen=True)
class Stage:
    """What a fault may touch."""

    system: System
    agents: Agents
    excuses: Excuses
    findings: Findings

    @asynccontextmanager
    async def a_worker(self, dice: Random) -> AsyncIterator[Worker]:
        worker = _choose(self.system.workers, dice)
        async with worker.lock:
            with self.excuses.excusing([worker.gpu_id]):
                yield worker

    @asynccontextmanager
    async def an_orchestrator(self, dice: Random) -> AsyncIterator[Orchestrator]:
        orchestrator = _choose(self.system.orchestrators, dice)
        served = [w.gpu_id for w in self.system.workers if w.orchestrator is orchestrator]
        async with orchestrator.lock:
            with self.excuses.excusing(served):
                yield orchestrator

    @asynccontextmanager
    async def a_link(self, dice: Random) -> AsyncIterator[Proxy]:
        kind = dice.choice(("worker", "worker", "redis", "agents"))
        if kind == "worker":
            async with self.a_worker(dice) as worker:
                yield worker.proxy
        else:
            async with self.an_orchestrator(dice) as above:
                yield above.to_redis if kind == "redis" else above.from_agents

    @property
    def lease(self) -> float:
        return self.system.plan.timing.lease


def _choose(processes: list[AnyProcess], dice: Random) -> AnyProcess:
    free = [process for process in processes if not process.lock.locked()]
    return dice.choice(free or processes)
