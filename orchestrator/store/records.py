"""The domain's frozen values from the fields that Redis keeps, and those fields from the values.

Each value has one constructor here. Redis holds text; an absent metric means None, never zero.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast, get_type_hints

from pydantic_core import from_json

from orchestrator.domain import (
    Attempt,
    Counts,
    Decision,
    Environment,
    Experiment,
    Gpu,
    JournalEntry,
    LedgerEntry,
    Metrics,
    Mode,
    NewExperiment,
    Note,
    OperatorAction,
    OperatorHold,
    Run,
    RunResult,
    Snapshot,
    State,
    Status,
    Stop,
    Strategy,
    StrategyChoice,
    Tag,
)
from orchestrator.rules.replay import Chosen, Decided, SetUp, Steered, Step

Fields = Mapping[str, str]
T = TypeVar("T", int, float)

_METRICS = {
    name: int if hint == int | None else float for name, hint in get_type_hints(Metrics).items()
}


def _number(stored: Fields, name: str, kind: type[T]) -> T | None:
    value = stored.get(name)
    return None if value is None else kind(value)


def text_fields(values: Mapping[str, object]) -> dict[str, str]:
    """Values as Redis keeps them; None is left out. `repr` of a float loses nothing."""
    return {
        name: repr(value) if isinstance(value, float) else str(value)
        for name, value in values.items()
        if value is not None
    }


def metric_fields(metrics: Metrics) -> dict[str, str]:
    return text_fields(vars(metrics))


def environment_fields(environment: Environment) -> dict[str, str]:
    return {f"env_{n}": v for n, v in text_fields(vars(environment)).items()}


def result_fields(result: RunResult, decision: Decision) -> dict[str, str]:
    """What a decision writes into its run, beside the state and the verdict."""
    return {
        **(metric_fields(result.metrics) if result.metrics else {}),
        **environment_fields(result.environment),
        **text_fields(
            {
                "best_before": decision.best_before,
                "error": result.error or None,
                "reason": result.reason,
                "warnings": json.dumps(result.warnings) if result.warnings else None,
            }
        ),
    }


def setting_fields(tag: Tag) -> dict[str, str]:
    return text_fields(
        {
            "name": tag.name,
            "budget": tag.time_budget_seconds,
            "threshold": tag.near_miss_threshold,
            "max_crashes": tag.max_consecutive_crashes,
            "prepare": tag.prepare_sha256,
        }
    )


def experiment_fields(experiment: NewExperiment) -> dict[str, str]:
    named = {f.name: getattr(experiment, f.name) for f in fields(NewExperiment)}
    return text_fields({"source": named.pop("source_sha256"), **named})


def strategy_fields(strategy: Strategy) -> dict[str, str]:
    return choice_fields(
        StrategyChoice(
            mode=strategy.mode,
            explore_ratio=strategy.explore_ratio,
            reason=strategy.reason,
            pinned=strategy.pinned,
            temperature=strategy.temperature,
        )
    )


def choice_fields(choice: StrategyChoice) -> dict[str, str]:
    return text_fields(vars(choice) | {"pinned": int(choice.pinned)})


def action_fields(action: OperatorAction) -> dict[str, str]:
    named = dict(vars(action))
    return {"action": named.pop("kind"), **named}


def action_from(stored: Fields) -> OperatorAction:
    return OperatorAction(stored["action"], stored["by"], stored["reason"], stored["target"])


def journal_data(
    snapshot: Snapshot,
    result: RunResult,
    decision: Decision,
    epoch: int,
    action: OperatorAction | None = None,
) -> dict[str, Any]:
    """What the journal keeps of a decision: who reported (a lease's epoch, 0 without one), the run
    result (as `outcome`), what the decision rests on, what it is, and which operator action led to
    it, if one did. Names that have no value are left out."""
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
            strategy=decision.strategy and strategy_fields(decision.strategy),
        ),
        **_present(steered=action and action_fields(action)),
    }


def _present(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def journal_entry_from(entry_id: str, stored: Fields) -> JournalEntry:
    """An entry of the journal, by a parser four times as fast as `json`: histories are long."""
    return JournalEntry(
        id=entry_id,
        kind=stored["kind"],
        experiment_id=stored["id"],
        at_us=int(stored["at"]),
        data=from_json(stored["data"]),
    )


def step_from(entry: JournalEntry) -> Step:
    """An entry as the value that a replay takes."""
    data = entry.data
    if entry.kind == "setup":
        settings = data["settings"]
        return SetUp(
            near_miss_threshold=float(settings["threshold"]),
            max_consecutive_crashes=int(settings["max_crashes"]),
            strategy=_undated_strategy(data["strategy"]),
        )
    on = data["on"]
    action = action_from(data["steered"]) if "steered" in data else None
    if entry.kind == "steered":
        assert action is not None  # noqa: S101 - it is nothing else
        return Steered(on["revision"], entry.at_us, action)
    if entry.kind == "strategy":
        return Chosen(on["revision"], entry.at_us, _undated_strategy(data["strategy"]), action)
    reported, decided = data["outcome"], data["decision"]
    metrics = None
    if "val_bpb" in reported:
        metrics = Metrics(reported["val_bpb"], training_seconds=reported.get("training_seconds"))
    strategy = decided.get("strategy")
    return Decided(
        experiment_id=entry.experiment_id,
        at_us=entry.at_us,
        category=data["category"],
        result=RunResult(reported["status"], metrics=metrics, reason=reported.get("reason")),
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
    )


def _undated_strategy(stored: Fields) -> Strategy:
    """A strategy as the rules make it: the store adds the time."""
    return strategy_from({**stored, "updated": "0"})


def experiment_from(experiment_id: str, tag: str, stored: Fields) -> Experiment:
    return Experiment(
        id=experiment_id,
        tag=tag,
        created_us=int(stored["created"]),
        hypothesis=stored["hypothesis"],
        description=stored["description"],
        category=stored["category"],
        commit_sha=stored["commit_sha"],
        diff_summary=stored["diff_summary"],
        parent_id=stored.get("parent_id"),
        source_sha256=stored.get("source"),
        repeat_of=stored.get("repeat_of"),
    )


def _metrics_from(stored: Fields) -> Metrics | None:
    if "val_bpb" not in stored:
        return None
    values: dict[str, Any] = {name: _number(stored, name, kind) for name, kind in _METRICS.items()}
    return Metrics(**values)


def run_from(experiment_id: str, stored: Fields) -> Run:
    return Run(
        experiment_id=experiment_id,
        state=State(stored["state"]),
        status=Status(stored["status"]),
        seed=int(stored.get("seed", 42)),
        priority=int(stored.get("priority", 0)),
        time_budget_seconds=float(stored["budget"]),
        prepare_sha256=stored.get("prepare"),
        epoch=int(stored.get("epoch", 0)),
        losses=int(stored.get("losses", 0)),
        gpu_id=stored.get("gpu_id"),
        target_gpu=stored.get("target_gpu"),
        stop=cast("Stop | None", stored.get("stop")),
        started_us=_number(stored, "started", int),
        finished_us=_number(stored, "finished", int),
        metrics=_metrics_from(stored),
        best_before=_number(stored, "best_before", float),
        error=stored.get("error"),
        reason=stored.get("reason"),
        warnings=tuple(json.loads(stored.get("warnings", "[]"))),
        environment=Environment(
            **{f.name: stored.get(f"env_{f.name}") for f in fields(Environment)}
        ),
        verdict_json=stored.get("verdict"),
    )


def attempt_from(stored: str) -> Attempt:
    value = json.loads(stored)
    return Attempt(
        epoch=value["epoch"],
        gpu_id=value["gpu_id"],
        claimed_us=int(value["claimed"]),
        ended_us=int(value["ended"]) if "ended" in value else None,
        ending=value.get("outcome"),
    )


def strategy_from(stored: Fields) -> Strategy:
    return Strategy(
        mode=cast("Mode", stored["mode"]),
        explore_ratio=float(stored["explore_ratio"]),
        temperature=float(stored["temperature"]),
        updated_us=int(stored["updated"]),
        reason=stored["reason"],
        pinned=stored["pinned"] == "1",
    )


def tag_from(stored: Fields) -> Tag:
    return Tag(
        name=stored["name"],
        created_us=int(stored["created"]),
        time_budget_seconds=float(stored["budget"]),
        near_miss_threshold=float(stored["threshold"]),
        max_consecutive_crashes=int(stored["max_crashes"]),
        revision=int(stored["revision"]),
        prepare_sha256=stored.get("prepare"),
        profile=stored.get("profile"),
        best_val_bpb=_number(stored, "best_val_bpb", float),
        best_experiment_id=stored.get("best_id"),
        best_commit_sha=stored.get("best_commit"),
        best_us=_number(stored, "best_at", int),
        consecutive_crashes=int(stored.get("streak", 0)),
        training_seconds=float(stored.get("training_seconds", 0)),
        pause=_pause_from(stored),
    )


def _pause_from(stored: Fields) -> OperatorHold | None:
    if "paused" not in stored:
        return None
    return OperatorHold(stored["paused_by"], stored["paused_reason"], int(stored["paused"]))


def hold_from(stored: str) -> OperatorHold:
    value = json.loads(stored)
    return OperatorHold(value["by"], value["reason"], int(value["at"]))


def note_from(note_id: str, stored: str) -> Note:
    value = json.loads(stored)
    return Note(note_id, value["text"], value["by"], int(value["at"]))


def notes_from(stored: Fields) -> list[Note]:
    """Notes, the newest first: a note's id ends with the revision at which it was left."""
    notes = [note_from(note_id, text) for note_id, text in stored.items()]
    return sorted(notes, key=lambda note: int(note.id.removeprefix("note-")), reverse=True)


def ledger_entry_from(entry_id: str, stored: Fields) -> LedgerEntry:
    return LedgerEntry(
        id=entry_id,
        at_us=int(stored["at"]),
        tag=stored["tag"],
        action=action_from(stored),
        effect=stored["outcome"],
        revision=int(stored["revision"]) if stored["revision"] else None,
    )


def counts_from(tag: Fields, by_status: Sequence[int]) -> Counts:
    """Counts from the hash of a tag and the sizes of its status sets, in the order of `Status`."""
    sizes = dict(zip((status.value for status in Status), by_status, strict=True))
    return Counts(**sizes, infra_lost=int(tag.get("infra_lost", 0)))


def snapshot_from(reply: Mapping[str, Any], experiment_id: str = "") -> Snapshot:
    tag = tag_from(reply["tag"])
    run = experiment = None
    if "run" in reply:
        experiment = experiment_from(experiment_id, tag.name, reply["exp"])
        run = run_from(experiment_id, reply["run"])
    return Snapshot(
        tag=tag,
        counts=Counts(**reply["counts"]),
        strategy=strategy_from(reply["strategy"]),
        near_misses=reply["near"],
        # An empty Lua table encodes as {}, which is as empty as [].
        recent=tuple(Status(status) for status in reply["recent"]),
        run=run,
        experiment=experiment,
    )


def gpu_from(gpu_id: str, stored: Fields) -> Gpu:
    lease = stored.get("lease")
    return Gpu(
        id=gpu_id,
        name=stored.get("name") or gpu_id,
        gpu_index=int(stored["gpu_index"]),
        gpu_name=stored["gpu_name"],
        vram_mb=float(stored["vram_mb"]),
        registered_us=int(stored["registered"]),
        heartbeat_us=int(stored["heartbeat"]),
        host=stored.get("host"),
        profile=stored.get("profile"),
        problem=stored.get("problem"),
        quarantined="quarantined" in stored,
        draining="draining" in stored,
        drain=hold_from(stored["drained"]) if "drained" in stored else None,
        lease_experiment_id=lease.split()[0] if lease else None,
        held_by=stored.get("hold"),
        health=json.loads(stored.get("health", "{}")),
        health_us=_number(stored, "health_at", int),
    )
