"""Writes on tags, experiments and strategies. Every verb is one atomic script."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.domain import (
    INFRA_LOST,
    Decision,
    OperatorAction,
    Outcome,
    Snapshot,
    State,
    Strategy,
    Tag,
)
from orchestrator.errors import Conflict, NotFound
from orchestrator.store import records
from orchestrator.store.scripts import Reply, Scripts


@dataclass(frozen=True)
class Claimant:
    """Who reports the end of a run: an agent by hand (no epoch), a worker with the epoch of its
    lease, or the reaper, which also names the last renewal that it saw."""

    states: tuple[State, ...]
    epoch: int = 0
    renewal: str = ""


BY_HAND = Claimant((State.HAND,))
UNLEASED = Claimant((State.HAND, State.QUEUED))


def by_lease(epoch: int, renewal: str = "") -> Claimant:
    return Claimant((State.LEASED, State.RUNNING), epoch, renewal)


def unknown_tag(tag: str) -> NotFound:
    return NotFound(f"Unknown tag {tag!r}; create it with POST /api/experiment/setup.")


def unknown_experiment(experiment_id: str) -> NotFound:
    return NotFound(f"Unknown experiment {experiment_id!r}.")


class ExperimentStore:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def setup(self, tag: Tag, strategy: Strategy) -> Tag:
        """Create the tag. Raises `Conflict` with the tag as `existing` where there is one."""
        fields = records.text_fields(
            {
                "name": tag.name,
                "budget": tag.time_budget_seconds,
                "threshold": tag.near_miss_threshold,
                "max_crashes": tag.max_consecutive_crashes,
                "prepare": tag.prepare_sha256,
            }
        )
        reply = await self._scripts.run(
            "setup", tag.name, json.dumps(fields), json.dumps(records.strategy_fields(strategy))
        )
        stored = records.tag_from(reply["tag"])
        if reply.outcome == "EXISTS":
            raise Conflict(f"Tag {tag.name!r} exists already.", existing=stored)
        return stored

    async def register(
        self, tag: str, experiment: Mapping[str, str], run: Mapping[str, str]
    ) -> str:
        """Record a hand-run; answers its id."""
        reply = await self._scripts.run("register", tag, json.dumps(experiment), json.dumps(run))
        self._check_created(reply, tag, experiment)
        return str(reply["id"])

    async def submit(
        self, tag: str, experiment: Mapping[str, str], run: Mapping[str, str], *, repeat: bool
    ) -> tuple[str, int]:
        """Record an experiment and enqueue its run; answers its id and place in the tag's queue.

        Raises `Conflict` with the earlier id as `existing` for a source that ran with this seed.
        """
        reply = await self._scripts.run(
            "submit", tag, json.dumps(experiment), json.dumps(run), "1" if repeat else "0"
        )
        if reply.outcome == "DUPLICATE":
            raise Conflict(
                f"This very train.py ran already with this seed as {reply['existing']};"
                " send repeat: true to run it again.",
                existing=reply["existing"],
            )
        self._check_created(reply, tag, experiment)
        return str(reply["id"]), int(reply["position"])

    @staticmethod
    def _check_created(reply: Reply, tag: str, experiment: Mapping[str, str]) -> None:
        if reply.outcome == "UNKNOWN_TAG":
            raise unknown_tag(tag)
        if reply.outcome == "UNKNOWN_PARENT":
            raise NotFound(f"Unknown parent_id {experiment['parent_id']!r} in tag {tag!r}.")

    async def snapshot(self, tag: str, experiment_id: str = "") -> Snapshot:
        """Read a tag, and one of its runs where an id is given, in one step."""
        reply = await self._scripts.run("snapshot", tag, experiment_id, "", "")
        if reply.outcome == "UNKNOWN_TAG":
            raise unknown_experiment(experiment_id) if experiment_id else unknown_tag(tag)
        if reply.outcome == "UNKNOWN_ID":
            raise unknown_experiment(experiment_id)
        return records.snapshot_from(reply.fields, experiment_id)

    async def apply(
        self,
        snapshot: Snapshot,
        outcome: Outcome,
        decision: Decision,
        verdict_json: str,
        claimant: Claimant,
        act: OperatorAction | None = None,
    ) -> Reply:
        """Apply `decision`, which rests on `snapshot`, and which an act of a person led to where
        there is one. Outcomes: see decide.lua."""
        assert snapshot.run is not None  # noqa: S101
        return await self._scripts.run(
            "decide",
            snapshot.tag.name,
            snapshot.run.experiment_id,
            f" {' '.join(state.value for state in claimant.states)} ",
            claimant.epoch,
            snapshot.tag.revision,
            claimant.renewal,
            json.dumps(_application(snapshot, outcome, decision, verdict_json, act)),
            json.dumps(records.journal_data(snapshot, outcome, decision, claimant.epoch, act)),
        )

    async def set_strategy(
        self,
        tag: str,
        fields: Mapping[str, str],
        revision: int | None = None,
        act: OperatorAction | None = None,
    ) -> Strategy | None:
        """Set these fields of the strategy in force, in one step with what it was; with a
        `revision`, only if the tag still has it (None if not). `act` says whose choice it is."""
        reply = await self._scripts.run(
            "set_strategy",
            tag,
            "" if revision is None else revision,
            json.dumps(fields),
            json.dumps(vars(act)) if act else "",
        )
        if reply.outcome == "UNKNOWN_TAG":
            raise unknown_tag(tag)
        return None if reply.outcome == "STALE" else records.strategy_from(reply["strategy"])


def _application(
    snapshot: Snapshot,
    outcome: Outcome,
    decision: Decision,
    verdict_json: str,
    act: OperatorAction | None,
) -> dict[str, object]:
    """The JSON that decide.lua applies; every number in it is text."""
    experiment = snapshot.experiment
    assert experiment is not None  # noqa: S101
    lost = outcome.reason == INFRA_LOST
    run = records.environment_fields(outcome.environment) | records.text_fields(
        {
            "best_before": decision.best_before,
            "error": outcome.error or None,
            "reason": outcome.reason,
            "warnings": json.dumps(outcome.warnings) if outcome.warnings else None,
        }
    )
    application: dict[str, object] = {
        "status": decision.status.value,
        "judged": decision.counts_in_rates,
        "streak": str(decision.consecutive_crashes),
        "outcome": "lost" if lost else outcome.status,
        "verdict": verdict_json,
        "run": run,
    }
    if lost or outcome.status == "cancelled":
        application["forget"] = True  # the source has not had its run
    if outcome.metrics is not None:
        run |= records.metric_fields(outcome.metrics)
        if outcome.metrics.training_seconds:
            application["seconds"] = repr(outcome.metrics.training_seconds)
    if decision.improved and outcome.metrics is not None:
        application["best"] = {
            "best_val_bpb": repr(outcome.metrics.val_bpb),
            "best_id": experiment.id,
            "best_commit": experiment.commit_sha,
        }
        application["keep"] = json.dumps(
            {
                "id": experiment.id,
                "val_bpb": outcome.metrics.val_bpb,
                "description": experiment.description,
                "category": experiment.category,
            }
        )
    if decision.near_miss is not None:
        application["near"] = repr(decision.near_miss)
    if act is not None:
        application["steered"] = vars(act)
    if decision.strategy is not None:
        application["strategy"] = records.strategy_fields(decision.strategy)
    return application
