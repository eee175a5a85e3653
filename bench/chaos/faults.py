"""Faults of processes and of networks, one function each.

Each lasts seconds and leaves the process that it hit running, or the network open. The audit judges
what the system does meanwhile; only exit codes are judged here.
"""

import asyncio
import signal
import subprocess
from pathlib import Path
from random import Random

from bench.chaos import journals
from bench.chaos.targets import Missed, Targets
from bench.harness.proxy import Mode
from gpu_worker import tree
from gpu_worker.daemon import EXIT_CANNOT_SERVE, EXIT_DRAINED

# How long a process may take to end: its report waits 5 s for an orchestrator.
_END_SECONDS = 30.0
# A worker that finds its GPU's lock taken looks for three seconds before it gives up.
_TWIN_SECONDS = 15.0
_LOOK_SECONDS = 0.02
_LOOKS_FOR_A_RUN = 100

# ---------------------------------------------------------------------------- workers


async def worker_dies_and_returns(targets: Targets, random: Random) -> None:
    """Restarted at once, it adopts the run if that still goes on."""
    async with targets.worker(random) as worker:
        worker.kill()
        await asyncio.sleep(random.uniform(0, 0.3))
        worker.start()


async def worker_dies_for_long(targets: Targets, random: Random) -> None:
    """Its lease ends, its supervisor ends the run, another worker gets it."""
    async with targets.worker(random) as worker:
        worker.kill()
        await asyncio.sleep(targets.lease + random.uniform(0.5, 2))
        worker.start()


async def worker_stands_still(targets: Targets, random: Random) -> None:
    """Longer than a lease: what it reports afterwards is stale."""
    async with targets.worker(random) as worker:
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(targets.lease + random.uniform(0.3, 1.5))
        worker.send(signal.SIGCONT)


async def worker_stutters(targets: Targets, random: Random) -> None:
    """Shorter than a lease: nothing is lost."""
    async with targets.worker(random) as worker:
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(random.uniform(0.1, targets.lease / 2))
        worker.send(signal.SIGCONT)


async def worker_is_drained(targets: Targets, random: Random) -> None:
    """SIGTERM: it hands its run back or ends it, leaves the pool and exits with 0.

    A worker that an earlier fault has just restarted may still be importing modules; it has no run
    yet, and the signal ends it.
    """
    async with targets.worker(random) as worker:
        good = {EXIT_DRAINED} if worker.catches(signal.SIGTERM) else {EXIT_DRAINED, -signal.SIGTERM}
        code = await worker.end(_END_SECONDS)
        if code not in good:
            targets.findings.add("alive", f"{worker.name} was drained and ended with {code}")
            worker.kill()
        worker.start()


async def worker_gets_a_twin(targets: Targets, random: Random) -> None:
    """A second worker for the same GPU must not serve."""
    async with targets.worker(random) as worker:
        if not worker.has_logged("registered with"):
            raise Missed  # an earlier fault has just restarted it: either may take the lock first
        twin = worker.spawn()
        try:
            code = await asyncio.to_thread(twin.wait, _TWIN_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            twin.kill()
        if code != EXIT_CANNOT_SERVE:
            targets.findings.add("gpu-lock", f"a second {worker.name} ended with {code}")


async def supervisor_dies(targets: Targets, random: Random) -> None:
    """SIGKILL: the guard ends the tree, the worker reports the loss."""
    async with targets.worker(random) as worker:
        tree.kill(await _supervisor_of_a_run(worker.folder.journal), signal.SIGKILL)


async def supervisor_and_guard_die(targets: Targets, random: Random) -> None:
    """Both at once: the worker sweeps what is left."""
    async with targets.worker(random) as worker:
        supervisor = await _supervisor_of_a_run(worker.folder.journal)
        for pid in [supervisor, *tree.descendants(supervisor)[:1]]:
            tree.kill(pid, signal.SIGKILL)


async def worker_and_supervisor_die(targets: Targets, random: Random) -> None:
    """Only the guard is left with the tree; the worker comes back and reports the loss."""
    async with targets.worker(random) as worker:
        supervisor = await _supervisor_of_a_run(worker.folder.journal)
        worker.kill()
        tree.kill(supervisor, signal.SIGKILL)
        await asyncio.sleep(random.uniform(0, 1))
        worker.start()


async def _supervisor_of_a_run(journal: Path) -> int:
    """The pid of the supervisor of the present run. Raises Missed."""
    for _ in range(_LOOKS_FOR_A_RUN):
        start = journals.running(journal)
        if start is not None:
            return start.pid
        await asyncio.sleep(_LOOK_SECONDS)
    raise Missed


# ---------------------------------------------------------------------------- orchestrators, Redis


async def orchestrator_dies(targets: Targets, random: Random) -> None:
    """SIGKILL, and a new one on its port."""
    async with targets.orchestrator(random) as orchestrator:
        orchestrator.kill()
        await asyncio.sleep(random.uniform(0, 1))
        orchestrator.start()
        await orchestrator.ready()


async def orchestrator_stands_still(targets: Targets, random: Random) -> None:
    """A pause, after which its reaper must not judge at once."""
    async with targets.orchestrator(random) as orchestrator:
        orchestrator.send(signal.SIGSTOP)
        await asyncio.sleep(random.uniform(0.3, targets.lease + 1))
        orchestrator.send(signal.SIGCONT)


async def redis_dies(targets: Targets, random: Random) -> None:
    """SIGKILL, and a new one on its append-only file."""
    await _redis_is_away(targets, random.uniform(0, 0.8))


async def redis_dies_for_long(targets: Targets, random: Random) -> None:
    """Every lease looks old when it is back, and none may be ended for that."""
    await _redis_is_away(targets, targets.lease + random.uniform(0, 1))


async def _redis_is_away(targets: Targets, seconds: float) -> None:
    redis = targets.system.redis
    async with redis.lock:
        redis.kill()
        await asyncio.sleep(seconds)
        redis.start()
        await redis.ready()


async def redis_stands_still(targets: Targets, random: Random) -> None:
    """Longer than a time-out: redis-py sends its commands again, and Redis runs both."""
    redis = targets.system.redis
    async with redis.lock:
        redis.send(signal.SIGSTOP)
        await asyncio.sleep(random.choice((0.3, 1.5, 2.5, 4.0)))
        redis.send(signal.SIGCONT)


# ---------------------------------------------------------------------------- networks


async def connections_are_reset(targets: Targets, random: Random) -> None:
    """Every connection is reset, a few times in a row."""
    async with targets.network(random) as network:
        for _ in range(random.randint(1, 5)):
            network.cut()
            await asyncio.sleep(random.uniform(0.02, 0.3))


async def connections_are_refused(targets: Targets, random: Random) -> None:
    await _during(targets, random, "refuse", random.uniform(0.3, targets.lease + 1))


async def connections_pause(targets: Targets, random: Random) -> None:
    """Bytes are held for a while, then they all arrive."""
    await _during(targets, random, "hold", random.uniform(0.3, targets.lease + 1))


async def answers_vanish(targets: Targets, random: Random) -> None:
    """Requests are executed, and their answers are lost."""
    await _during(targets, random, "drop answers", random.uniform(0.3, 2.5))


async def requests_vanish(targets: Targets, random: Random) -> None:
    await _during(targets, random, "drop requests", random.uniform(0.3, 2.5))


async def _during(targets: Targets, random: Random, mode: Mode, seconds: float) -> None:
    async with targets.network(random) as network:
        network.set(mode)
        try:
            await asyncio.sleep(seconds)
        finally:
            network.set("pass")
