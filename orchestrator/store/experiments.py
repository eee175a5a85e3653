"""Writes on tags, experiments and strategies. Every verb is one atomic script."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.decisions import Decision, RunResult, Snapshot
from orchestrator.domain import (
    INFRA_LOST,
    Best,
    Experiment,
    Metrics,
    Mode,
    NewExperiment,
    OperatorAction,
    State,
    Strategy,
    Tag,
)
from orchestrator.errors import Conflict, Unavailable
from orchestrator.ids import tag_of
from orchestrator.rules.race.decide import RaceDecision
from orchestrator.rules.race.state import Next, to_json
from orchestrator.store import entries, records, verbs
from orchestrator.store.entries import OtherVerdict
from orchestrator.store.race import follow_of
from orchestrator.store.scripts import Scripts


@dataclass(frozen=True)
class Reporter:
    """Who ends a run, and so which states and which lease it must have: an agent by hand (no
    epoch), a worker with the epoch and secret of its lease, or the reaper, with the last renewal
    that it saw.
    """

    states: tuple[State, ...]
    epoch: int = 0
    renewal: str = ""
    secret: str | None = None  # None: the orchestrator itself, which needs none


BY_HAND = Reporter((State.HAND,))
UNLEASED = Reporter((State.HAND, State.QUEUED))


def by_lease(epoch: int, renewal: str = "", secret: str | None = None) -> Reporter:
    return Reporter((State.LEASED, State.RUNNING), epoch, renewal, secret)


@dataclass(frozen=True)
class Queued:
    """An experiment in the queue; `position` counts from 1."""

    experiment_id: str
    position: int


@dataclass(frozen=True)
class Ended:
    """An attempt or a hand-run is over: `verdict_json` is None where the run is queued again.
    `followed` is true if what the keep rule asked for was queued with the decision."""

    verdict_json: str | None = None
    followed: bool = False


class ExperimentStore:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def setup(self, tag: Tag, strategy: Strategy) -> Tag:
        """Create the tag. Raises `Conflict` with the tag as `existing` where there is one."""
        settings, started = records.setting_fields(tag), records.strategy_fields(strategy)
        entry = self._scripts.entry(tag, "setup", {"settings": settings, "strategy": started})
        reply = await self._scripts.run(verbs.SETUP, tag.name, settings, started, entry)
        stored = records.tag_from(reply["tag"])
        if reply.name == "EXISTS":
            raise Conflict(f"Tag {tag.name!r} exists already.", existing=stored)
        return stored

    async def register(self, tag: str, experiment: NewExperiment, gpu_id: str | None = None) -> str:
        """Record a hand-run; returns its id."""
        reply = await self._scripts.run(
            verbs.REGISTER,
            tag,
            records.experiment_fields(experiment),
            records.text_fields({"gpu_id": gpu_id}),
        )
        if reply.name == "RACE":
            raise Conflict(
                f"Tag {tag!r} keeps by race, which runs a source several times: submit the"
                " train.py, or set up a tag with keep_rule greedy for runs by hand."
            )
        return str(reply["id"])

    async def submit(
        self,
        tag: str,
        experiment: NewExperiment,
        *,
        seed: int = 42,
        priority: int = 0,
        repeat: bool = False,
    ) -> Queued:
        """Record an experiment and enqueue its run.

        Raises `Conflict` with the earlier id as `existing` for a source that ran with this seed,
        unless `repeat`.
        """
        reply = await self._scripts.run(
            verbs.SUBMIT,
            tag,
            records.experiment_fields(experiment),
            {"seed": str(seed), "priority": str(priority)},
            repeat,
        )
        if reply.name == "DUPLICATE":
            raise Conflict(
                f"This very train.py was submitted already with this seed, as {reply['existing']};"
                " send repeat: true to run it again.",
                existing=reply["existing"],
            )
        return Queued(reply["id"], reply["position"])

    async def snapshot(self, tag: str) -> Snapshot:
        """Read a tag in one step."""
        reply = await self._scripts.run(verbs.SNAPSHOT, tag, None)
        return records.snapshot_from(reply.fields)

    async def run_snapshot(self, experiment_id: str) -> Snapshot:
        """Read a run and its tag in one step."""
        tag = tag_of(experiment_id)
        reply = await self._scripts.run(verbs.SNAPSHOT, tag, experiment_id)
        return records.snapshot_from(reply.fields, experiment_id)

    async def apply(
        self,
        snapshot: Snapshot,
        result: RunResult,
        decision: Decision,
        verdict_json: str,
        reporter: Reporter,
        action: OperatorAction | None = None,
        others: Sequence[OtherVerdict] = (),
        repeats: Sequence[Next] = (),
    ) -> Ended | None:
        """Apply `decision`, which rests on `snapshot`; `action` is the operator action that led to
        it, `others` are the verdicts that it brings on other experiments, `repeats` what the keep
        rule runs next. A run that is decided already keeps its verdict. None if the tag has changed
        since the snapshot: decide again.

        Raises:
            LeaseLost, LeaseRenewed: the reporter's epoch or renewal is no longer the lease's.
            Conflict: the run is in none of the reporter's states.
            Unavailable: its tag has no result yet, and a run submitted before it still runs.
        """
        assert snapshot.run is not None  # noqa: S101
        experiment_id = snapshot.run.experiment_id
        reply = await self._scripts.run(
            verbs.DECIDE,
            snapshot.tag.name,
            experiment_id,
            f" {' '.join(state.value for state in reporter.states)} ",
            reporter.epoch,
            snapshot.tag.revision,
            reporter.renewal,
            _application(snapshot, result, decision, verdict_json, action, others, repeats),
            self._scripts.entry(
                snapshot.tag,
                "decided",
                entries.journal_data(snapshot, result, decision, reporter.epoch, action, others),
                experiment_id,
            ),
        )
        if reply.name == "CONFLICT":
            raise Conflict(
                f"{experiment_id} is {reply['state']}: its worker reports it, a report by hand is"
                " refused."
            )
        if reply.name == "EARLIER":
            raise Unavailable(
                f"{experiment_id} waits for {reply['experiment_id']}, which was submitted before it"
                " and still runs: a tag's first submission is its baseline. Send the report again.",
                reason="earlier",
            )
        if reply.name == "STALE":
            return None
        return Ended(reply["verdict"], reply.fields.get("followed", False))

    async def choose_strategy(
        self,
        tag: str,
        action: OperatorAction,
        *,
        mode: Mode,
        explore_ratio: float,
        temperature: float | None,
        pinned: bool,
    ) -> Strategy:
        """Set what a person chose, in one step with its record in the audit log. A temperature of
        None stays as it is."""

        async def arguments() -> tuple[object, ...]:
            snapshot = await self.snapshot(tag)
            before = snapshot.strategy
            chosen = replace(
                before,
                mode=mode,
                explore_ratio=explore_ratio,
                temperature=before.temperature if temperature is None else temperature,
                reason=action.reason,
                pinned=pinned,
            )
            return self._strategy_arguments(snapshot.tag, chosen, action)

        reply = await self._scripts.run_on_snapshot(verbs.SET_STRATEGY, arguments)
        return records.strategy_from(reply["strategy"])

    async def adapt_strategy(self, snapshot: Snapshot, adapted: Strategy) -> Strategy | None:
        """Set what the rules made of `snapshot`; None if the tag has changed since."""
        arguments = self._strategy_arguments(snapshot.tag, adapted)
        reply = await self._scripts.run(verbs.SET_STRATEGY, *arguments)
        return None if reply.name == "STALE" else records.strategy_from(reply["strategy"])

    def _strategy_arguments(
        self, tag: Tag, strategy: Strategy, action: OperatorAction | None = None
    ) -> tuple[object, ...]:
        entry = self._scripts.entry(tag, "strategy", entries.strategy_data(tag, strategy, action))
        fields = records.strategy_fields(strategy)
        return tag.name, entry, fields, action and records.action_fields(action)


def _application(
    snapshot: Snapshot,
    result: RunResult,
    decision: Decision,
    verdict_json: str,
    action: OperatorAction | None,
    others: Sequence[OtherVerdict],
    repeats: Sequence[Next],
) -> dict[str, object]:
    """The JSON that decide.lua applies; every number in it is text."""
    experiment, metrics = snapshot.experiment, result.metrics
    assert experiment is not None  # noqa: S101
    lost = result.reason == INFRA_LOST
    application: dict[str, object] = {
        "status": decision.status.value,
        "judged": decision.counts_in_rates,
        "streak": str(decision.consecutive_crashes),
        "ending": "lost" if lost else result.kind,
        "verdict": verdict_json,
        "run": records.result_fields(result, decision),
        "others": [_other(one) for one in others],
        **({"stops": records.stops_text(decision.stops)} if decision.stops else {}),
    }
    if lost or result.kind == "cancelled":
        application["forget"] = True  # the source has not had its run
    if metrics is not None and metrics.training_seconds:
        application["seconds"] = repr(metrics.training_seconds)
    if decision.improved and metrics is not None:
        application["keep"] = _keep(experiment, decision, metrics)
        if decision.best is None:
            application["best"] = _best(Best(experiment.id, metrics.val_bpb))
    if isinstance(decision, RaceDecision):
        application |= _of_race(snapshot, decision, repeats)
    if decision.near_miss is not None:
        application["near"] = repr(decision.near_miss)
    if action is not None:
        application["steered"] = records.action_fields(action)
    if decision.strategy is not None:
        application["strategy"] = records.strategy_fields(decision.strategy)
    return application


def _of_race(
    snapshot: Snapshot, decision: RaceDecision, repeats: Sequence[Next]
) -> dict[str, object]:
    application: dict[str, object] = {"race": to_json(decision.state)}
    application["follow"] = {
        "created": str(snapshot.tag.last_created_us),
        "repeats": [
            {"after": one.sources[0], "seed": str(one.seed), "what": follow_of(one)}
            | ({"gpu": one.gpu} if one.gpu else {})
            for one in repeats
        ],
    }
    if decision.drift is not None:
        application["drift"] = decision.drift
    if decision.best is not None and decision.best != snapshot.tag.best:
        application["best"] = _best(decision.best)
    return application


def _keep(experiment: Experiment, decision: Decision, metrics: Metrics) -> str:
    """A keep as the progression shows it; under `race` with what is believed of it."""
    return json.dumps(
        {
            "id": experiment.id,
            "val_bpb": decision.best.val_bpb if decision.best else metrics.val_bpb,
            "description": experiment.description,
            "category": experiment.category,
        }
    )


def _best(best: Best) -> dict[str, str]:
    return {"best_val_bpb": repr(best.val_bpb), "best_id": best.experiment_id}


def _other(other: OtherVerdict) -> dict[str, object]:
    metrics, decision = other.run.metrics, other.decision
    assert metrics is not None  # noqa: S101 - it completed
    applied: dict[str, object] = {
        "id": other.experiment.id,
        "status": decision.status.value,
        "verdict": other.verdict_json,
        "category": other.experiment.category,
    }
    if decision.improved:
        applied["keep"] = _keep(other.experiment, decision, metrics)
    if decision.near_miss is not None:
        applied["near"] = repr(decision.near_miss)
    return applied
