"""Faults of the protocol: requests come again, late, out of order, or from the wrong sender.

Also normal use that must go well under faults: cancelling, and training by hand.
"""

import asyncio
from random import Random

from bench.chaos.agents import TAGS
from bench.chaos.recorder import Request
from bench.chaos.targets import Missed, Targets

_RECENT_SECONDS = 30.0
_FORGED_BPB = 0.4
_FAR_AHEAD = 5
_HAND_RUNS_AT_ONCE = 8
_LOOKS_FOR_A_GPU = 40
_LOOK_SECONDS = 0.05


async def reports_come_again(targets: Targets, random: Random) -> None:
    """The report of a finished run comes again, twice at once, and with another result."""
    said = targets.system.said.since(_RECENT_SECONDS, "/api/job/finish")
    if not said:
        raise Missed
    body = random.choice(said).body
    again = [body, body]
    if body["metrics"] and body["experiment_id"] in targets.agents.promises.decided:
        again.append(body | {"metrics": {"val_bpb": _FORGED_BPB}})
    await asyncio.gather(*(targets.agents.finish_again(each) for each in again))


async def stale_epoch_reports(targets: Targets, random: Random) -> None:
    """An attempt without the lease reports a leased run, with a better result than any other."""
    leased = await targets.system.direct.zrange("ar:leases", 0, -1)
    if not leased:
        raise Missed
    experiment_id = random.choice(leased)
    tag = next(tag for tag in TAGS if experiment_id.endswith(tag))
    epoch = int(await targets.system.direct.hget(f"ar:{{{tag}}}:run:{experiment_id}", "epoch"))
    stale = epoch - 1 if epoch > 1 else epoch + _FAR_AHEAD
    answer = await targets.agents.finish_again(
        {
            "experiment_id": experiment_id,
            "gpu_id": random.choice(targets.system.workers).gpu_id,
            "epoch": stale,
            "outcome": "completed",
            "metrics": {"val_bpb": _FORGED_BPB},
        }
    )
    if answer is not None and answer.status == 200:
        targets.findings.add("fencing", f"a report of epoch {stale} of {experiment_id} was taken")


async def traffic_is_replayed(targets: Targets, random: Random) -> None:
    """Five recent requests of workers come again, in another order, at any orchestrator."""
    said = targets.system.said.since(_RECENT_SECONDS)
    if not said:
        raise Missed
    for request in random.choices(said, k=5):
        gpu_id = request.body.get("gpu_id", "")
        # A claim that found nothing may get a job now, which no worker will run.
        with targets.losses.expected([gpu_id]):
            await _replay(targets, request)


async def _replay(targets: Targets, request: Request) -> None:
    path = request.path.partition("?")[0]
    if path == "/api/job/finish":
        await targets.agents.finish_again(request.body)
    else:
        await targets.agents.once("POST", path, request.body)


async def submission_comes_twice(targets: Targets, _: Random) -> None:
    await targets.agents.submit(twice=True)


async def run_is_cancelled(targets: Targets, random: Random) -> None:
    """One that waits or runs, also one that a keep rule has queued, or was decided a moment ago and
    then stays as it is."""
    promises = targets.agents.promises
    candidates = sorted(promises.acknowledged - promises.decided)
    for tag in targets.agents.racing:
        candidates += await targets.system.direct.hkeys(f"ar:{{{tag}}}:follow")
    if not candidates:
        raise Missed
    await targets.agents.cancel(random.choice(candidates))


async def hand_run(targets: Targets, random: Random) -> None:
    """An agent takes a GPU, trains, reports twice with different results, gives the GPU back."""
    agents = targets.agents
    experiment_id = await agents.register()
    gpu_id = None
    for _ in range(_LOOKS_FOR_A_GPU):
        gpu_id = await agents.acquire(experiment_id)
        if gpu_id is not None:
            await asyncio.sleep(random.uniform(0.1, 1))
            break
        await asyncio.sleep(_LOOK_SECONDS)
    result = agents.result()
    await agents.complete(experiment_id, result)
    if gpu_id is not None:
        await agents.release(experiment_id, gpu_id)
    await agents.complete(experiment_id, result / 2)


async def stampede(targets: Targets, _: Random) -> None:
    """Many trainings by hand report at the same moment, each of them twice at once."""
    agents = targets.agents
    ids = await asyncio.gather(*(agents.register() for _ in range(_HAND_RUNS_AT_ONCE)))
    reports = []
    for experiment_id in ids:
        result, key = agents.result(), agents.key()
        reports += [agents.complete(experiment_id, result, key) for _ in range(2)]
    await asyncio.gather(*reports)
