"""How long recovery takes at production timings: lease 30 s, heartbeat 5 s.

A round gives every worker a long run, kills the workers (or the supervisors) at random phases of a
heartbeat, and watches two clocks: until no process of the run is left, and until the run is queued
again, or renewed by the worker that came back.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import anyio

from bench.chaos import journals, stub
from bench.chaos.agents import TAGS, Agents
from bench.chaos.process_checks import marked
from bench.chaos.promises import Promises
from bench.chaos.system import PRODUCTION, Plan, System, Worker
from bench.chaos.violations import Findings
from gpu_worker import tree
from orchestrator.store import keys

WORKERS = 16
_LOOK_SECONDS = 0.02
_LIMIT_SECONDS = 120.0
# A service manager brings a worker back within moments.
_RESTART_SECONDS = 1.0


@dataclass(frozen=True)
class Sample:
    """One kill: seconds until the tree was dead (None: it was to live) and until recovery."""

    kind: str
    tree_dead: float | None
    recovered: float


@dataclass(frozen=True)
class _Run:
    """What runs on a worker before the kill."""

    experiment_id: str
    name: str
    supervisor: int
    pids: list[int]


_Kill = Callable[["Recovery", Worker, _Run], Awaitable[Sample]]


class Recovery:
    def __init__(self, folder: Path, seed: int) -> None:
        timing = replace(PRODUCTION, kill_after=1)  # cancelled runs between rounds end sooner
        self._system = System(Plan(folder, workers=WORKERS, orchestrators=2, timing=timing))
        self._random = Random(seed)
        findings = Findings()
        results = stub.Results(1)
        self._agents = Agents(self._system, Promises(findings), findings, results, Random(seed))

    async def run(self, rounds: int) -> list[Sample]:
        """Every kind of kill, once on every worker in each round."""
        samples: list[Sample] = []
        try:
            await self._system.start()
            await self._agents.set_up()
            for _ in range(rounds):
                for kill, at_once in _KILLS:
                    samples += await self._round(kill, at_once)
        finally:
            with anyio.CancelScope(shield=True):
                await self._agents.close()
                await self._system.stop()
        return samples

    async def _round(self, kill: _Kill, at_once: int) -> list[Sample]:
        limit = asyncio.Semaphore(at_once)
        workers = self._system.workers
        ids = [await self._agents.submit_text(self._long_run()) for _ in workers]
        runs = [await self._run_on(worker) for worker in workers]
        samples = await asyncio.gather(
            *(self._at_random(kill, limit, *pair) for pair in zip(workers, runs, strict=True))
        )
        for experiment_id in filter(None, ids):
            await self._agents.cancel(experiment_id)
        for worker in workers:
            if worker.exit_code is not None:
                worker.start()
        await self._until(self._system.at_rest)
        return list(samples)

    def _long_run(self) -> str:
        return f"# {self._random.random()}\n# say step 1 (50%) | loss: 2.5\n# sleep 1000\n"

    async def _at_random(
        self, kill: _Kill, limit: asyncio.Semaphore, worker: Worker, run: _Run
    ) -> Sample:
        await asyncio.sleep(self._random.uniform(0, self._system.plan.timing.heartbeat))
        async with limit:
            return await kill(self, worker, run)

    async def _run_on(self, worker: Worker) -> _Run:
        await self._until(lambda: journals.running(worker.folder.journal) is not None)
        start = journals.running(worker.folder.journal)
        assert start is not None

        def pids() -> list[int]:
            return [m.pid for m in marked(self._system.run_marker()) if m.run == start.run]

        await self._until(lambda: len(pids()) == 2)  # the shell and its sleep
        return _Run(start.run.rpartition(".")[0], start.run, start.pid, pids())

    # ------------------------------------------------------------------------ what is watched

    async def death_of(self, run: _Run) -> float:
        """When no process of the run was left."""
        await self._until(lambda: not any(map(_lives, run.pids)))
        dead = time.monotonic()
        left = [m for m in marked(self._system.run_marker()) if m.run == run.name]
        assert not left, f"{run.name} left {left}"
        return dead

    async def requeueing_of(self, run: _Run) -> float:
        """When its first attempt was over: it waits, or another attempt has it."""
        await self._until(lambda: self._is_over(run))
        return time.monotonic()

    async def _is_over(self, run: _Run) -> bool:
        state, epoch = await self._system.direct.hmget(_run_key(run), "state", "epoch")
        return bool(state == "queued" or epoch != "1")

    async def renewal_of(self, run: _Run, before: float) -> float:
        """When the lease was renewed after the stamp `before`, by the same attempt."""

        async def renewed() -> bool:
            return bool(await self.stamp_of(run) != before)

        await self._until(renewed)
        assert not await self._is_over(run), f"{run.name} was lost"
        return time.monotonic()

    async def stamp_of(self, run: _Run) -> Any:
        return await self._system.direct.zscore(keys.of_all("leases"), run.experiment_id)

    @staticmethod
    async def _until(condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + _LIMIT_SECONDS
        while True:
            found = condition()
            if await found if isinstance(found, Awaitable) else found:
                return
            assert time.monotonic() < deadline, f"nothing came of {condition}"
            await asyncio.sleep(_LOOK_SECONDS)


async def _worker_stays_away(recovery: Recovery, worker: Worker, run: _Run) -> Sample:
    worker.kill()
    killed = time.monotonic()
    dead = await recovery.death_of(run)
    requeued = await recovery.requeueing_of(run)
    return Sample("worker killed, not restarted", dead - killed, requeued - killed)


async def _worker_returns(recovery: Recovery, worker: Worker, run: _Run) -> Sample:
    worker.kill()
    killed = time.monotonic()
    stamp = await recovery.stamp_of(run)
    await asyncio.sleep(_RESTART_SECONDS)
    worker.start()
    renewed = await recovery.renewal_of(run, stamp)
    assert all(map(_lives, run.pids)), f"{run.name} did not live on"
    return Sample("worker killed, restarted after 1 s", None, renewed - killed)


async def _supervisor_dies(recovery: Recovery, _: Worker, run: _Run) -> Sample:
    tree.kill(run.supervisor, signal.SIGKILL)
    killed = time.monotonic()
    dead = await recovery.death_of(run)
    requeued = await recovery.requeueing_of(run)
    return Sample("supervisor killed", dead - killed, requeued - killed)


# Workers that all start at once on one small machine would only wait for its processors.
_KILLS: tuple[tuple[_Kill, int], ...] = (
    (_worker_stays_away, WORKERS),
    (_worker_returns, 1),
    (_supervisor_dies, WORKERS),
)


def _run_key(run: _Run) -> str:
    tag = next(tag for tag in TAGS if run.experiment_id.endswith(tag))
    return keys.of_tag(tag, "run:", run.experiment_id)


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
