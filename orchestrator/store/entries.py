"""Journal entries: what they keep of each step of a tag, and the steps that a replay takes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic_core import from_json

from orchestrator.decisions import Decision, RunResult, Snapshot
from orchestrator.domain import (
    Experiment,
    Forecast,
    Metrics,
    OperatorAction,
    Run,
    Status,
    Strategy,
    Tag,
)
from orchestrator.rules.race.decide import RaceDecision, ending
from orchestrator.rules.race.state import FinishedRun
from orchestrator.rules.replay import (
    Chosen,
    Condemned,
    Decided,
    Settled,
    SetUp,
    Steered,
    Step,
    Switched,
    Unmerged,
)
from orchestrator.rules.seals import JournalEntry
from orchestrator.store import records


@dataclass(frozen=True)
class OtherVerdict:
    """A verdict that a decision brings on another experiment, whose run had its training before."""

    experiment: Experiment
    run: Run
    decision: Decision
    verdict_json: str

    @property
    def settles(self) -> bool:
        """True if it ends the wait of a candidate."""
        candidate = self.run.status is Status.CANDIDATE
        return candidate and self.decision.status is not Status.CANDIDATE


def journal_data(
    snapshot: Snapshot,
    result: RunResult,
    decision: Decision,
    epoch: int,
    action: OperatorAction | None = None,
    others: Sequence[OtherVerdict] = (),
) -> dict[str, Any]:
    """What the journal keeps of a decision: who reported (a lease's epoch, 0 without one), the run
    result (as `outcome`), what the decision rests on, what it is, and which operator action led to
    it, if one did. Unless the keep rule is `greedy`, also the run as the rule takes it, and which
    candidates it settles. Names that have no value are left out."""
    assert snapshot.experiment is not None  # noqa: S101 - only runs are decided
    tag, metrics = snapshot.tag, result.metrics
    return {
        "epoch": epoch,
        "category": snapshot.experiment.category,
        "outcome": _present(
            status=result.kind,
            reason=result.reason,
            val_bpb=metrics and metrics.val_bpb,
            training_seconds=metrics and metrics.training_seconds,
            verified_bpb=result.verified_bpb,
            losses=result.losses if tag.early_stop and result.losses else None,
            saved_seconds=result.saved_seconds,
        ),
        "on": _present(
            revision=tag.revision,
            best=tag.best_val_bpb,
            best_id=tag.best_experiment_id,
            streak=tag.consecutive_crashes,
        ),
        "decision": _present(
            status=decision.status.value,
            near=decision.near_miss,
            streak=decision.consecutive_crashes,
            strategy=decision.strategy and records.strategy_fields(decision.strategy),
        ),
        **_present(steered=action and records.action_fields(action)),
        **(_race_data(decision.run, others) if isinstance(decision, RaceDecision) else {}),
    }


def _race_data(run: FinishedRun, others: Sequence[OtherVerdict]) -> dict[str, Any]:
    settled = [
        {
            "id": other.experiment.id,
            "category": other.experiment.category,
            "val_bpb": other.run.metrics and other.run.metrics.val_bpb,
            **_present(status=other.decision.status.value, near=other.decision.near_miss),
        }
        for other in others
        if other.settles
    ]
    named = _present(source=run.source, seed=run.seed, base=run.base, repeat=run.repeat or None)
    where = _present(gpu=run.gpu, model=run.model, slow=run.slow)
    return {"race": named | where | {"merged_from": run.merged_from}, "settled": settled}


def unmerged_data(tag: Tag, conflicts: Mapping[str, str]) -> dict[str, Any]:
    """What the journal keeps of wins that could not be merged: why not, by id."""
    return {"on": {"revision": tag.revision}, "conflicts": dict(conflicts)}


def condemned_data(
    tag: Tag, losses: Sequence[float], base: str | None, forecast: Forecast
) -> dict[str, Any]:
    """What the journal keeps of a condemned run: what was predicted, and from what."""
    on = {"revision": tag.revision}
    return {"on": on, "losses": losses, "forecast": asdict(forecast), **_present(base=base)}


def steered_data(tag: Tag, action: OperatorAction) -> dict[str, Any]:
    """What the journal keeps of an operator action that decides nothing."""
    return {"on": {"revision": tag.revision}, "steered": records.action_fields(action)}


def switched_data(tag: Tag, action: OperatorAction, seed: int | None) -> dict[str, Any]:
    """What the journal keeps of a tag that keeps by `race` from then on."""
    return steered_data(tag, action) | _present(seed=seed)


def strategy_data(
    tag: Tag, strategy: Strategy, action: OperatorAction | None = None
) -> dict[str, Any]:
    """What the journal keeps of a strategy that was set."""
    return {
        "on": {"revision": tag.revision},
        "strategy": records.strategy_fields(strategy),
        **_present(steered=action and records.action_fields(action)),
    }


def _present(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def journal_entry_from(entry_id: str, stored: records.Fields) -> JournalEntry:
    """An entry of the journal, by a parser four times as fast as `json`: histories are long."""
    data, at = from_json(stored["data"]), stored["at"]
    # Only Redis knew these when the entry was made.
    if stored["kind"] == "setup":
        data["settings"] = {"created": at, "revision": "0"} | data["settings"]
    if "strategy" in data:
        data["strategy"] = {"updated": at} | data["strategy"]
    return JournalEntry(
        id=entry_id,
        kind=stored["kind"],
        experiment_id=stored["id"],
        at_us=int(at),
        data=data,
        text=stored["data"],
        seal=stored.get("seal"),
    )


def step_from(entry: JournalEntry) -> Step:
    """An entry as the value that a replay takes."""
    data = entry.data
    if entry.kind == "setup":
        settings = data["settings"]
        return SetUp(
            near_miss_threshold=float(settings["threshold"]),
            max_consecutive_crashes=int(settings["max_crashes"]),
            keep_rule=settings.get("keep_rule", "greedy"),
            early_stop="early_stop" in settings,
            strategy=_undated_strategy(data["strategy"]),
        )
    on = data["on"]
    action = records.action_from(data["steered"]) if "steered" in data else None
    if entry.kind == "steered":
        assert action is not None  # noqa: S101 - it is nothing else
        if action.kind == "race":
            return Switched(on["revision"], entry.at_us, action, data.get("seed"))
        return Steered(on["revision"], entry.at_us, action)
    if entry.kind == "strategy":
        return Chosen(on["revision"], entry.at_us, _undated_strategy(data["strategy"]), action)
    if entry.kind == "unmerged":
        return Unmerged(on["revision"], entry.at_us, data["conflicts"])
    if entry.kind == "condemned":
        forecast = Forecast(**data["forecast"])
        return Condemned(
            on["revision"],
            entry.at_us,
            entry.experiment_id,
            tuple(data["losses"]),
            forecast,
            data.get("base"),
        )
    reported, decided = data["outcome"], data["decision"]
    metrics = None
    if "val_bpb" in reported:
        metrics = Metrics(reported["val_bpb"], training_seconds=reported.get("training_seconds"))
    strategy = decided.get("strategy")
    result = RunResult(
        reported["status"],
        metrics=metrics,
        verified_bpb=reported.get("verified_bpb"),
        reason=reported.get("reason"),
        losses=tuple(reported.get("losses", ())),
        saved_seconds=reported.get("saved_seconds"),
    )
    return Decided(
        experiment_id=entry.experiment_id,
        at_us=entry.at_us,
        category=data["category"],
        result=result,
        revision=on["revision"],
        best=on.get("best"),
        best_id=on.get("best_id"),
        streak=on["streak"],
        decision=Decision(
            status=Status(decided["status"]),
            near_miss=decided.get("near"),
            consecutive_crashes=decided["streak"],
            strategy=strategy and _undated_strategy(strategy),
        ),
        action=action,
        race_run=_race_run(data["race"], result) if "race" in data else None,
        settled=tuple(
            Settled(one["id"], one["category"], Status(one["status"]), one.get("near"))
            for one in data.get("settled", ())
        ),
    )


def _undated_strategy(stored: records.Fields) -> Strategy:
    """A strategy as the rules make it: the store adds the time."""
    return records.strategy_from({**stored, "updated": "0"})


def _race_run(stored: Mapping[str, Any], result: RunResult) -> FinishedRun:
    return FinishedRun(
        source=stored["source"],
        seed=stored["seed"],
        value=result.metrics.val_bpb if result.kind == "completed" and result.metrics else None,
        base=stored.get("base"),
        repeat=stored.get("repeat", False),
        merged_from=tuple(stored["merged_from"]),
        ending=ending(result),
        gpu=stored.get("gpu"),
        model=stored.get("model"),
        slow=stored.get("slow"),
    )
