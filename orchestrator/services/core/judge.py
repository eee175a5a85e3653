"""Ends runs: takes how a run ended, judges it on a snapshot, applies the verdict exactly once."""

import hmac
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from orchestrator import schemas
from orchestrator.decisions import Decision, RunResult, Snapshot
from orchestrator.domain import AttemptEnding, OperatorAction, Run, State
from orchestrator.errors import Unavailable, no_lease_secret
from orchestrator.ids import AttemptId, tag_of
from orchestrator.rules import early_stop
from orchestrator.rules.decide import decide
from orchestrator.rules.race.state import from_json
from orchestrator.rules.retry import (
    Requeue,
    after_handed_back_attempt,
    after_lost_attempt,
    after_stopped_attempt,
)
from orchestrator.services import views
from orchestrator.services.core.race import Ahead, Race, look_ahead
from orchestrator.store.connection import Store
from orchestrator.store.entries import OtherVerdict
from orchestrator.store.experiments import Reporter, by_lease

logger = logging.getLogger(__name__)

# Each failed try means that another decision of the tag went through in between.
MAX_TRIES = 500


class Judge:
    def __init__(self, store: Store, race: Race) -> None:
        self._store = store
        self._race = race

    async def settle(
        self,
        experiment_id: str,
        result: RunResult,
        reporter: Reporter,
        action: OperatorAction | None = None,
    ) -> schemas.AnyVerdict:
        """Decide a run; a run that is decided already answers with its stored verdict.

        `action` is the operator action that ends the run, if one does.

        Raises:
            LeaseLost: the reporter's epoch is over, or it lacks the lease's secret.
            Conflict: the run is not in a state in which this reporter may end it.
        """
        for _ in range(MAX_TRIES):
            snapshot = await self._store.experiments.run_snapshot(experiment_id)
            _check_secret(snapshot, reporter.epoch, reporter.secret)
            verdict = await self._apply(snapshot, result, reporter, action)
            if verdict is not None:
                return verdict
        raise _too_many(experiment_id)

    async def attempt_lost(
        self, attempt: AttemptId, why: str, *, ending: AttemptEnding = "lost", renewal: str = ""
    ) -> schemas.AnyVerdict | None:
        """The infrastructure failed an attempt: its run is queued again (None), or ends after too
        many losses. With `renewal` only if the lease was not renewed since.

        Raises:
            LeaseLost, LeaseRenewed: another attempt has the run, or the worker is back.
        """
        rule = partial(after_lost_attempt, ending=ending, why=why)
        return await self._end_attempt(attempt, rule, renewal)

    async def attempt_handed_back(self, attempt: AttemptId) -> schemas.AnyVerdict | None:
        """A worker that goes away, or whose host is unfit, returned an attempt: its run is queued
        again (None), unless a person wants it cancelled. Raises `LeaseLost`."""
        return await self._end_attempt(attempt, after_handed_back_attempt)

    async def attempt_stopped(
        self, attempt: AttemptId, result: RunResult, percent: float
    ) -> schemas.AnyVerdict | None:
        """A worker stopped an attempt on request, after `percent` of its training: its run ends
        with `result`, as stopped early, or is queued again (None), as was asked. Raises
        `LeaseLost`."""
        rule = partial(after_stopped_attempt, result=result, percent=percent)
        return await self._end_attempt(attempt, rule)

    async def stops_early(self, attempt: AttemptId, losses: Sequence[float]) -> bool:
        """True if the tag's early stop ends the run now, by the losses of its curve so far. Nothing
        of it is kept here: a run is looked at with each piece of its curve until it is condemned,
        or over. Raises `LeaseLost`."""
        if len(losses) < 2:  # it has reached no mark
            return False
        snapshot = await self._store.experiments.run_snapshot(attempt.experiment_id)
        if not early_stop.may_condemn(snapshot):
            return False
        state = from_json(snapshot.race)
        base = await self._race.base(snapshot, state) if snapshot.race else None
        best = early_stop.judged_against(snapshot.tag, state, base)
        forecast = early_stop.forecast(snapshot.stops, attempt.experiment_id, losses, best)
        if forecast is None:
            return False
        logger.info("%s is condemned: %s", attempt, forecast)
        return await self._store.jobs.condemn(snapshot, attempt, losses, base, forecast)

    async def _end_attempt(
        self, attempt: AttemptId, rule: Callable[[Run], Requeue | RunResult], renewal: str = ""
    ) -> schemas.AnyVerdict | None:
        """Do what `rule` says of the run. An operator action in between makes the store refuse, and
        then the rule is asked again."""
        for _ in range(MAX_TRIES):
            snapshot = await self._store.experiments.run_snapshot(attempt.experiment_id)
            run = snapshot.run
            assert run is not None  # noqa: S101 - `run_snapshot` has a run
            _check_secret(snapshot, attempt.epoch, attempt.secret)
            if run.state is State.QUEUED and run.epoch == attempt.epoch:
                return None  # the same report, sent again: this loss is counted
            # An attempt before the last one was queued again: the store refuses this report, or
            # knows it as the one that did that.
            follows = rule(run) if run.epoch == attempt.epoch else Requeue("lost")
            if isinstance(follows, Requeue):
                ended = await self._store.jobs.requeue(attempt, follows, renewal)
                if ended is None:
                    continue
                verdict = views.verdict_from(ended.verdict_json) if ended.verdict_json else None
            else:
                verdict = await self._apply(snapshot, follows, by_lease(attempt.epoch, renewal))
                if verdict is None:
                    continue
            logger.info("%s ended without a result: %s", attempt, follows)
            return verdict
        raise _too_many(attempt.experiment_id)

    async def _apply(
        self,
        snapshot: Snapshot,
        result: RunResult,
        reporter: Reporter,
        action: OperatorAction | None = None,
    ) -> schemas.AnyVerdict | None:
        """Decide on the snapshot; None if the tag has changed since."""
        assert snapshot.run is not None  # noqa: S101 - `run_snapshot` has a run
        racing, others, ahead = snapshot.tag.keep_rule != "greedy", list[OtherVerdict](), Ahead()
        decision: Decision
        if racing:
            decision, others = await self._race.decide(snapshot, result)
            ahead = look_ahead(snapshot, decision)
            if decision.drift:
                logger.warning("GPU %s %s", snapshot.run.gpu_id, decision.drift)
            if why := decision.no_evidence:
                said = f"does not count for the keep rule: {why}"
                result = replace(result, warnings=(*result.warnings, said))
        else:
            decision = decide(snapshot, result)
        decision = early_stop.counted(decision, snapshot, result)
        verdict = views.verdict(snapshot.run.experiment_id, result, decision)
        verdict_json = verdict.model_dump_json()
        ended = await self._store.experiments.apply(
            snapshot,
            result,
            decision,
            verdict_json,
            reporter,
            action,
            others,
            ahead.repeats,
        )
        if ended is None:
            return None
        if racing:  # before its GPU asks for the next job
            await self._race.follow(snapshot.tag.name, ahead, queued=ended.followed)
        assert ended.verdict_json is not None  # noqa: S101 - `apply` queues nothing
        # The stored one: a request that is sent again may have computed another.
        same = ended.verdict_json == verdict_json
        return verdict if same else views.verdict_from(ended.verdict_json)


def _check_secret(snapshot: Snapshot, epoch: int, given: str | None) -> None:
    """Raises `LeaseLost` for a caller who lacks the secret of this epoch's lease. An epoch's secret
    never changes, and the scripts check the epoch again."""
    run = snapshot.run
    assert run is not None  # noqa: S101 - `run_snapshot` has a run
    if given is None or run.epoch != epoch or not run.lease_secret.startswith(f"{epoch} "):
        return
    if not hmac.compare_digest(f"{epoch} {given}".encode(), run.lease_secret.encode()):
        raise no_lease_secret(run.experiment_id, epoch)


def _too_many(experiment_id: str) -> Unavailable:
    tag = tag_of(experiment_id)
    return Unavailable(f"Too many decisions at once in tag {tag!r}; send the report again.")
