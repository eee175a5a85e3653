"""Ends runs: takes how a run ended, judges it on a snapshot, applies the verdict exactly once."""

import logging

from orchestrator import schemas
from orchestrator.domain import INFRA_LOST, Outcome, Run, State
from orchestrator.errors import Conflict, Unavailable
from orchestrator.rules.decide import decide
from orchestrator.rules.retry import Fate, after_loss
from orchestrator.services import views
from orchestrator.store import keys
from orchestrator.store.connection import Store
from orchestrator.store.experiments import Claimant, by_lease, unknown_experiment
from orchestrator.store.jobs import lease_lost

logger = logging.getLogger(__name__)

# Each failed try means that another decision of the tag went through in between.
MAX_TRIES = 500


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
        self, experiment_id: str, outcome: Outcome, claimant: Claimant
    ) -> schemas.AnyVerdict:
        """Decide a run; a run that is decided already answers with its stored verdict.

        Raises:
            LeaseLost: the claimant's epoch is over.
            Conflict: the run is not in a state in which this claimant may end it.
        """
        tag = tag_of(experiment_id)
        for _ in range(MAX_TRIES):
            snapshot = await self._store.experiments.snapshot(tag, experiment_id)
            decision = decide(snapshot, outcome)
            verdict = views.verdict(experiment_id, outcome, decision)
            reply = await self._store.experiments.apply(
                snapshot, outcome, decision, verdict.model_dump_json(), claimant
            )
            if reply.outcome in ("OK", "DONE"):
                # What was stored, which a request sent again under its key did not compute now.
                return views.verdict_from(reply["verdict"])
            if reply.outcome != "STALE":
                raise _refusal(experiment_id, claimant, reply.outcome, reply.fields.get("state"))
        raise Unavailable(f"Too many decisions at once in tag {tag!r}; send the report again.")

    async def lose(
        self,
        experiment_id: str,
        epoch: int,
        attempt_outcome: str,
        *,
        renewal: str = "",
        loss: bool = True,
        why: str = "",
    ) -> schemas.AnyVerdict | None:
        """An attempt ended without a result: back to the queue (None), or the end of the run."""
        tag = tag_of(experiment_id)
        snapshot = await self._store.experiments.snapshot(tag, experiment_id)
        run = snapshot.run
        assert run is not None  # noqa: S101 - a snapshot with an id has its run
        if run.state is State.QUEUED and run.epoch == epoch:
            return None  # the same report, sent again: this loss is counted
        logger.info("%s: attempt %d %s %s", experiment_id, epoch, attempt_outcome, why)
        fate = after_loss(run) if loss else _after_hand_back(run)
        if fate == "requeue":
            reply = await self._store.jobs.requeue(
                tag, experiment_id, epoch, attempt_outcome, renewal=renewal, loss=loss
            )
            if reply.outcome == "OK":
                return None
            if reply.outcome == "DONE":
                return views.verdict_from(reply["verdict"])
            raise _refusal(experiment_id, by_lease(epoch), reply.outcome, None)
        return await self.settle(experiment_id, _end_of(fate, run, why), by_lease(epoch, renewal))


def _end_of(fate: Fate, run: Run, why: str) -> Outcome:
    if fate == "cancelled":
        return Outcome("cancelled")
    error = f"Lost {run.losses + 1} times to the infrastructure"
    return Outcome(
        "crash", error=f"{error}; the last time: {why}" if why else error, reason=INFRA_LOST
    )


def _after_hand_back(run: Run) -> Fate:
    return "cancelled" if run.cancel_requested else "requeue"


def _refusal(experiment_id: str, claimant: Claimant, outcome: str, state: str | None) -> Exception:
    if outcome == "LOST":
        return lease_lost(experiment_id, claimant.epoch)
    if outcome == "RENEWED":
        return LeaseRenewed()
    if outcome == "CONFLICT":
        return Conflict(
            f"{experiment_id} is {state}: its worker reports it, a report by hand is refused."
        )
    return unknown_experiment(experiment_id)
