"""Faults of the protocol: what was said is said again, late, out of order, or by the wrong party.

Also what is no fault of anybody's and must go well all the same: cancelling, and training by hand.
"""

import asyncio
from random import Random

from bench.chaos.agents import TAGS
from bench.chaos.stage import Missed, Stage
from bench.chaos.wire import Request

_RECENT_SECONDS = 30.0
_FORGED_BPB = 0.4
_FAR_AHEAD = 5
_HAND_RUNS_AT_ONCE = 8
_LOOKS_FOR_A_GPU = 40
_LOOK_SECONDS = 0.05


async def reports_come_again(stage: Stage, dice: Random) -> None:
    """A report of a run that is over comes once more, twice at the same time, and changed."""
    said = stage.system.said.since(_RECENT_SECONDS, "/api/job/finish")
    if not said:
        raise Missed
    body = dice.choice(said).body
    again = [body, body]
    if body["metrics"] and body["experiment_id"] in stage.agents.ledger.decided:
        again.append(body | {"metrics": {"val_bpb": _FORGED_BPB}})
    await asyncio.gather(*(stage.agents.finish_again(each) for each in again))


async def stale_epoch_reports(stage: Stage, dice: Random) -> None:
    """A run that has a lease is reported by an attempt that has none, with the best of results."""
    leased = await stage.system.direct.zrange("ar:leases", 0, -1)
    if not leased:
        raise Missed
    experiment_id = dice.choice(leased)
    tag = next(tag for tag in TAGS if experiment_id.endswith(tag))
    epoch = int(await stage.system.direct.hget(f"ar:{{{tag}}}:run:{experiment_id}", "epoch"))
    stale = epoch - 1 if epoch > 1 else epoch + _FAR_AHEAD
    answer = await stage.agents.finish_again(
        {
            "experiment_id": experiment_id,
            "gpu_id": dice.choice(stage.system.workers).gpu_id,
            "epoch": stale,
            "outcome": "completed",
            "metrics": {"val_bpb": _FORGED_BPB},
        }
    )
    if answer is not None and answer.status == 200:
        stage.findings.add("fencing", f"a report of epoch {stale} of {experiment_id} was taken")


async def traffic_is_replayed(stage: Stage, dice: Random) -> None:
    """A handful of what workers said comes again, in another order, at any orchestrator."""
    said = stage.system.said.since(_RECENT_SECONDS)
    if not said:
        raise Missed
    for request in dice.choices(said, k=5):
        gpu_id = request.body.get("gpu_id", "")
        # A claim that found nothing may find something now, and nobody will run that.
        with stage.excuses.excusing([gpu_id]):
            await _replay(stage, request)


async def _replay(stage: Stage, request: Request) -> None:
    path = request.path.partition("?")[0]
    if path == "/api/job/finish":
        await stage.agents.finish_again(request.body)
    else:
        await stage.agents.once("POST", path, request.body)


async def submission_comes_twice(stage: Stage, _: Random) -> None:
    await stage.agents.submit(twice=True)


async def run_is_cancelled(stage: Stage, dice: Random) -> None:
    """One that waits or runs; or one that was decided a moment ago, which stays as it is."""
    ledger = stage.agents.ledger
    candidates = sorted(ledger.acknowledged - ledger.decided)
    if not candidates:
        raise Missed
    await stage.agents.cancel(dice.choice(candidates))


async def hand_run(stage: Stage, dice: Random) -> None:
    """An agent takes a GPU, trains, reports twice with different results, gives the GPU back."""
    agents = stage.agents
    experiment_id = await agents.register()
    gpu_id = None
    for _ in range(_LOOKS_FOR_A_GPU):
        gpu_id = await agents.acquire(experiment_id)
        if gpu_id is not None:
            await asyncio.sleep(dice.uniform(0.1, 1))
            break
        await asyncio.sleep(_LOOK_SECONDS)
    result = agents.result()
    await agents.complete(experiment_id, result)
    if gpu_id is not None:
        await agents.release(experiment_id, gpu_id)
    await agents.complete(experiment_id, result / 2)


async def stampede(stage: Stage, _: Random) -> None:
    """Many trainings by hand report at the same moment, each of them twice at once."""
    agents = stage.agents
    ids = await asyncio.gather(*(agents.register() for _ in range(_HAND_RUNS_AT_ONCE)))
    reports = []
    for experiment_id in ids:
        result, key = agents.result(), agents.key()
        reports += [agents.complete(experiment_id, result, key) for _ in range(2)]
    await asyncio.gather(*reports)
