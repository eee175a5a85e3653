"""Builds wire models from domain values. No decisions, no storage.

A model ignores names that it does not have. So a model whose fields have the names of a value is
built from `vars(value)`, plus what differs.
"""

import math
from datetime import datetime, timezone
from typing import Any

from pydantic import TypeAdapter

from orchestrator import callers, decisions, domain, gpus, schemas
from orchestrator.domain import State, Status, rfc3339
from orchestrator.rules import early_stop, machines, sanitize
from orchestrator.rules.noise import COVERAGE
from orchestrator.rules.race.beliefs import counted
from orchestrator.rules.race.state import State as RaceState
from orchestrator.store.reads import Detail, Entry, Keep

HYPOTHESIS_BYTES, DIFF_SUMMARY_BYTES = 300, 200
COMPLETED = (Status.KEEP, Status.DISCARD, Status.CANDIDATE, Status.REPEAT)
_UNKNOWN_METRICS: dict[str, None] = dict.fromkeys(vars(domain.Metrics(val_bpb=0.0)))
_VERDICT: TypeAdapter[schemas.AnyVerdict] = TypeAdapter(schemas.AnyVerdict)


def microseconds(text: str) -> int:
    """The moment that RFC 3339 text names. Raises ValueError."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return int(moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp() * 1e6)


def _time(microseconds: int | None) -> str | None:
    return None if microseconds is None else rfc3339(microseconds)


def tag_info(tag: domain.Tag, counts: domain.Counts) -> schemas.TagInfo:
    return schemas.TagInfo.model_validate(
        vars(tag)
        | {
            "branch": domain.branch_of(tag.name),
            "profile": tag.profile,
            "created_at": rfc3339(tag.created_us),
            "total_experiments": counts.queued
            + counts.running
            + counts.candidate
            + counts.finished,
            "kept_experiments": counts.keep,
            "paused": tag.pause is not None,
            "pause": operator_hold(tag.pause),
        }
    )


def fields_of(entry: Entry) -> dict[str, Any]:
    """An experiment and its run as one flat row; unknown metrics are None."""
    experiment, run = entry.experiment, entry.run
    return {
        **vars(experiment),
        **vars(run),
        **(vars(run.metrics) if run.metrics else _UNKNOWN_METRICS),
        "status": run.status.value,
        "stopped_early": run.stopped_early,
        "predicted_val_bpb": run.forecast and run.forecast.val_bpb,
        "predicted_sd": run.forecast and run.forecast.sd,
        "best_val_bpb_before": run.best_before,
        "created_at": rfc3339(experiment.created_us),
        "started_at": _time(run.started_us),
        # The moment of its verdict, for which a measured run still waits.
        "finished_at": _time(None if run.state is State.MEASURED else run.finished_us),
    }


def record(entry: Entry) -> schemas.Record:
    """The upstream form: an unknown metric is 0."""
    fields = fields_of(entry)
    zeros = {name: fields[name] or 0 for name in _UNKNOWN_METRICS}
    return schemas.Record.model_validate(fields | zeros)


def detail(
    found: Detail, curve: list[schemas.CurvePoint], blocked: str | None = None
) -> schemas.ExperimentDetail:
    run = found.entry.run
    leased, lease = run.state in (State.LEASED, State.RUNNING), None
    if leased and found.renewed_us is not None:
        lease = vars(run) | {"renewed_at": rfc3339(found.renewed_us)}
    attempts = [
        vars(attempt)
        | {
            "claimed_at": rfc3339(attempt.claimed_us),
            "ended_at": _time(attempt.ended_us),
            "outcome": attempt.ending,
        }
        for attempt in found.attempts
    ]
    return schemas.ExperimentDetail.model_validate(
        fields_of(found.entry)
        | {
            "position": found.position,
            "blocked": blocked,
            "merged_from": (found.entry.experiment.merged_from or "").split(),
            "environment": vars(run.environment),
            "verdict": stored_verdict(run),
            "so_far": _said(run, State.MEASURED),
            "attempts": attempts,
            "lease": lease,
            "stopping": run.stop if leased else None,
            "curve": curve,
        }
    )


def export_row(entry: Entry) -> schemas.ExportRow:
    fields = fields_of(entry) | vars(entry.run.environment) | {"attempts": entry.run.epoch}
    return schemas.ExportRow.model_validate(fields)


def tried(entry: Entry, best_val_bpb: float | None) -> schemas.Tried:
    """An experiment in short, its texts sanitized."""
    experiment, run = entry.experiment, entry.run
    val_bpb = run.metrics.val_bpb if run.metrics else None
    behind = None if val_bpb is None or best_val_bpb is None else round(val_bpb - best_val_bpb, 7)
    return schemas.Tried(
        experiment_id=experiment.id,
        status=run.status.value,
        category=sanitize.line(experiment.category, 64),
        val_bpb=val_bpb,
        behind_best=behind,
        hypothesis=sanitize.line(experiment.hypothesis, HYPOTHESIS_BYTES),
        diff_summary=sanitize.line(experiment.diff_summary, DIFF_SUMMARY_BYTES),
    )


def stored_verdict(run: domain.Run) -> schemas.AnyVerdict | None:
    """The verdict on a decided run."""
    return _said(run, State.DECIDED)


def _said(run: domain.Run, state: State) -> schemas.AnyVerdict | None:
    if run.state is not state or run.verdict_json is None:
        return None
    return verdict_from(run.verdict_json)


def verdict_from(text: str) -> schemas.AnyVerdict:
    return _VERDICT.validate_json(text)


def verdict(
    experiment_id: str, result: decisions.RunResult, decision: decisions.Decision
) -> schemas.AnyVerdict:
    """The answer to the report of `result`."""
    if decision.status in COMPLETED and result.metrics is not None:
        best = result.metrics.val_bpb if decision.improved else decision.best_before
        if decision.best is not None:
            best = decision.best.val_bpb
        return schemas.Verdict(
            experiment_id=experiment_id,
            status=decision.status.value,
            val_bpb=result.metrics.val_bpb,
            improved=decision.improved,
            delta=decision.delta,
            best_val_bpb=result.metrics.val_bpb if best is None else best,
            action="keep_commit" if decision.improved else "git_reset",
            verified=result.verified_bpb is not None,
            **_ruling(decision),
        )
    if result.kind == "stopped" and result.forecast is not None:
        forecast = result.forecast
        return schemas.StoppedVerdict(
            experiment_id=experiment_id,
            status="discard",
            stopped_early=True,
            predicted_val_bpb=forecast.val_bpb,
            predicted_sd=forecast.sd,
            probability=forecast.probability,
            improved=False,
            best_val_bpb=forecast.champion,
            action="git_reset",
            why=early_stop.why(forecast),
        )
    return schemas.CrashVerdict(
        experiment_id=experiment_id,
        status=decision.status.value,
        consecutive_crashes=decision.consecutive_crashes,
        should_abort=decision.should_abort,
        action="git_reset",
        reason=result.reason,
    )


def _ruling(decision: decisions.Decision) -> dict[str, Any]:
    """What a keep rule other than `greedy` adds to a verdict."""
    said: dict[str, Any] = {"why": decision.why}
    ruling = decision.ruling
    if ruling is None:
        return said
    kept = decision.status is Status.KEEP and decision.improved
    said |= {name: getattr(ruling, name) for name in ("sigma", "probability", "runs")}
    if kept:
        said |= (
            {"confirmed": True} if ruling.confirmed else {"confirmed": False, "provisional": True}
        )
    return said


def estimate(race: RaceState) -> schemas.Estimate:
    champion = race.champions[-1]
    mean, variance = champion.belief
    around = COVERAGE * math.sqrt(variance)
    return schemas.Estimate(
        val_bpb=mean,
        low=mean - around,
        high=mean + around,
        readings=counted(race.seen(champion.source)),
        confirmed=champion.confirmed,
    )


def strategy(value: domain.Strategy) -> schemas.Strategy:
    return schemas.Strategy(**vars(value), updated_at=rfc3339(value.updated_us))


def worker(
    gpu: gpus.Gpu,
    now_us: int,
    offline_seconds: float,
    waiting: machines.Waiting | None = None,
) -> schemas.Worker:
    status = gpu.status(now_us, offline_seconds)
    return schemas.Worker.model_validate(
        vars(gpu)
        | {
            "profile": gpu.profile,
            "status": status,
            "passed_over": waiting.passed_over(gpu) if waiting and status == "idle" else None,
            "current_experiment_id": gpu.lease_experiment_id or gpu.held_by,
            "registered_at": rfc3339(gpu.registered_us),
            "last_heartbeat": rfc3339(gpu.heartbeat_us),
            "health": gpu.health or None,
            "drain": operator_hold(gpu.drain),
        }
    )


def progression(keep: Keep) -> schemas.ProgressionPoint:
    return schemas.ProgressionPoint(
        **vars(keep), id=keep.experiment_id, at=rfc3339(keep.decided_us)
    )


def related(entry: Entry) -> schemas.Related:
    return schemas.Related.model_validate(fields_of(entry))


def operator_hold(value: domain.OperatorHold | None) -> schemas.OperatorHold | None:
    if value is None:
        return None
    return schemas.OperatorHold(**vars(value), at=rfc3339(value.at_us))


def pause_answer(tag: domain.Tag) -> schemas.PauseAnswer:
    paused = tag.pause is not None
    return schemas.PauseAnswer(tag=tag.name, paused=paused, pause=operator_hold(tag.pause))


def note(value: domain.Note) -> schemas.Note:
    return schemas.Note(**vars(value), at=rfc3339(value.at_us))


def ledger_entry(entry: domain.LedgerEntry) -> schemas.LedgerEntry:
    action = entry.action
    return schemas.LedgerEntry(
        id=entry.id,
        at=rfc3339(entry.at_us),
        by=action.by,
        actor=action.actor or None,
        action=action.kind,
        tag=entry.tag or None,
        target=action.target or None,
        reason=action.reason,
        outcome=entry.effect,
    )


def token(value: callers.Token) -> schemas.Token:
    return schemas.Token(
        label=value.label,
        role=value.role,
        tags=list(value.tags) or None,
        created_at=rfc3339(value.created_us),
        expires_at=_time(value.expires_us),
    )
