"""Ends runs: takes how a run ended, judges it on a snapshot, applies the verdict exactly once."""

import logging

from orchestrator import schemas
from orchestrator.domain import INFRA_LOST, OperatorAction, Outcome, Run, Snapshot, State
from orchestrator.errors import Conflict, Unavailable
from orchestrator.rules.decide import decide
from orchestrator.rules.retry import Ending, fate
from orchestrator.services import views
from orchestrator.store import keys
from orchestrator.store.connection import Store
from orchestrator.store.experiments import Claimant, by_lease, unknown_experiment
from orchestrator.store.jobs import lease_lost
from orchestrator.store.scripts import Reply

logger = logging.getLogger(__name__)

# Each failed try means that another decision of the tag went through in between.
MAX_TRIES = 500

CANCELLED = Outcome("cancelled")


class LeaseRenewed(Exception):
    """The lease that seemed dead was renewed after the reaper looked."""


def tag_of(experiment_id: str) -> str:
    """The tag inside an id. Raises `NotFound` for an id that this service never gave out."""
    tag = keys.tag_of(experiment_id)
    if tag is None:
        raise unknown_experiment(experiment_id)
    return tag


class Judge:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def settle(
        self,
        experiment_id: str,
        outcome: Outcome,
        claimant: Claimant,
        act: OperatorAction | None = None,
    ) -> schemas.AnyVerdict:
        """Decide a run; a run that is decided already answers with its stored verdict.

        `act` is what a person did to end it, if it ends so.

        Raises:
            LeaseLost: the claimant's epoch is over.
            Conflict: the run is not in a state in which this claimant may end it.
        """
        tag = tag_of(experiment_id)
        for _ in range(MAX_TRIES):
            snapshot = await self._store.experiments.snapshot(tag, experiment_id)
            reply = await self._apply(snapshot, experiment_id, outcome, claimant, act)
            if reply.outcome in ("OK", "DONE"):
                # What was stored, which a request sent again under its key did not compute now.
                return views.verdict_from(reply["verdict"])
            if reply.outcome != "STALE":
                raise _refusal(experiment_id, claimant, reply)
        raise _too_many(tag)

    async def _apply(
        self,
        snapshot: Snapshot,
        experiment_id: str,
        outcome: Outcome,
        claimant: Claimant,
        act: OperatorAction | None = None,
    ) -> Reply:
        decision = decide(snapshot, outcome)
        verdict = views.verdict(experiment_id, outcome, decision)
        return await self._store.experiments.apply(
            snapshot, outcome, decision, verdict.model_dump_json(), claimant, act
        )

    async def lose(
        self,
        experiment_id: str,
        epoch: int,
        attempt_outcome: str,
        *,
        ending: Ending = "lost",
        renewal: str = "",
        why: str = "",
        if_cancelled: Outcome = CANCELLED,
    ) -> schemas.AnyVerdict | None:
        """An attempt ended without a result: back to the queue (None), or the end of the run.

        What a person asks for meanwhile is never overtaken: it leaves what was seen stale.
        """
        tag, claimant = tag_of(experiment_id), by_lease(epoch, renewal)
        for _ in range(MAX_TRIES):
            snapshot = await self._store.experiments.snapshot(tag, experiment_id)
            run = snapshot.run
            assert run is not None  # noqa: S101 - a snapshot with an id has its run
            if run.state is State.QUEUED and run.epoch == epoch:
                return None  # the same report, sent again: this loss is counted
            due = fate(run, ending)
            if due == "requeue":
                reply = await self._store.jobs.requeue(
                    tag,
                    experiment_id,
                    epoch,
                    "requeued" if ending == "stopped" else attempt_outcome,
                    renewal=renewal,
                    loss=ending == "lost",
                )
            else:
                outcome = if_cancelled if due == "cancelled" else _infra_lost(run, why)
                reply = await self._apply(snapshot, experiment_id, outcome, claimant)
            if reply.outcome in ("STALE", "CANCELLED"):
                continue
            if reply.outcome not in ("OK", "DONE"):
                raise _refusal(experiment_id, claimant, reply)
            logger.info("%s: attempt %d %s %s", experiment_id, epoch, attempt_outcome, why)
            verdict = reply.fields.get("verdict")
            return None if verdict is None else views.verdict_from(verdict)
        raise _too_many(tag)


def _infra_lost(run: Run, why: str) -> Outcome:
    error = f"Lost {run.losses + 1} times to the infrastructure"
    return Outcome(
        "crash", error=f"{error}; the last time: {why}" if why else error, reason=INFRA_LOST
    )


def _too_many(tag: str) -> Unavailable:
    return Unavailable(f"Too many decisions at once in tag {tag!r}; send the report again.")


def _refusal(experiment_id: str, claimant: Claimant, reply: Reply) -> Exception:
    if reply.outcome == "LOST":
        return lease_lost(experiment_id, claimant.epoch)
    if reply.outcome == "RENEWED":
        return LeaseRenewed()
    if reply.outcome == "CONFLICT":
        return Conflict(
            f"{experiment_id} is {reply['state']}: its worker reports it, a report by hand is"
            " refused."
        )
    return unknown_experiment(experiment_id)
