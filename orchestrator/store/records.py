"""The domain's frozen values from the fields that Redis keeps, and those fields from the values.

Each value has one constructor here. Redis holds text; an absent metric means None, never zero.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json

from orchestrator.callers import Token
from orchestrator.domain import (
    Attempt,
    Counts,
    Decision,
    Experiment,
    Gpu,
    LedgerEntry,
    Metrics,
    NewExperiment,
    Note,
    OperatorAction,
    OperatorHold,
    Run,
    RunResult,
    Snapshot,
    Status,
    Strategy,
    Tag,
)
from orchestrator.rules.replay import Chosen, Decided, SetUp, Steered, Step
from orchestrator.rules.seals import JournalEntry

Fields = Mapping[str, str]

# Validation turns text into numbers, enums and flags, by the types that domain.py declares.
_ATTEMPT, _EXPERIMENT, _GPU = TypeAdapter(Attempt), TypeAdapter(Experiment), TypeAdapter(Gpu)
_HOLD, _LEDGER_ENTRY, _NOTE = TypeAdapter(OperatorHold), TypeAdapter(LedgerEntry), TypeAdapter(Note)
_RUN, _STRATEGY, _TAG = TypeAdapter(Run), TypeAdapter(Strategy), TypeAdapter(Tag)
_TOKEN = TypeAdapter(Token)

# Where Redis has another name for a field than the domain.
_NAMES = {
    "at": "at_us", "best_at": "best_us", "best_commit": "best_commit_sha",
    "best_id": "best_experiment_id", "budget": "time_budget_seconds", "claimed": "claimed_us",
    "created": "created_us", "ended": "ended_us", "expires": "expires_us",
    "finished": "finished_us", "health_at": "health_us", "heartbeat": "heartbeat_us",
    "hold": "held_by", "max_crashes": "max_consecutive_crashes", "prepare": "prepare_sha256",
    "profile": "platform", "registered": "registered_us", "source": "source_sha256",
    "started": "started_us", "streak": "consecutive_crashes", "threshold": "near_miss_threshold",
    "updated": "updated_us", "verdict": "verdict_json",
}  # fmt: skip


def _named(stored: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """Stored fields under the domain's names; `others` are computed, or come from elsewhere."""
    return {_NAMES.get(name, name): value for name, value in stored.items()} | others


def text_fields(values: Mapping[str, object]) -> dict[str, str]:
    """Values as Redis keeps them; None is left out. `repr` of a float loses nothing."""
    return {
        name: repr(value) if isinstance(value, float) else str(value)
        for name, value in values.items()
        if value is not None
    }


def result_fields(result: RunResult, decision: Decision) -> dict[str, str]:
    """What a decision writes into its run, beside the state and the verdict."""
    return {
        **text_fields(vars(result.metrics) if result.metrics else {}),
        **text_fields({f"env_{n}": v for n, v in vars(result.environment).items()}),
        **text_fields(
            {
                "best_before": decision.best_before,
                "error": result.error or None,
                "reason": result.reason,
                "verified_bpb": result.verified_bpb,
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
    stored = text_fields(vars(strategy) | {"pinned": int(strategy.pinned)})
    del stored["updated_us"]  # the scripts set the time
    return stored


def action_fields(action: OperatorAction) -> dict[str, str]:
    named = dict(vars(action))
    return {"action": named.pop("kind"), **named}


def action_from(stored: Fields) -> OperatorAction:
    kind, by, reason, target = (stored[n] for n in ("action", "by", "reason", "target"))
    return OperatorAction(kind, by, reason, target, stored.get("actor", ""))


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
            verified_bpb=result.verified_bpb,
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


def steered_data(tag: Tag, action: OperatorAction) -> dict[str, Any]:
    """What the journal keeps of an operator action that decides nothing."""
    return {"on": {"revision": tag.revision}, "steered": action_fields(action)}


def strategy_data(
    tag: Tag, strategy: Strategy, action: OperatorAction | None = None
) -> dict[str, Any]:
    """What the journal keeps of a strategy that was set."""
    return {
        "on": {"revision": tag.revision},
        "strategy": strategy_fields(strategy),
        **_present(steered=action and action_fields(action)),
    }


def _present(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def journal_entry_from(entry_id: str, stored: Fields) -> JournalEntry:
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
        result=RunResult(
            reported["status"],
            metrics=metrics,
            verified_bpb=reported.get("verified_bpb"),
            reason=reported.get("reason"),
        ),
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
    return _EXPERIMENT.validate_python(_named(stored, id=experiment_id, tag=tag))


def run_from(experiment_id: str, stored: Fields) -> Run:
    fields = {"seed": "42", "priority": "0", **stored}
    return _RUN.validate_python(
        _named(
            fields,
            experiment_id=experiment_id,
            metrics=stored if "val_bpb" in stored else None,
            environment={n[4:]: value for n, value in stored.items() if n.startswith("env_")},
            warnings=json.loads(stored.get("warnings", "[]")),
        )
    )


def attempt_from(stored: str) -> Attempt:
    value = json.loads(stored)
    return _ATTEMPT.validate_python(_named(value, ending=value.get("outcome")))


def strategy_from(stored: Fields) -> Strategy:
    return _STRATEGY.validate_python(_named(stored))


def tag_from(stored: Fields) -> Tag:
    pause = None
    if "paused" in stored:
        pause = OperatorHold(stored["paused_by"], stored["paused_reason"], int(stored["paused"]))
    return _TAG.validate_python(_named(stored, pause=pause))


def hold_from(stored: str) -> OperatorHold:
    return _HOLD.validate_python(_named(json.loads(stored)))


def note_from(note_id: str, stored: str) -> Note:
    return _NOTE.validate_python(_named(json.loads(stored), id=note_id))


def notes_from(stored: Fields) -> list[Note]:
    """Notes, the newest first: a note's id ends with the revision at which it was left."""
    notes = [note_from(note_id, text) for note_id, text in stored.items()]
    return sorted(notes, key=lambda note: int(note.id.removeprefix("note-")), reverse=True)


def ledger_entry_from(entry_id: str, stored: Fields) -> LedgerEntry:
    return _LEDGER_ENTRY.validate_python(
        _named(
            stored,
            id=entry_id,
            action=action_from(stored),
            effect=stored["outcome"],
            revision=stored["revision"] or None,
        )
    )


def token_fields(token: Token) -> dict[str, str]:
    return {"role": token.role, "tags": " ".join(token.tags), "sha256": token.sha256}


def token_from(label: str, stored: str) -> Token:
    value = json.loads(stored)
    return _TOKEN.validate_python(_named(value, label=label, tags=value["tags"].split()))


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
    return _GPU.validate_python(
        _named(
            stored,
            id=gpu_id,
            name=stored.get("name") or gpu_id,
            quarantined="quarantined" in stored,
            draining="draining" in stored,
            drain=hold_from(stored["drained"]) if "drained" in stored else None,
            lease_experiment_id=lease.split()[0] if lease else None,
            health=json.loads(stored.get("health", "{}")),
        )
    )
