"""Writes on the queue and its leases: claim, renew, requeue, direct."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from orchestrator.decisions import Snapshot
from orchestrator.domain import Forecast, Timing
from orchestrator.errors import Conflict
from orchestrator.ids import AttemptId, tag_of
from orchestrator.rules.early_stop import after_condemned
from orchestrator.rules.retry import Requeue
from orchestrator.store import entries, keys, records, verbs
from orchestrator.store.client import TextRedis
from orchestrator.store.experiments import Ended
from orchestrator.store.scripts import Scripts, redis_errors


@dataclass(frozen=True)
class Claimed:
    """A lease as the claim script grants it."""

    attempt: AttemptId
    seed: int
    time_budget_seconds: float
    source_sha256: str
    prepare_sha256: str | None
    best_val_bpb: float | None
    lease_seconds: float
    heartbeat_seconds: float


@dataclass(frozen=True)
class NothingToClaim:
    """No job for this GPU now. `platform` and `gpu_model` say which jobs may wake its waiter;
    `busy` that it may have none at all: it has one, or is held, draining, or not fit."""

    platform: str | None = None
    gpu_model: str | None = None
    busy: bool = False


@dataclass(frozen=True)
class Renewed:
    """`cancel` asks the worker to stop the run, `early` says that the early stop does. That may
    still condemn a run that is `open`. `gpu_known` is true if the pool has its GPU."""

    cancel: bool
    early: bool
    open: bool
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

    async def claim(
        self, gpu_id: str, claim_id: str, timing: Timing, worker: str = ""
    ) -> Claimed | NothingToClaim:
        """Lease the next run to `gpu_id` by `timing`; the same `claim_id` gets the same run and the
        same lease. Raises `Forbidden` if `worker`, a token's label, did not register the GPU."""
        nonce, secret = f"{gpu_id}:{claim_id}", secrets.token_hex(16)
        asked = (repr(timing.lease_seconds), repr(timing.heartbeat_seconds))
        reply = await self._scripts.run(verbs.CLAIM, gpu_id, secret, worker, *asked, nonce=nonce)
        if reply.name != "OK":
            bound = reply.fields.get("profile"), reply.fields.get("gpu_model")
            return NothingToClaim(*bound, busy=reply.name == "BUSY")
        return Claimed(
            attempt=AttemptId(reply["id"], int(reply["epoch"]), reply.fields.get("secret")),
            seed=int(reply["seed"]),
            time_budget_seconds=float(reply["budget"]),
            source_sha256=reply["source"],
            prepare_sha256=reply.fields.get("prepare"),
            best_val_bpb=float(reply["best"]) if "best" in reply.fields else None,
            # Not in the kept reply to a claim that an older version has granted.
            lease_seconds=float(reply.fields.get("lease", timing.lease_seconds)),
            heartbeat_seconds=float(reply.fields.get("heartbeat", timing.heartbeat_seconds)),
        )

    async def renew(
        self, attempt: AttemptId, *, started: bool, health: Mapping[str, float] | None = None
    ) -> Renewed:
        """Renew a lease; with `health` it is its GPU's heartbeat too. Raises `LeaseLost`."""
        reply = await self._scripts.run(
            verbs.RENEW,
            attempt.tag,
            attempt.experiment_id,
            attempt.epoch,
            started,
            health,
            attempt.secret,
        )
        return Renewed(reply["cancel"], reply["early"], reply["open"], reply["known"])

    async def condemn(
        self,
        snapshot: Snapshot,
        attempt: AttemptId,
        losses: Sequence[float],
        base: str | None,
        forecast: Forecast,
    ) -> bool:
        """Condemn a run by a forecast that these values led to: True if it is to stop.
        If the tag has changed since, the run goes on, to be looked at once more. Raises
        `LeaseLost`."""
        data = entries.condemned_data(snapshot.tag, losses, base, forecast)
        reply = await self._scripts.run(
            verbs.CONDEMN,
            attempt.tag,
            attempt.experiment_id,
            attempt.epoch,
            asdict(forecast),
            forecast.spared,
            records.stops_text(after_condemned(snapshot.stops)),
            self._scripts.entry(snapshot.tag, "condemned", data, attempt.experiment_id),
        )
        return reply.name == "OK" and not forecast.spared

    async def requeue(self, attempt: AttemptId, how: Requeue, renewal: str = "") -> Ended | None:
        """Put a leased run back at its old place. A run that is decided already keeps its verdict.
        None if a person has asked to cancel the run: decide again.

        Raises:
            LeaseLost, LeaseRenewed: the attempt's epoch or `renewal` is no longer the lease's.
        """
        reply = await self._scripts.run(
            verbs.REQUEUE,
            attempt.tag,
            attempt.experiment_id,
            attempt.epoch,
            renewal,
            how.ending,
            how.counts_as_loss,
        )
        return None if reply.name == "CANCELLED" else Ended(reply.fields.get("verdict"))

    async def direct(
        self, experiment_id: str, gpu_id: str, source_sha256: str | None, seed: int
    ) -> None:
        """Send a run that has not started to one GPU; a run that is over stays as it is."""
        reply = await self._scripts.run(
            verbs.DIRECT, tag_of(experiment_id), experiment_id, gpu_id, source_sha256, seed
        )
        if reply.name == "CONFLICT":
            raise Conflict(f"{experiment_id} is {reply['state']} on a GPU already.")
        if reply.name == "PROFILE":
            raise Conflict(
                f"The tag is bound to {reply['tag']} (profile and data), this GPU has"
                f" {reply['gpu']}: their"
                " results do not compare."
            )
        if reply.name == "MODEL":
            raise Conflict(
                f"The tag runs on {reply['tag']}, and {gpu_id} is of the model {reply['gpu']}:"
                " their results do not compare. A tag that was set up with --mix-models runs on"
                " both."
            )

    async def leases(self) -> list[LeaseSeen]:
        """All leases, for the reaper."""
        with redis_errors():
            pairs = await self._redis.zrange(keys.of_all("leases"), 0, -1, withscores=True)
        return [LeaseSeen(member, str(int(score))) for member, score in pairs]
