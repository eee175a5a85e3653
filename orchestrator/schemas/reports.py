"""Summary, results table, difference, tags."""

from orchestrator.schemas.base import Answer, ExperimentId, Mode, Request
from orchestrator.schemas.experiments import TagInfo
from orchestrator.schemas.steering import Halt


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
    paused: bool = False
    pause: Halt | None = None


class TsvAnswer(Answer):
    tsv: str
    count: int


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


class BriefAnswer(Answer):
    """`text` is markdown for an agent whose context was lost."""

    tag: str
    best_experiment_id: str | None
    best_val_bpb: float | None
    running: int
    queued: int
    paused: bool
    text: str
