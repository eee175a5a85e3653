"""The overview: what happened since a moment, tags, GPUs and alerts in one answer."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from orchestrator.schemas.base import Answer, Mode, PublicStatus, Request
from orchestrator.schemas.pool import Health, Worker
from orchestrator.schemas.steering import OperatorHold


class OverviewRequest(Request):
    """`since`: the moment to report from, a day ago unless given."""

    since: Annotated[AwareDatetime | None, Field(json_schema_extra={"format": "date-time"})] = None


class Alert(Answer):
    kind: Literal[
        "gpu_offline", "gpu_quarantined", "gpu_unfit", "crash_streak", "no_keep", "queue_stuck",
        "disk_low", "store",
    ]  # fmt: skip
    severity: Literal["error", "warning"]
    subject: str
    text: str


class TagCounts(Answer):
    """All runs of a tag by status; `crash` holds time-outs too."""

    queued: int
    running: int
    finished: int
    keep: int
    discard: int
    crash: int


class SinceCounts(Answer):
    """Runs decided since the moment asked for, all of them: `whole` is always true. `gain` is
    best now - best then."""

    finished: int
    keep: int
    crash: int
    crash_rate: float
    gain: float | None
    whole: bool = True


class LastKeep(Answer):
    """`runs_ago` counts the runs finished after it, all of them: `whole` is always true."""

    experiment_id: str
    val_bpb: float
    description: str
    at: str
    runs_ago: int
    whole: bool = True


class SparkPoint(Answer):
    at: str
    val_bpb: float


class TagOverview(Answer):
    """One tag. `gain` is best - baseline (below zero is better), `per_gpu_hour` the pace of its
    newest hundred runs, `spark` its running best by time, thinned."""

    name: str
    created_at: str
    state: Literal["running", "queued", "paused", "idle"]
    pause: OperatorHold | None
    mode: Mode
    mode_reason: str
    pinned: bool
    best_val_bpb: float | None
    best_experiment_id: str | None
    baseline_val_bpb: float | None
    gain: float | None
    near_misses: int
    counts: TagCounts
    since: SinceCounts
    last_keep: LastKeep | None
    last_finished_at: str | None
    per_gpu_hour: float | None
    training_hours: float
    spark: list[SparkPoint]


class CurrentRun(Answer):
    """What a GPU trains now; `percent` and `loss` are the last point of its curve."""

    experiment_id: str
    tag: str
    hypothesis: str
    category: str
    status: PublicStatus
    started_at: str | None
    percent: float | None
    loss: float | None
    time_budget_seconds: float


class GpuOverview(Worker):
    heartbeat_age_seconds: float
    health: Health
    health_age_seconds: float | None
    run: CurrentRun | None


class OverviewAnswer(Answer):
    """`idle_gpu_hours` is how long GPUs of the pool were there and trained nothing since then."""

    now: str
    since: str
    idle_gpu_hours: float
    alerts: list[Alert]
    tags: list[TagOverview]
    gpus: list[GpuOverview]
