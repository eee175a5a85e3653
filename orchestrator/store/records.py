"""Builds the domain's frozen values from what Redis keeps, and the fields Redis keeps from them.

One constructor a value. Redis holds text; an absent metric means None, never zero.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from orchestrator.domain import (
    Attempt,
    Counts,
    Environment,
    Experiment,
    Gpu,
    Metrics,
    Run,
    Snapshot,
    State,
    Status,
    Strategy,
    Tag,
)

Fields = Mapping[str, str]
T = TypeVar("T", int, float)

_INTEGER_METRICS = ("num_steps", "depth")


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
    return text_fields(asdict(metrics))


def environment_fields(environment: Environment) -> dict[str, str]:
    return {f"env_{n}": v for n, v in text_fields(asdict(environment)).items()}


def strategy_fields(strategy: Strategy) -> dict[str, str]:
    return {
        "mode": strategy.mode,
        "explore_ratio": repr(strategy.explore_ratio),
        "temperature": repr(strategy.temperature),
        "reason": strategy.reason,
        "pinned": "1" if strategy.pinned else "0",
    }


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
    )


def _metrics_from(stored: Fields) -> Metrics | None:
    if "val_bpb" not in stored:
        return None
    values: dict[str, Any] = {
        f.name: _number(stored, f.name, int if f.name in _INTEGER_METRICS else float)
        for f in fields(Metrics)
    }
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
        cancel_requested=stored.get("cancel") == "1",
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
        outcome=value.get("outcome"),
    )


def strategy_from(stored: Fields) -> Strategy:
    return Strategy(
        mode=stored["mode"],  # type: ignore[arg-type]  # written by strategy_fields only
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
    )


def snapshot_from(reply: Mapping[str, Any], experiment_id: str) -> Snapshot:
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
        lease_experiment_id=lease.split()[0] if lease else None,
        held_by=stored.get("hold"),
        health=json.loads(stored.get("health", "{}")),
        health_us=_number(stored, "health_at", int),
    )
