"""The domain's frozen values from the fields that Redis keeps, and those fields from the values.

Each value has one constructor here. Redis holds text; an absent metric means None, never zero.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from orchestrator.callers import Token
from orchestrator.decisions import Decision, EarlyStops, RunResult, Snapshot, Workload
from orchestrator.domain import (
    Attempt,
    Counts,
    Experiment,
    Forecast,
    LedgerEntry,
    NewExperiment,
    Note,
    OperatorAction,
    OperatorHold,
    Run,
    Status,
    Strategy,
    Tag,
)
from orchestrator.errors import StoreBroken
from orchestrator.gpus import Gpu

Fields = Mapping[str, str]
T = TypeVar("T")

# Validation turns text into numbers, enums and flags, by the types that domain.py declares.
_ATTEMPT, _EXPERIMENT, _GPU = TypeAdapter(Attempt), TypeAdapter(Experiment), TypeAdapter(Gpu)
_HOLD, _LEDGER_ENTRY, _NOTE = TypeAdapter(OperatorHold), TypeAdapter(LedgerEntry), TypeAdapter(Note)
_RUN, _STRATEGY, _TAG = TypeAdapter(Run), TypeAdapter(Strategy), TypeAdapter(Tag)
_TOKEN, _FORECAST, _STOPS = TypeAdapter(Token), TypeAdapter(Forecast), TypeAdapter(EarlyStops)

# Where Redis has another name for a field than the domain.
_NAMES = {
    "at": "at_us", "best_at": "best_us", "best_commit": "best_commit_sha",
    "best_id": "best_experiment_id", "budget": "time_budget_seconds", "claimed": "claimed_us",
    "created": "created_us", "ended": "ended_us", "expires": "expires_us",
    "finished": "finished_us", "health_at": "health_us", "heartbeat": "heartbeat_us",
    "hold": "held_by", "last_created": "last_created_us", "last_decided": "last_decided_us",
    "max_crashes": "max_consecutive_crashes",
    "measured": "measured_us", "prepare": "prepare_sha256", "profile": "platform",
    "registered": "registered_us", "source": "source_sha256", "started": "started_us",
    "streak": "consecutive_crashes", "threshold": "near_miss_threshold", "updated": "updated_us",
    "verdict": "verdict_json",
}  # fmt: skip


def _named(stored: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """Stored fields under the domain's names; `others` are computed, or come from elsewhere."""
    return {_NAMES.get(name, name): value for name, value in stored.items()} | others


def _read(kind: TypeAdapter[T], stored: Mapping[str, Any]) -> T:
    """Raises `StoreBroken` for what this version does not write."""
    try:
        return kind.validate_python(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreBroken(f"A record in Redis cannot be read: {where}: {first['msg']}.") from error


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
            "keep_rule": None if tag.keep_rule == "greedy" else tag.keep_rule,
            "gpu_model": tag.gpu_model,
            "mix_models": int(tag.mix_models) or None,
            "early_stop": 1 if tag.early_stop else None,
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


def experiment_from(experiment_id: str, tag: str, stored: Fields) -> Experiment:
    return _read(_EXPERIMENT, _named(stored, id=experiment_id, tag=tag))


def run_from(experiment_id: str, stored: Fields) -> Run:
    fields = {"seed": "42", "priority": "0", **stored}
    return _read(
        _RUN,
        _named(
            fields,
            experiment_id=experiment_id,
            metrics=stored if "val_bpb" in stored else None,
            environment={n[4:]: value for n, value in stored.items() if n.startswith("env_")},
            warnings=json.loads(stored.get("warnings", "[]")),
            forecast=forecast_from(stored["forecast"]) if "forecast" in stored else None,
        ),
    )


def forecast_from(stored: str) -> Forecast:
    return _FORECAST.validate_json(stored)


def stops_from(stored: str | None) -> EarlyStops:
    return EarlyStops() if stored is None else _STOPS.validate_json(stored)


def stops_text(stops: EarlyStops) -> str:
    return _STOPS.dump_json(stops).decode()


def attempt_from(stored: str) -> Attempt:
    value = json.loads(stored)
    return _read(_ATTEMPT, _named(value, ending=value.get("outcome")))


def strategy_from(stored: Fields) -> Strategy:
    return _read(_STRATEGY, _named(stored))


def tag_from(stored: Fields) -> Tag:
    pause = None
    if "paused" in stored:
        pause = OperatorHold(stored["paused_by"], stored["paused_reason"], int(stored["paused"]))
    return _read(_TAG, _named(stored, pause=pause))


def hold_from(stored: str) -> OperatorHold:
    return _read(_HOLD, _named(json.loads(stored)))


def note_from(note_id: str, stored: str) -> Note:
    return _read(_NOTE, _named(json.loads(stored), id=note_id))


def notes_from(stored: Fields) -> list[Note]:
    """Notes, the newest first: a note's id ends with the revision at which it was left."""
    notes = [note_from(note_id, text) for note_id, text in stored.items()]
    return sorted(notes, key=lambda note: int(note.id.removeprefix("note-")), reverse=True)


def ledger_entry_from(entry_id: str, stored: Fields) -> LedgerEntry:
    return _read(
        _LEDGER_ENTRY,
        _named(
            stored,
            id=entry_id,
            action=action_from(stored),
            effect=stored["outcome"],
            revision=stored["revision"] or None,
        ),
    )


def token_fields(token: Token) -> dict[str, str]:
    return {"role": token.role, "tags": " ".join(token.tags), "sha256": token.sha256}


def token_from(label: str, stored: str) -> Token:
    value = json.loads(stored)
    return _read(_TOKEN, _named(value, label=label, tags=value["tags"].split()))


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
        race=reply.get("race"),
        follow_up="follows" in reply,
        stops=stops_from(reply.get("stops")),
        workload=workload_from(reply["workload"]) if "workload" in reply else None,
    )


def workload_from(reply: Mapping[str, Any]) -> Workload:
    started = reply["running"] or ()  # an empty Lua table encodes as {}
    return Workload(
        started={name: int(seed) for name, seed in started},
        follow=reply["follow"],
        ideas=reply["ideas"],
        idle=reply["idle"],
        gpus=reply["gpus"],
        quiet_seconds=reply["quiet"],
    )


def gpu_from(gpu_id: str, stored: Fields) -> Gpu:
    lease = stored.get("lease")
    return _read(
        _GPU,
        _named(
            stored,
            id=gpu_id,
            name=stored.get("name") or gpu_id,
            quarantined="quarantined" in stored,
            draining="draining" in stored,
            drain=hold_from(stored["drained"]) if "drained" in stored else None,
            lease_experiment_id=lease.split()[0] if lease else None,
            health=json.loads(stored.get("health", "{}")),
        ),
    )
