"""The overview page's answer: tags, GPUs and alerts, read once for all pages that ask.

Nothing is decided here: rules/activity.py counts, rules/alerts.py finds the alerts. The answer
expires by age, since progress, temperatures and silences make no events.
"""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import anyio

from orchestrator import schemas
from orchestrator.domain import rfc3339
from orchestrator.files import Files
from orchestrator.gpus import Gpu
from orchestrator.ids import tag_of
from orchestrator.rules import activity, alerts, machines
from orchestrator.rules.activity import Training
from orchestrator.services import views
from orchestrator.services.core.timing import PoolTiming
from orchestrator.services.dashboard.history import Histories, History
from orchestrator.services.dashboard.response_cache import Body
from orchestrator.store.connection import Store
from orchestrator.store.reads import Entry, TagState

# All pages that ask within this time cost one reading.
FRESH_SECONDS = 1.0
DEFAULT_SINCE_US = 86_400 * 1_000_000
PACE_RUNS = 100
SPARK_POINTS = 40

CurvePoint = Mapping[str, float]


@dataclass(frozen=True)
class Overview:
    """Everything at one moment of Redis' clock. `runs` holds what GPUs train, `points` the last
    point of each one's curve, `answers` the bodies made of it, by the moment asked for."""

    now_us: int
    tags: list[tuple[TagState, History]]
    gpus: list[Gpu]
    runs: dict[str, Entry]
    points: dict[str, CurvePoint]
    host: alerts.Host
    answers: dict[int, Body] = field(default_factory=dict)


class Overviews:
    def __init__(
        self, store: Store, files: Files, histories: Histories, timing: PoolTiming, home: Path
    ) -> None:
        self._store = store
        self._files = files
        self._histories = histories
        self._timing = timing
        self._home = home
        self._refreshing = asyncio.Lock()
        self._last: tuple[float, Overview] | None = None

    async def overview(self, since: datetime | None) -> Body:
        """`OverviewAnswer` as JSON."""
        overview = await self._fresh()
        since_us = overview.now_us - DEFAULT_SINCE_US
        if since is not None:
            since_us = min(max(0, int(since.timestamp() * 1e6)), overview.now_us)
        known = overview.answers.get(since_us)
        if known is None:
            answer = _answer(overview, since_us, self._timing.now.offline_seconds)
            known = await Body.of(answer.model_dump_json().encode())
            overview.answers[since_us] = known
        return known

    async def _fresh(self) -> Overview:
        async with self._refreshing:
            if self._last is None or anyio.current_time() - self._last[0] > FRESH_SECONDS:
                begun = anyio.current_time()  # its age counts from before it is read
                self._last = begun, await self._read()
            return self._last[1]

    async def _read(self) -> Overview:
        states = await self._store.reads.tags()
        tags = [(state, await self._histories.of(state.tag)) for state in states]
        pool = await self._store.pool.list()
        busy = [gpu.lease_experiment_id or gpu.held_by for gpu in pool.gpus]
        runs = await self._runs([experiment_id for experiment_id in busy if experiment_id])
        complaint = await self._store.reads.complaint()
        points, free = await anyio.to_thread.run_sync(self._from_disk, list(runs))
        return Overview(
            now_us=pool.now_us,
            tags=tags,
            gpus=pool.gpus,
            runs=runs,
            points=points,
            host=alerts.Host(disk_free_bytes=free, store_problem=complaint),
        )

    async def _runs(self, ids: Sequence[str]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for tag in {tag_of(experiment_id) for experiment_id in ids}:
            own = [i for i in ids if tag_of(i) == tag]
            found |= {e.experiment.id: e for e in await self._store.reads.entries(tag, own)}
        return found

    def _from_disk(self, ids: Sequence[str]) -> tuple[dict[str, CurvePoint], int]:
        """The last point of each run's curve, and the free space below the home."""
        curves = zip(ids, self._files.curves(ids), strict=True)
        points: dict[str, CurvePoint] = {each: curve[-1] for each, curve in curves if curve}
        # The home itself does not exist before the first write.
        existing = next(path for path in (self._home, *self._home.parents) if path.exists())
        return points, shutil.disk_usage(existing).free


def _answer(overview: Overview, since_us: int, offline_seconds: float) -> schemas.OverviewAnswer:
    queued = (state.tag for state, _ in overview.tags if state.waits)
    waiting = machines.Waiting(queued, overview.gpus)
    return schemas.OverviewAnswer(
        now=rfc3339(overview.now_us),
        since=rfc3339(since_us),
        idle_gpu_hours=_idle(overview, since_us),
        alerts=_alerts(overview, offline_seconds),
        tags=[_tag(state, history, since_us) for state, history in overview.tags],
        gpus=[_gpu(gpu, overview, offline_seconds, waiting) for gpu in overview.gpus],
    )


def _idle(overview: Overview, since_us: int) -> float:
    trainings = [
        Training(entry.run.gpu_id, entry.run.started_us, overview.now_us)
        for entry in overview.runs.values()
    ]
    for _, history in overview.tags:
        trainings += [done for done in history.trainings if done.ended_us >= since_us]
    return activity.idle_gpu_hours(overview.gpus, trainings, since_us)


def _alerts(overview: Overview, offline_seconds: float) -> list[schemas.Alert]:
    activities = [
        alerts.TagActivity(
            tag=state.tag,
            queued=state.counts.queued,
            running=state.counts.running,
            runs_since_keep=_runs_since_keep(history),
            last_finished_us=_last_finished_us(history),
            paused=state.tag.pause is not None,
        )
        for state, history in overview.tags
    ]
    return alerts.alerts(activities, overview.gpus, overview.host, overview.now_us, offline_seconds)


def _runs_since_keep(history: History) -> int | None:
    """Runs finished after the last keep; None before the first keep."""
    if not history.keeps:
        return None
    return len(history.series) - history.series.first_since(history.keeps[-1].decided_us + 1)


def _last_finished_us(history: History) -> int | None:
    return history.series.finished_us[-1] if len(history.series) else None


def _tag(state: TagState, history: History, since_us: int) -> schemas.TagOverview:
    tag, counts = state.tag, state.counts
    baseline = history.keeps[0].val_bpb if history.keeps else None
    last_us = _last_finished_us(history)
    return schemas.TagOverview(
        name=tag.name,
        created_at=rfc3339(tag.created_us),
        state=_state(state),
        pause=views.operator_hold(tag.pause),
        mode=state.strategy.mode,
        mode_reason=state.strategy.reason,
        pinned=state.strategy.pinned,
        best_val_bpb=tag.best_val_bpb,
        best_is_estimate=tag.keep_rule == "race",
        best_experiment_id=tag.best_experiment_id,
        baseline_val_bpb=baseline,
        gain=_difference(tag.best_val_bpb, baseline),
        near_misses=state.near_misses,
        counts=schemas.TagCounts.model_validate(
            vars(counts) | {"finished": counts.finished, "crash": counts.crash + counts.timeout}
        ),
        since=_since_counts(tag.best_val_bpb, history, since_us),
        last_keep=_last_keep(history),
        last_finished_at=None if last_us is None else rfc3339(last_us),
        per_gpu_hour=activity.per_gpu_hour(list(history.trainings)[-PACE_RUNS:]),
        training_hours=tag.training_seconds / 3600,
        spark=[
            schemas.SparkPoint(at=rfc3339(keep.decided_us), val_bpb=keep.val_bpb)
            for keep in activity.thinned(history.keeps, SPARK_POINTS)
        ],
    )


def _state(state: TagState) -> str:
    if state.tag.pause is not None:
        return "paused"
    if state.counts.running:
        return "running"
    return "queued" if state.counts.queued else "idle"


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _since_counts(best: float | None, history: History, since_us: int) -> schemas.SinceCounts:
    count = history.series.tally(history.series.first_since(since_us))
    judged = count.keep + count.discard + count.crash
    # If nothing was kept before, the gain counts from the first result.
    start = history.keep_before(since_us) or next(iter(history.keeps), None)
    return schemas.SinceCounts(
        **vars(count),
        crash_rate=count.crash / judged if judged else 0.0,
        gain=_difference(best, start.val_bpb if start else None),
    )


def _last_keep(history: History) -> schemas.LastKeep | None:
    if not history.keeps:
        return None
    keep = history.keeps[-1]
    ago = _runs_since_keep(history) or 0
    return schemas.LastKeep(**vars(keep), at=rfc3339(keep.decided_us), runs_ago=ago)


def _gpu(
    gpu: Gpu, overview: Overview, offline_seconds: float, waiting: machines.Waiting
) -> schemas.GpuOverview:
    now_us = overview.now_us
    run_id = gpu.lease_experiment_id or gpu.held_by
    entry = overview.runs.get(run_id) if run_id else None
    return schemas.GpuOverview(
        **views.worker(gpu, now_us, offline_seconds, waiting).model_dump(exclude={"health"}),
        heartbeat_age_seconds=max(0.0, (now_us - gpu.heartbeat_us) / 1e6),
        health=schemas.Health(**gpu.health),
        health_age_seconds=None if gpu.health_us is None else (now_us - gpu.health_us) / 1e6,
        run=_current(entry, overview.points.get(entry.experiment.id, {})) if entry else None,
    )


def _current(entry: Entry, point: CurvePoint) -> schemas.CurrentRun:
    progress = {"percent": point.get("percent"), "loss": point.get("loss")}
    return schemas.CurrentRun.model_validate(views.fields_of(entry) | progress)
