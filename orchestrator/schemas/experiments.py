"""Tags, experiments and reports by hand."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.schemas.base import (
    Action,
    Amount,
    Answer,
    Category,
    CommitSha,
    Count,
    ExperimentId,
    GpuId,
    PublicStatus,
    Request,
    TagName,
    Text,
    ValBpb,
)
from orchestrator.schemas.digest import Digest
from orchestrator.schemas.steering import OperatorHold


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
    paused: bool = False
    pause: OperatorHold | None = None


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


# Whoever waited gets it with the verdict; who reported a run has no need of it.
VerdictDigest = Annotated[Digest | None, Field(exclude_if=lambda digest: digest is None)]


class Verdict(Answer):
    """The decision on a completed run. `delta` is best before - this (0 for the first result)."""

    experiment_id: str
    status: Literal["keep", "discard"]
    val_bpb: float
    improved: bool
    delta: float
    best_val_bpb: float
    action: Action
    digest: VerdictDigest = None


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
    digest: VerdictDigest = None


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
