"""Wire models: every request and answer body of the REST contract, and nothing else.

gpu_worker speaks these too, so this module imports pydantic only. Requests refuse unknown fields
and non-finite numbers; answers to workers may grow fields, so a worker ignores what it does not
know. What a field means for the search is said in the rules, not here.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

SOURCE_LIMIT_BYTES = 1024 * 1024
BODY_LIMIT_BYTES = 256 * 1024


def _no_truth(value: object) -> object:
    """Python counts true as 1; a report that says so is a mistake."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")  # noqa: TRY004 - pydantic's way
    return value


_TAG = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _tag_name(value: str) -> str:
    if not _TAG.fullmatch(value):
        raise ValueError(
            "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit, without '..'"
        )
    return value


TagName = Annotated[
    str,
    AfterValidator(_tag_name),
    # For the description of the service, in a dialect that has no look-ahead.
    Field(
        json_schema_extra={
            "pattern": r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\.?$",
            "maxLength": 64,
        }
    ),
]
ExperimentId = Annotated[str, StringConstraints(pattern=r"^exp-[A-Za-z0-9._-]{1,100}$")]
GpuId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
CommitSha = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Category = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]
Text = Annotated[str, StringConstraints(max_length=20_000)]
RequiredText = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
Name = Annotated[str, StringConstraints(max_length=200)]
Number = Annotated[float, BeforeValidator(_no_truth), Field(allow_inf_nan=False)]
Amount = Annotated[float, BeforeValidator(_no_truth), Field(ge=0, le=2**53, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_no_truth), Field(ge=0, le=2**53)]
ValBpb = Annotated[float, BeforeValidator(_no_truth), Field(gt=0, le=1e6, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

Mode = Literal["explore", "exploit", "combine", "ablation"]
PublicStatus = Literal["queued", "running", "keep", "discard", "crash", "timeout", "cancelled"]
Action = Literal["keep_commit", "git_reset"]


class Request(BaseModel):
    """A request body: unknown fields are an error, so a misspelt name never passes silently."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Answer(BaseModel):
    """An answer body, as read by clients: fields that a newer orchestrator adds are ignored."""

    model_config = ConfigDict(extra="ignore")


# ---------------------------------------------------------------------------- experiments


class SetupRequest(Request):
    tag: TagName
    time_budget_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300
    near_miss_threshold: Amount = 0.002
    max_consecutive_crashes: Annotated[int, Field(ge=1, le=1_000_000)] = 3


class TagInfo(Answer):
    name: str
    branch: str
    created_at: str
    time_budget_seconds: float
    near_miss_threshold: float
    max_consecutive_crashes: int
    best_val_bpb: float | None
    best_experiment_id: str | None
    total_experiments: int
    kept_experiments: int
    profile: str | None
    prepare_sha256: str | None


class SetupAnswer(Answer):
    tag: TagInfo
    branch: str


class RegisterRequest(Request):
    tag: TagName
    hypothesis: Text
    description: Text
    category: Category
    commit_sha: CommitSha
    diff_summary: Text
    parent_id: ExperimentId | None = None
    gpu_id: GpuId | None = None


class RegisterAnswer(Answer):
    experiment_id: str
    status: Literal["registered"] = "registered"


class Metrics(Request):
    """What train.py's last result block says. Only `val_bpb` is mandatory.

    Units: MiB of peak device memory, seconds of counted training, millions of tokens and of
    parameters, percent of the device's peak FLOP/s.
    """

    val_bpb: ValBpb
    peak_vram_mb: Amount | None = None
    training_seconds: Amount | None = None
    total_tokens_m: Amount | None = None
    mfu_percent: Amount | None = None
    num_steps: Count | None = None
    num_params_m: Amount | None = None
    depth: Count | None = None


class CompleteRequest(Metrics):
    experiment_id: ExperimentId


class Verdict(Answer):
    """The decision on a completed run. `delta` is best before - this (0 for the first result)."""

    experiment_id: str
    status: Literal["keep", "discard"]
    val_bpb: float
    improved: bool
    delta: float
    best_val_bpb: float
    action: Action


class CrashRequest(Request):
    experiment_id: ExperimentId
    error: Text


class CrashVerdict(Answer):
    experiment_id: str
    status: Literal["crash", "timeout", "cancelled"]
    consecutive_crashes: int
    should_abort: bool
    action: Action
    reason: str | None = None


AnyVerdict = Verdict | CrashVerdict


class HistoryRequest(Request):
    tag: TagName
    status: PublicStatus | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    cursor: ExperimentId | None = None


class Record(Answer):
    """An experiment as upstream shows it: metrics of a run that has none yet read 0."""

    id: str
    tag: str
    parent_id: str | None
    commit_sha: str
    description: str
    hypothesis: str
    category: str
    val_bpb: float
    peak_vram_mb: float
    training_seconds: float
    total_tokens_m: float
    mfu_percent: float
    num_steps: int
    num_params_m: float
    depth: int
    status: PublicStatus
    gpu_id: str | None
    started_at: str | None
    finished_at: str | None
    diff_summary: str
    error: str | None


class HistoryAnswer(Answer):
    experiments: list[Record]
    total: int
    next_cursor: str | None = None


class TagRequest(Request):
    tag: TagName


class Best(Answer):
    experiment_id: str
    val_bpb: float
    commit_sha: str
    updated_at: str


class BestAnswer(Answer):
    best: Best
    experiment: Record


class NearMissRequest(Request):
    tag: TagName
    limit: Annotated[int, Field(ge=1, le=10_000)] = 20


class NearMiss(Answer):
    experiment_id: str
    tag: str
    val_bpb: float
    delta: float
    hypothesis: str
    category: str
    diff_summary: str


class NearMissAnswer(Answer):
    near_misses: list[NearMiss]
    total: int


# ---------------------------------------------------------------------------- the queue


class SubmitRequest(Request):
    """Register and enqueue in one call; `train_py` wins over `commit_sha` as the source."""

    tag: TagName
    hypothesis: RequiredText
    train_py: Annotated[str, StringConstraints(min_length=1)] | None = None
    commit_sha: CommitSha | None = None
    description: Text | None = None
    category: Category = "other"
    diff_summary: Text = ""
    parent_id: ExperimentId | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    seed: Seed = 42
    repeat: bool = False

    @model_validator(mode="after")
    def _has_a_source(self) -> "SubmitRequest":
        if self.train_py is None and self.commit_sha is None:
            raise ValueError("give train_py (the file's text) or commit_sha")
        return self


class SubmitAnswer(Answer):
    experiment_id: str
    status: PublicStatus
    position: int | None = None
    verdict: AnyVerdict | None = None


class CurvePoint(Request):
    """One point of a learning curve: percent of the budget used, and the smoothed loss there."""

    step: Count
    percent: Amount
    loss: Number


class Environment(Request):
    """Where a run ran. All optional: a hand-run tells nothing of it."""

    gpu_name: Name | None = None
    gpu_uuid: Name | None = None
    driver_version: Name | None = None
    torch_version: Name | None = None
    python_version: Name | None = None
    profile: Name | None = None
    # Results compare only on the same validation text.
    validation_sha256: Name | None = None
    host: Name | None = None


class Attempt(Answer):
    """One lease of a run, from claim to end."""

    epoch: int
    gpu_id: str
    claimed_at: str
    ended_at: str | None = None
    outcome: str | None = None


class Lease(Answer):
    epoch: int
    gpu_id: str
    renewed_at: str


class ExperimentDetail(Answer):
    """A record in full. Unlike in `Record`, a metric that is not known reads null."""

    id: str
    tag: str
    status: PublicStatus
    parent_id: str | None
    commit_sha: str
    description: str
    hypothesis: str
    category: str
    diff_summary: str
    val_bpb: float | None
    peak_vram_mb: float | None
    training_seconds: float | None
    total_tokens_m: float | None
    mfu_percent: float | None
    num_steps: int | None
    num_params_m: float | None
    depth: int | None
    gpu_id: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    error: str | None
    reason: str | None
    seed: int
    priority: int
    position: int | None
    source_sha256: str | None
    prepare_sha256: str | None
    time_budget_seconds: float
    best_val_bpb_before: float | None
    warnings: list[str]
    environment: Environment
    verdict: AnyVerdict | None
    attempts: list[Attempt]
    lease: Lease | None
    curve: list[CurvePoint]


class CancelAnswer(Answer):
    experiment_id: str
    status: PublicStatus
    cancelling: bool


# ---------------------------------------------------------------------------- search


class Strategy(Answer):
    mode: Mode
    explore_ratio: float
    temperature: float
    updated_at: str
    reason: str
    pinned: bool = False


class SetStrategyRequest(Request):
    tag: TagName
    mode: Mode
    reason: RequiredText
    explore_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    pinned: bool = True


class CategoryStats(Answer):
    total: int
    kept: int


class Suggestion(Answer):
    strategy: Mode
    total_experiments: int
    category_stats: dict[str, CategoryStats]
    underexplored_categories: list[str]
    high_yield_categories: list[str]
    near_misses_available: int
    near_miss_categories: list[str]
    recent_bpb_trend: list[float]
    suggestions: list[str]


# ---------------------------------------------------------------------------- GPU pool


class Health(Request):
    temperature_c: Number | None = None
    memory_used_mb: Number | None = None
    memory_total_mb: Number | None = None
    utilization_percent: Number | None = None


class RegisterGpuRequest(Request):
    """The first four fields are the hand-run contract; the rest is what a daemon adds."""

    gpu_id: GpuId
    gpu_index: Annotated[int, Field(ge=0, le=10_000)]
    gpu_name: Name
    vram_mb: Amount
    name: Name | None = None
    host: Name | None = None
    gpu_uuid: Name | None = None
    boot_id: Name | None = None
    profile: Name | None = None
    driver_version: Name | None = None
    torch_version: Name | None = None
    problem: Text | None = None


class Worker(Answer):
    id: str
    name: str
    gpu_index: int
    gpu_name: str
    vram_mb: float
    status: Literal["idle", "training", "offline", "draining", "quarantined", "unfit"]
    current_experiment_id: str | None
    registered_at: str
    last_heartbeat: str
    host: str | None = None
    profile: str | None = None
    problem: str | None = None


class Timing(Answer):
    """The orchestrator's clockwork, told to workers so that one setting rules both sides."""

    lease_seconds: float
    heartbeat_seconds: float


class RegisterGpuAnswer(Answer):
    registered: Literal[True] = True
    worker: Worker
    timing: Timing


class HeartbeatRequest(Request):
    """`problem` (text) keeps the GPU out of claims and shows in the pool list; `quarantined` marks
    a GPU that failed in hardware; `draining` one whose daemon is on its way out."""

    gpu_id: GpuId
    health: Health | None = None
    problem: Text | None = None
    quarantined: bool = False
    draining: bool = False


class Ok(Answer):
    ok: Literal[True] = True


class PoolAnswer(Answer):
    workers: list[Worker]
    total: int
    idle: int
    training: int
    offline: int


class AcquireRequest(Request):
    experiment_id: ExperimentId


class AcquireAnswer(Answer):
    acquired: bool
    gpu_id: str | None
    gpu_index: int | None = None
    reason: str | None = None


class ReleaseRequest(Request):
    gpu_id: GpuId
    experiment_id: ExperimentId | None = None


class ReleaseAnswer(Answer):
    released: Literal[True] = True


class GpuRequest(Request):
    gpu_id: GpuId


class DeregisterAnswer(Answer):
    deregistered: Literal[True] = True


class TrainOnGpuRequest(Request):
    experiment_id: ExperimentId


class TrainOnGpuAnswer(Answer):
    status: Literal["queued", "running", "success", "crash", "timeout", "cancelled"]
    experiment_id: str
    gpu_id: str
    val_bpb: float | None = None
    peak_vram_mb: float | None = None
    training_seconds: float | None = None
    total_tokens_m: float | None = None
    mfu_percent: float | None = None
    num_steps: int | None = None
    num_params_m: float | None = None
    depth: int | None = None
    log_path: str | None = None


class HealthAnswer(Health):
    gpu_id: str
    age_seconds: float | None


# ---------------------------------------------------------------------------- lease protocol


class ClaimRequest(Request):
    """`claim_id` is fresh for each claim and the same when that claim is sent again: a claim whose
    answer was lost on the way then gets the same job, not a second one."""

    gpu_id: GpuId
    claim_id: Annotated[str, StringConstraints(min_length=8, max_length=64)]


class Job(Answer):
    """One leased run. `epoch` is the fencing token that every later call on it must carry."""

    experiment_id: str
    tag: str
    gpu_id: str
    epoch: int
    seed: int
    time_budget_seconds: float
    grace_seconds: float
    lease_seconds: float
    train_py: str
    source_sha256: str
    prepare_sha256: str | None


class ClaimAnswer(Answer):
    job: Job | None


class LeaseRequest(Request):
    experiment_id: ExperimentId
    gpu_id: GpuId
    epoch: Annotated[int, Field(ge=1)]


class RenewRequest(LeaseRequest):
    """`started` turns the lease into a running attempt: the launcher has been executed."""

    started: bool = True


class LeaseAnswer(Answer):
    ok: Literal[True] = True
    cancel: bool = False


class LogChunk(Request):
    """`data` is base64 of at most 128 KiB of raw output that begins at byte `offset` of the log."""

    offset: Count
    data: Annotated[str, StringConstraints(max_length=180_000)]


class ProgressRequest(LeaseRequest):
    """`curve` is the whole curve so far, thinned to at most 256 points: sending it again is
    harmless."""

    log: LogChunk | None = None
    curve: Annotated[list[CurvePoint], Field(max_length=256)] | None = None


class FinishRequest(LeaseRequest):
    """The end of an attempt.

    `completed` needs metrics; `crash` and `timeout` are results; `cancelled` answers a cancel;
    `handed_back` (drain) and `lost` (the infrastructure failed) put the run back in the queue.
    """

    outcome: Literal["completed", "crash", "timeout", "cancelled", "handed_back", "lost"]
    metrics: Metrics | None = None
    error: Text = ""
    exit_code: int | None = None
    warnings: Annotated[list[Text], Field(max_length=20)] = []
    environment: Environment = Environment()
    curve: Annotated[list[CurvePoint], Field(max_length=256)] | None = None

    @model_validator(mode="after")
    def _completed_has_metrics(self) -> "FinishRequest":
        if self.outcome == "completed" and self.metrics is None:
            raise ValueError("outcome 'completed' needs metrics")
        return self


class FinishAnswer(Answer):
    """The verdict, or `queued` where the run will be tried again."""

    experiment_id: str
    status: PublicStatus
    verdict: AnyVerdict | None = None


# ---------------------------------------------------------------------------- reports


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


class Problem(Answer):
    """RFC 9457 problem details, and the flat `error` that existing callers read."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    error: str
    errors: list[dict[str, Any]] | None = None
    existing: Any | None = None
