"""Faults of the network between hosts (network.py), one function each: ways are cut, and heal.

What is sent on a cut way is lost without a word, so connections stay half open, and TCP sends again
when the way has healed.
"""

import asyncio
from random import Random

from bench.chaos.network import AGENTS, REDIS
from bench.chaos.targets import Targets


def _both(one: str, other: str) -> list[tuple[str, str]]:
    return [(one, other), (other, one)]


async def worker_is_cut_off(targets: Targets, random: Random) -> None:
    """Both ways, for less or more than a lease."""
    async with targets.worker(random) as worker:
        ways = _both(worker.name, worker.orchestrator.name)
        await _cut(targets, ways, random.uniform(0.3, 2 * targets.lease))


async def worker_is_cut_off_one_way(targets: Targets, random: Random) -> None:
    """It is not heard any more, or hears no answer to what is done for it."""
    async with targets.worker(random) as worker:
        ways = [random.choice(_both(worker.name, worker.orchestrator.name))]
        await _cut(targets, ways, random.uniform(0.3, targets.lease + 1))


async def redis_is_cut_off(targets: Targets, random: Random) -> None:
    """From every orchestrator. None of them may end a lease for that, so no loss is expected."""
    async with targets.system.redis.lock:
        ways = [way for o in targets.system.orchestrators for way in _both(o.name, REDIS)]
        await _cut(targets, ways, random.uniform(0.3, targets.lease + 2))


async def redis_is_cut_off_one_way(targets: Targets, random: Random) -> None:
    """Commands vanish, or are executed and their answers vanish."""
    async with targets.system.redis.lock:
        orchestrator = random.choice(targets.system.orchestrators)
        ways = [random.choice(_both(orchestrator.name, REDIS))]
        await _cut(targets, ways, random.uniform(0.3, targets.lease + 1))


async def orchestrator_is_cut_off(targets: Targets, random: Random) -> None:
    """From workers, agents and Redis at once."""
    async with targets.orchestrator(random) as orchestrator:
        others = [AGENTS, REDIS, *(worker.name for worker in targets.system.workers)]
        ways = [way for other in others for way in _both(orchestrator.name, other)]
        await _cut(targets, ways, random.uniform(0.3, targets.lease + 2))


async def agents_are_cut_off(targets: Targets, random: Random) -> None:
    """One way or both; they send again."""
    ways = _both(AGENTS, random.choice(targets.system.orchestrators).name)
    random.shuffle(ways)
    await _cut(targets, ways[: random.choice((1, 2))], random.uniform(0.3, targets.lease + 1))


async def _cut(targets: Targets, ways: list[tuple[str, str]], seconds: float) -> None:
    network = targets.system.network
    assert network is not None, "only a run with --network has ways to cut"
    with network.cut(*ways):
        await asyncio.sleep(seconds)
