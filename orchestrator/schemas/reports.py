"""Summary, results table, export, difference, tags."""

from typing import Annotated

from pydantic import Field

from orchestrator.schemas.base import (
    Answer,
    Blocked,
    ExperimentId,
    Integer,
    Mode,
    PublicStatus,
    Request,
    TagRequest,
)
from orchestrator.schemas.experiments import ExperimentFields, TagInfo
from orchestrator.schemas.steering import OperatorHold


class SummaryStats(Answer):
    total: int
    kept: int
    discarded: int
    crashed: int
    running: int
    keep_rate: float
    queued: int
    timed_out: int
    cancelled: int
    infra_lost: int
    candidates: int = 0
    repeats: int = 0
    abandoned: int


class SummaryBest(Answer):
    val_bpb: float
    commit: str
    experiment_id: str


class ProgressionPoint(Answer):
    id: str
    val_bpb: float
    description: str
    category: str
    at: str


class PoolCounts(Answer):
    total: int
    idle: int
    training: int


class SummaryAnswer(Answer):
    tag: str
    branch: str
    best: SummaryBest | None
    stats: SummaryStats
    categories: dict[str, int]
    bpb_progression: list[ProgressionPoint]
    total_training_minutes: float
    strategy: Mode
    gpu_pool: PoolCounts
    # What a tag's early stop has done.
    early_stop: Annotated[str | None, Field(exclude_if=lambda text: text is None)] = None
    paused: bool = False
    pause: OperatorHold | None = None
    # Why no GPU takes the queued runs, if none does.
    blocked: Blocked = None


class TsvAnswer(Answer):
    tsv: str
    count: int


class ExportRequest(TagRequest):
    """A page of a tag's experiments in order of creation: the `limit` oldest after `after`."""

    after: ExperimentId | None = None
    status: PublicStatus | None = None
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 1000


class ExportRow(ExperimentFields):
    """One experiment as a flat row."""

    attempts: int
    gpu_id: str | None
    gpu_name: str | None
    gpu_uuid: str | None
    driver_version: str | None
    torch_version: str | None
    python_version: str | None
    profile: str | None
    validation_sha256: str | None
    data_sha256: str | None
    host: str | None
    sandbox: str | None
    warnings: list[str]


class ExportPage(Answer):
    """`total` counts all that match; `next_after` is None on the last page."""

    rows: list[ExportRow]
    total: int
    next_after: str | None


class DiffRequest(Request):
    experiment_a: ExperimentId
    experiment_b: ExperimentId


class DiffSide(Answer):
    id: str
    val_bpb: float
    description: str
    category: str
    num_params_m: float
    peak_vram_mb: float


class DiffAnswer(Answer):
    a: DiffSide
    b: DiffSide
    delta_bpb: float
    delta_params_m: float
    delta_vram_mb: float


class TagsAnswer(Answer):
    tags: list[TagInfo]
