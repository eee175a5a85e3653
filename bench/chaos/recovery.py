"""How long recovery takes at production timings: lease 30 s, heartbeat 5 s.

A round gives every worker a long run, kills the workers (or the supervisors) at random phases of a
heartbeat, and measures two times: until no process of the run is left, and until the run is queued
again, or its lease is renewed by the worker that came back.
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
from bench.chaos.agents import Agents
from bench.chaos.process_checks import marked
from bench.chaos.promises import Promises
from bench.chaos.system import PRODUCTION, Plan, System, Worker
from bench.chaos.violations import Findings
from gpu_worker import tree
from orchestrator.ids import tag_of
from orchestrator.store import keys

WORKERS = 16
_LOOK_SECONDS = 0.02
_LIMIT_SECONDS = 120.0
# A service manager restarts a worker within moments.
_RESTART_SECONDS = 1.0


@dataclass(frozen=True)
class Sample:
    """One kill: seconds until the tree was dead (None: it must live) and until recovery."""

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


class Recovery:
    def __init__(self, folder: Path, seed: int) -> None:
        timing = replace(PRODUCTION, kill_after=1)  # cancelled runs between rounds end sooner
        self._system = System(Plan(folder, workers=WORKERS, orchestrators=2, timing=timing))
        self._random = Random(seed)
        findings, results = Findings(), stub.Results(1)
        self._agents = Agents(self._system, Promises(findings), findings, results, Random(seed))

    async def run(self, rounds: int) -> list[Sample]:
        """Every kind of kill, once on every worker in each round."""
        # Workers that all start at once on one small machine would only wait for its processors.
        kills = ((self._kill_worker, WORKERS), (self._restart_worker, 1))
        samples: list[Sample] = []
        try:
            await self._system.start()
            await self._agents.set_up()
            for _ in range(rounds):
                for kill, at_once in (*kills, (self._kill_supervisor, WORKERS)):
                    samples += await self._round(kill, asyncio.Semaphore(at_once))
        finally:
            with anyio.CancelScope(shield=True):
                await self._agents.close()
                await self._system.stop()
        return samples

    async def _round(
        self, kill: Callable[[Worker, _Run], Awaitable[Sample]], limit: asyncio.Semaphore
    ) -> list[Sample]:
        async def at_random(worker: Worker, run: _Run) -> Sample:
            await asyncio.sleep(self._random.uniform(0, self._system.plan.timing.heartbeat))
            async with limit:
                return await kill(worker, run)

        workers = self._system.workers
        ids = [await self._agents.submit_text(self._long_run()) for _ in workers]
        runs = [await self._run_on(worker) for worker in workers]
        samples = await asyncio.gather(*map(at_random, workers, runs))
        for experiment_id in filter(None, ids):
            await self._agents.cancel(experiment_id)
        for worker in workers:
            if worker.exit_code is not None:
                worker.start()
        await _until(self._system.at_rest)
        return samples

    def _long_run(self) -> str:
        return f"# {self._random.random()}\n# say step 1 (50%) | loss: 2.5\n# sleep 1000\n"

    async def _run_on(self, worker: Worker) -> _Run:
        start = await _until(lambda: journals.running(worker.folder.journal))

        def shell_and_sleep() -> list[int]:
            pids = [m.pid for m in marked(self._system.plan.home) if m.run == start.run]
            return pids if len(pids) == 2 else []

        return _Run(
            start.run.rpartition(".")[0], start.run, start.pid, await _until(shell_and_sleep)
        )

    # ------------------------------------------------------------------------ the kills

    async def _kill_worker(self, worker: Worker, run: _Run) -> Sample:
        worker.kill()
        return await self._lost("worker killed, not restarted", run)

    async def _kill_supervisor(self, _: Worker, run: _Run) -> Sample:
        tree.kill(run.supervisor, signal.SIGKILL)
        return await self._lost("supervisor killed", run)

    async def _lost(self, kind: str, run: _Run) -> Sample:
        """The tree ends, and the run is queued again or has another attempt."""
        killed = time.monotonic()
        await _until(lambda: not any(map(_lives, run.pids)))
        dead = time.monotonic()
        left = [m for m in marked(self._system.plan.home) if m.run == run.name]
        assert not left, f"{run.name} left {left}"
        await _until(lambda: self._is_over(run))
        return Sample(kind, dead - killed, time.monotonic() - killed)

    async def _restart_worker(self, worker: Worker, run: _Run) -> Sample:
        """The same attempt goes on in the same processes, and its lease is renewed."""
        worker.kill()
        killed = time.monotonic()
        before = await self._renewal(run)
        await asyncio.sleep(_RESTART_SECONDS)
        worker.start()

        async def renewed() -> bool:
            return bool(await self._renewal(run) != before)

        await _until(renewed)
        recovered = time.monotonic() - killed
        assert not await self._is_over(run), f"{run.name} was lost"
        assert all(map(_lives, run.pids)), f"{run.name} did not live on"
        return Sample("worker killed, restarted after 1 s", None, recovered)

    async def _is_over(self, run: _Run) -> bool:
        """True once the first attempt has ended."""
        key = keys.of_tag(tag_of(run.experiment_id), "run:", run.experiment_id)
        state, epoch = await self._system.direct.hmget(key, "state", "epoch")
        return bool(state == "queued" or epoch != "1")

    async def _renewal(self, run: _Run) -> Any:
        return await self._system.direct.zscore(keys.of_all("leases"), run.experiment_id)


async def _until(condition: Callable[[], Any]) -> Any:
    """The first true value of the condition, which may be awaitable."""
    deadline = time.monotonic() + _LIMIT_SECONDS
    while True:
        found = condition()
        if found := await found if isinstance(found, Awaitable) else found:
            return found
        assert time.monotonic() < deadline, f"nothing came of {condition}"
        await asyncio.sleep(_LOOK_SECONDS)


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
