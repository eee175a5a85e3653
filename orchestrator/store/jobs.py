"""Writes on the queue and its leases: claim, renew, requeue, direct."""

from dataclasses import dataclass

from orchestrator.errors import Conflict, LeaseLost, NotFound
from orchestrator.store import keys
from orchestrator.store.client import TextRedis
from orchestrator.store.experiments import unknown_experiment
from orchestrator.store.scripts import Reply, Scripts, redis_errors


def unknown_gpu(gpu_id: str) -> NotFound:
    return NotFound(f"Unknown GPU {gpu_id!r}; register it with POST /api/pool/register.")


def lease_lost(experiment_id: str, epoch: int) -> LeaseLost:
    return LeaseLost(
        f"Epoch {epoch} of {experiment_id} is over: the run was given to another attempt."
    )


@dataclass(frozen=True)
class Claimed:
    """A lease as the claim script grants it."""

    experiment_id: str
    tag: str
    epoch: int
    seed: int
    time_budget_seconds: float
    source_sha256: str
    prepare_sha256: str | None


@dataclass(frozen=True)
class NothingToClaim:
    """No job for this GPU now; `profile` says for which jobs to wake its waiter, `busy` that it may
    have none at all: it has one, or is held, draining, or not fit."""

    profile: str | None = None
    busy: bool = False


@dataclass(frozen=True)
class Renewed:
    """`cancel` asks the worker to stop the run; `gpu_known` whether the pool has its GPU."""

    cancel: bool
    gpu_known: bool


@dataclass(frozen=True)
class LeaseSeen:
    """A lease as the reaper sees it; `renewal` changes with every renewal."""

    experiment_id: str
    renewal: str


class JobStore:
    def __init__(self, scripts: Scripts, redis: TextRedis) -> None:
        self._scripts = scripts
        self._redis = redis

    async def claim(self, gpu_id: str, claim_id: str) -> Claimed | NothingToClaim:
        """Lease the next run to `gpu_id`; the same `claim_id` gets the same run."""
        reply = await self._scripts.run("claim", gpu_id, nonce=f"{gpu_id}:{claim_id}")
        if reply.outcome == "UNKNOWN_GPU":
            raise unknown_gpu(gpu_id)
        if reply.outcome != "OK":
            return NothingToClaim(reply.fields.get("profile"), reply.outcome == "BUSY")
        return Claimed(
            experiment_id=reply["id"],
            tag=reply["tag"],
            epoch=int(reply["epoch"]),
            seed=int(reply["seed"]),
            time_budget_seconds=float(reply["budget"]),
            source_sha256=reply["source"],
            prepare_sha256=reply.fields.get("prepare"),
        )

    async def renew(
        self, tag: str, experiment_id: str, epoch: int, *, started: bool, health: str = ""
    ) -> Renewed:
        """Renew a lease; with `health` (JSON) it is its GPU's heartbeat too. Raises `LeaseLost`."""
        reply = await self._scripts.run(
            "renew", tag, experiment_id, epoch, "1" if started else "0", health
        )
        self._check_lease(reply, experiment_id, epoch)
        return Renewed(cancel=reply["cancel"], gpu_known=reply["known"])

    async def requeue(
        self, tag: str, experiment_id: str, epoch: int, outcome: str, *, renewal: str, loss: bool
    ) -> Reply:
        """Put a leased run back at its old place. Outcomes: see requeue.lua."""
        return await self._scripts.run(
            "requeue", tag, experiment_id, epoch, renewal, outcome, "1" if loss else "0"
        )

    async def direct(
        self, tag: str, experiment_id: str, gpu_id: str, source_sha256: str, seed: int
    ) -> None:
        """Send a run that has not started to one GPU; a run that is over stays as it is."""
        reply = await self._scripts.run("direct", tag, experiment_id, gpu_id, source_sha256, seed)
        if reply.outcome == "UNKNOWN_GPU":
            raise unknown_gpu(gpu_id)
        if reply.outcome == "UNKNOWN_ID":
            raise unknown_experiment(experiment_id)
        if reply.outcome == "CONFLICT":
            raise Conflict(f"{experiment_id} is {reply['state']} on a GPU already.")
        if reply.outcome == "PROFILE":
            raise Conflict(
                f"The tag belongs to profile {reply['tag']}, this GPU to {reply['gpu']}: their"
                " results do not compare."
            )

    async def leases(self) -> list[LeaseSeen]:
        """All leases there are, for the reaper."""
        with redis_errors():
            pairs = await self._redis.zrange(keys.of_all("leases"), 0, -1, withscores=True)
        return [LeaseSeen(member, str(int(score))) for member, score in pairs]

    @staticmethod
    def _check_lease(reply: Reply, experiment_id: str, epoch: int) -> None:
        if reply.outcome == "LOST":
            raise lease_lost(experiment_id, epoch)
        if reply.outcome == "UNKNOWN_ID":
            raise unknown_experiment(experiment_id)
