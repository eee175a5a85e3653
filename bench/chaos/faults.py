"""Faults of processes and of networks, one function each.

Each leaves the process that it hit running, or the way open, and lasts seconds. What the system
makes of it is for others to judge, except where the process itself must say something (exit codes).
"""

import asyncio
import signal
import subprocess
from pathlib import Path
from random import Random

from bench.chaos import journals
from bench.chaos.proxy import Mode
from bench.chaos.stage import Missed, Stage
from gpu_worker import tree
from gpu_worker.daemon import EXIT_CANNOT_SERVE, EXIT_DRAINED

# How long a process that was told to end may take: its report waits 5 s for an orchestrator.
_END_SECONDS = 30.0
# A worker that finds its GPU's lock taken looks for three seconds before it gives up.
_TWIN_SECONDS = 15.0
_LOOK_SECONDS = 0.02
_LOOKS_FOR_A_RUN = 100

# ---------------------------------------------------------------------------- workers


async def worker_dies_and_returns(stage: Stage, dice: Random) -> None:
    """Restarted at once, it adopts the run if that still goes on."""
    async with stage.a_worker(dice) as worker:
        worker.kill()
        await asyncio.sleep(dice.uniform(0, 0.3))
        worker.start()


async def worker_dies_for_long(stage: Stage, dice: Random) -> None:
    """Its lease ends, its supervisor ends the run, another worker gets it."""
    async with stage.a_worker(dice) as worker:
        worker.kill()
        await asyncio.sleep(stage.lease + dice.uniform(0.5, 2))
        worker.start()


async def worker_stands_still(stage: Stage, dice: Random) -> None:
    """Longer than a lease: what it reports afterwards is stale."""
    async with stage.a_worker(dice) as worker:
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(stage.lease + dice.uniform(0.3, 1.5))
        worker.send(signal.SIGCONT)


async def worker_stutters(stage: Stage, dice: Random) -> None:
    """Shorter than a lease: nothing is lost."""
    async with stage.a_worker(dice) as worker:
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(dice.uniform(0.1, stage.lease / 2))
        worker.send(signal.SIGCONT)


async def worker_is_drained(stage: Stage, dice: Random) -> None:
    """SIGTERM: it hands its run back or ends it, leaves the pool and exits with 0.

    One that an earlier fault has only just started again may still be importing: it has taken
    nothing yet, and the signal simply ends it.
    """
    async with stage.a_worker(dice) as worker:
        good = {EXIT_DRAINED} if worker.catches(signal.SIGTERM) else {EXIT_DRAINED, -signal.SIGTERM}
        code = await worker.end(_END_SECONDS)
        if code not in good:
            stage.findings.add("alive", f"{worker.name} was drained and ended with {code}")
            worker.kill()
        worker.start()


async def worker_gets_a_twin(stage: Stage, dice: Random) -> None:
    """Somebody starts a second worker for the same GPU: it must not serve."""
    async with stage.a_worker(dice) as worker:
        twin = worker.spawn()
        try:
            code = await asyncio.to_thread(twin.wait, _TWIN_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            twin.kill()
        if code != EXIT_CANNOT_SERVE:
            stage.findings.add("gpu-lock", f"a second {worker.name} ended with {code}")


async def supervisor_dies(stage: Stage, dice: Random) -> None:
    """SIGKILL: the guard ends the tree, the worker reports the loss."""
    async with stage.a_worker(dice) as worker:
        tree.kill(await _supervisor_of_a_run(worker.folder.journal), signal.SIGKILL)


async def supervisor_and_guard_die(stage: Stage, dice: Random) -> None:
    """Both at once: the worker sweeps what is left."""
    async with stage.a_worker(dice) as worker:
        supervisor = await _supervisor_of_a_run(worker.folder.journal)
        for pid in [supervisor, *tree.descendants(supervisor)[:1]]:
            tree.kill(pid, signal.SIGKILL)


async def worker_and_supervisor_die(stage: Stage, dice: Random) -> None:
    """The guard is left alone with the tree; the worker comes back to report it."""
    async with stage.a_worker(dice) as worker:
        supervisor = await _supervisor_of_a_run(worker.folder.journal)
        worker.kill()
        tree.kill(supervisor, signal.SIGKILL)
        await asyncio.sleep(dice.uniform(0, 1))
        worker.start()


async def _supervisor_of_a_run(journal: Path) -> int:
    """The pid of the supervisor whose run goes on. Raises Missed."""
    for _ in range(_LOOKS_FOR_A_RUN):
        start = journals.running(journal)
        if start is not None:
            return start.pid
        await asyncio.sleep(_LOOK_SECONDS)
    raise Missed


# ---------------------------------------------------------------------------- orchestrators, Redis


async def orchestrator_dies(stage: Stage, dice: Random) -> None:
    """SIGKILL, and a new one on its port."""
    async with stage.an_orchestrator(dice) as orchestrator:
        orchestrator.kill()
        await asyncio.sleep(dice.uniform(0, 1))
        orchestrator.start()
        await orchestrator.ready()


async def orchestrator_stands_still(stage: Stage, dice: Random) -> None:
    """A pause, after which its reaper must not judge at once."""
    async with stage.an_orchestrator(dice) as orchestrator:
        orchestrator.send(signal.SIGSTOP)
        await asyncio.sleep(dice.uniform(0.3, stage.lease + 1))
        orchestrator.send(signal.SIGCONT)


async def redis_dies(stage: Stage, dice: Random) -> None:
    """SIGKILL, and a new one on its append-only file."""
    await _redis_is_away(stage, dice.uniform(0, 0.8))


async def redis_dies_for_long(stage: Stage, dice: Random) -> None:
    """Every lease looks old when it is back, and none may be judged by that."""
    await _redis_is_away(stage, stage.lease + dice.uniform(0, 1))


async def _redis_is_away(stage: Stage, seconds: float) -> None:
    redis = stage.system.redis
    async with redis.lock:
        redis.kill()
        await asyncio.sleep(seconds)
        redis.start()
        await redis.ready()


async def redis_stands_still(stage: Stage, dice: Random) -> None:
    """Longer than a time-out: redis-py sends its commands again, and Redis runs both."""
    redis = stage.system.redis
    async with redis.lock:
        redis.send(signal.SIGSTOP)
        await asyncio.sleep(dice.choice((0.3, 1.5, 2.5, 4.0)))
        redis.send(signal.SIGCONT)


# ---------------------------------------------------------------------------- networks


async def link_is_cut(stage: Stage, dice: Random) -> None:
    """Every connection is reset, a few times in a row."""
    async with stage.a_link(dice) as link:
        for _ in range(dice.randint(1, 5)):
            link.cut()
            await asyncio.sleep(dice.uniform(0.02, 0.3))


async def link_refuses(stage: Stage, dice: Random) -> None:
    await _during(stage, dice, "refuse", dice.uniform(0.3, stage.lease + 1))


async def link_pauses(stage: Stage, dice: Random) -> None:
    """Bytes are held for a while, then they all arrive."""
    await _during(stage, dice, "hold", dice.uniform(0.3, stage.lease + 1))


async def answers_vanish(stage: Stage, dice: Random) -> None:
    """What is asked is done, but nobody learns of it."""
    await _during(stage, dice, "drop answers", dice.uniform(0.3, 2.5))


async def requests_vanish(stage: Stage, dice: Random) -> None:
    await _during(stage, dice, "drop requests", dice.uniform(0.3, 2.5))


async def _during(stage: Stage, dice: Random, mode: Mode, seconds: float) -> None:
    async with stage.a_link(dice) as link:
        link.set(mode)
        try:
            await asyncio.sleep(seconds)
        finally:
            link.set("pass")
