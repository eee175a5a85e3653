"""Turns domain values into wire models. No decisions, no storage."""

from dataclasses import asdict
from datetime import datetime, timezone

from pydantic import TypeAdapter

from orchestrator import schemas
from orchestrator.domain import (
    Counts,
    Decision,
    Gpu,
    LedgerEntry,
    Metrics,
    Note,
    OperatorHold,
    Outcome,
    Run,
    State,
    Status,
    Strategy,
    Tag,
    branch_of,
    rfc3339,
)
from orchestrator.rules import sanitize
from orchestrator.rules.deadends import DeadEnd
from orchestrator.rules.noise import Noise
from orchestrator.store.reads import Detail, Entry, Keep

HYPOTHESIS_BYTES, DIFF_SUMMARY_BYTES = 300, 200
NO_METRICS = Metrics(val_bpb=0.0)
_VERDICT: TypeAdapter[schemas.AnyVerdict] = TypeAdapter(schemas.AnyVerdict)


def microseconds(text: str) -> int:
    """The moment that RFC 3339 text names; raises ValueError."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return int(moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp() * 1e6)


def _time(microseconds: int | None) -> str | None:
    return None if microseconds is None else rfc3339(microseconds)


def tag_info(tag: Tag, counts: Counts) -> schemas.TagInfo:
    return schemas.TagInfo(
        name=tag.name,
        branch=branch_of(tag.name),
        created_at=rfc3339(tag.created_us),
        time_budget_seconds=tag.time_budget_seconds,
        near_miss_threshold=tag.near_miss_threshold,
        max_consecutive_crashes=tag.max_consecutive_crashes,
        best_val_bpb=tag.best_val_bpb,
        best_experiment_id=tag.best_experiment_id,
        total_experiments=counts.queued + counts.running + counts.finished,
        kept_experiments=counts.keep,
        profile=tag.profile,
        prepare_sha256=tag.prepare_sha256,
        paused=tag.pause is not None,
        pause=halt(tag.pause),
    )


def record(entry: Entry) -> schemas.Record:
    """The upstream form: a metric that is not known reads 0."""
    experiment, run = entry.experiment, entry.run
    metrics = {name: value or 0 for name, value in asdict(run.metrics or NO_METRICS).items()}
    return schemas.Record(
        id=experiment.id,
        tag=experiment.tag,
        parent_id=experiment.parent_id,
        commit_sha=experiment.commit_sha,
        description=experiment.description,
        hypothesis=experiment.hypothesis,
        category=experiment.category,
        status=run.status.value,
        gpu_id=run.gpu_id,
        started_at=_time(run.started_us),
        finished_at=_time(run.finished_us),
        diff_summary=experiment.diff_summary,
        error=run.error,
        **metrics,
    )


def detail(found: Detail, curve: list[schemas.CurvePoint]) -> schemas.ExperimentDetail:
    experiment, run = found.entry.experiment, found.entry.run
    metrics = asdict(run.metrics) if run.metrics else dict.fromkeys(asdict(NO_METRICS))
    return schemas.ExperimentDetail(
        id=experiment.id,
        tag=experiment.tag,
        status=run.status.value,
        parent_id=experiment.parent_id,
        commit_sha=experiment.commit_sha,
        description=experiment.description,
        hypothesis=experiment.hypothesis,
        category=experiment.category,
        diff_summary=experiment.diff_summary,
        gpu_id=run.gpu_id,
        created_at=rfc3339(experiment.created_us),
        started_at=_time(run.started_us),
        finished_at=_time(run.finished_us),
        error=run.error,
        reason=run.reason,
        seed=run.seed,
        priority=run.priority,
        position=found.position,
        source_sha256=experiment.source_sha256,
        prepare_sha256=run.prepare_sha256,
        time_budget_seconds=run.time_budget_seconds,
        best_val_bpb_before=run.best_before,
        warnings=list(run.warnings),
        environment=schemas.Environment(**asdict(run.environment)),
        verdict=stored_verdict(run),
        attempts=[
            schemas.Attempt(
                epoch=attempt.epoch,
                gpu_id=attempt.gpu_id,
                claimed_at=rfc3339(attempt.claimed_us),
                ended_at=_time(attempt.ended_us),
                outcome=attempt.outcome,
            )
            for attempt in found.attempts
        ],
        lease=lease(found),
        stopping=run.stop if run.state in (State.LEASED, State.RUNNING) else None,
        repeat_of=experiment.repeat_of,
        curve=curve,
        **metrics,
    )


def export_row(entry: Entry) -> schemas.ExportRow:
    experiment, run = entry.experiment, entry.run
    metrics = asdict(run.metrics) if run.metrics else dict.fromkeys(asdict(NO_METRICS))
    return schemas.ExportRow(
        id=experiment.id,
        tag=experiment.tag,
        status=run.status.value,
        reason=run.reason,
        error=run.error,
        best_val_bpb_before=run.best_before,
        category=experiment.category,
        hypothesis=experiment.hypothesis,
        description=experiment.description,
        diff_summary=experiment.diff_summary,
        parent_id=experiment.parent_id,
        commit_sha=experiment.commit_sha,
        source_sha256=experiment.source_sha256,
        prepare_sha256=run.prepare_sha256,
        seed=run.seed,
        priority=run.priority,
        time_budget_seconds=run.time_budget_seconds,
        created_at=rfc3339(experiment.created_us),
        started_at=_time(run.started_us),
        finished_at=_time(run.finished_us),
        attempts=run.epoch,
        gpu_id=run.gpu_id,
        warnings=list(run.warnings),
        **asdict(run.environment),
        **metrics,
    )


def tried(entry: Entry, best_val_bpb: float | None) -> schemas.Tried:
    """An experiment in short, safe to read."""
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


def dead_end(value: DeadEnd) -> schemas.DeadEnd:
    return schemas.DeadEnd(
        kind=value.kind,
        text=value.text,
        tried=value.tried,
        category=value.category,
        experiment_ids=list(value.experiment_ids),
        untrusted_cause=value.cause,
    )


def lease(found: Detail) -> schemas.Lease | None:
    run = found.entry.run
    if run.state not in (State.LEASED, State.RUNNING) or found.renewed_us is None:
        return None
    return schemas.Lease(
        epoch=run.epoch, gpu_id=run.gpu_id or "", renewed_at=rfc3339(found.renewed_us)
    )


def stored_verdict(run: Run) -> schemas.AnyVerdict | None:
    """The verdict as it was first given."""
    return None if run.verdict_json is None else verdict_from(run.verdict_json)


def verdict_from(text: str) -> schemas.AnyVerdict:
    return _VERDICT.validate_json(text)


def verdict(experiment_id: str, outcome: Outcome, decision: Decision) -> schemas.AnyVerdict:
    """What the reporter of `outcome` is told."""
    if decision.status in (Status.KEEP, Status.DISCARD) and outcome.metrics is not None:
        best = outcome.metrics.val_bpb if decision.improved else decision.best_before
        return schemas.Verdict(
            experiment_id=experiment_id,
            status=decision.status.value,
            val_bpb=outcome.metrics.val_bpb,
            improved=decision.improved,
            delta=decision.delta,
            best_val_bpb=outcome.metrics.val_bpb if best is None else best,
            action="keep_commit" if decision.improved else "git_reset",
        )
    return schemas.CrashVerdict(
        experiment_id=experiment_id,
        status=decision.status.value,
        consecutive_crashes=decision.consecutive_crashes,
        should_abort=decision.should_abort,
        action="git_reset",
        reason=outcome.reason,
    )


def strategy(value: Strategy) -> schemas.Strategy:
    return schemas.Strategy(
        mode=value.mode,
        explore_ratio=value.explore_ratio,
        temperature=value.temperature,
        updated_at=rfc3339(value.updated_us),
        reason=value.reason,
        pinned=value.pinned,
    )


def worker(gpu: Gpu, now_us: int, offline_seconds: float) -> schemas.Worker:
    return schemas.Worker(
        id=gpu.id,
        name=gpu.name,
        gpu_index=gpu.gpu_index,
        gpu_name=gpu.gpu_name,
        vram_mb=gpu.vram_mb,
        status=gpu.status(now_us, offline_seconds),
        current_experiment_id=gpu.lease_experiment_id or gpu.held_by,
        registered_at=rfc3339(gpu.registered_us),
        last_heartbeat=rfc3339(gpu.heartbeat_us),
        host=gpu.host,
        profile=gpu.profile,
        problem=gpu.problem,
        health=schemas.Health(**gpu.health) if gpu.health else None,
        drain=halt(gpu.drain),
    )


def progression(keep: Keep) -> schemas.ProgressionPoint:
    return schemas.ProgressionPoint(
        id=keep.experiment_id,
        val_bpb=keep.val_bpb,
        description=keep.description,
        category=keep.category,
        at=rfc3339(keep.decided_us),
    )


def related(entry: Entry) -> schemas.Related:
    experiment, run = entry.experiment, entry.run
    return schemas.Related(
        id=experiment.id,
        status=run.status.value,
        val_bpb=run.metrics.val_bpb if run.metrics else None,
        hypothesis=experiment.hypothesis,
        category=experiment.category,
        source_sha256=experiment.source_sha256,
        finished_at=_time(run.finished_us),
    )


def noise(value: Noise) -> schemas.Noise:
    return schemas.Noise(sd=value.sd, band=value.band, runs=value.runs, sources=value.sources)


def halt(value: OperatorHold | None) -> schemas.OperatorHold | None:
    if value is None:
        return None
    return schemas.OperatorHold(by=value.by, reason=value.reason, at=rfc3339(value.at_us))


def pause_answer(tag: Tag) -> schemas.PauseAnswer:
    return schemas.PauseAnswer(tag=tag.name, paused=tag.pause is not None, pause=halt(tag.pause))


def note(value: Note) -> schemas.Note:
    return schemas.Note(id=value.id, text=value.text, by=value.by, at=rfc3339(value.at_us))


def ledger_entry(entry: LedgerEntry) -> schemas.LedgerEntry:
    return schemas.LedgerEntry(
        id=entry.id,
        at=rfc3339(entry.at_us),
        by=entry.act.by,
        action=entry.act.action,
        tag=entry.tag or None,
        target=entry.act.target or None,
        reason=entry.act.reason,
        outcome=entry.outcome,
    )
