"""Tags, experiments, submissions, verdicts."""

import re
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, StringConstraints, model_validator

from orchestrator.schemas.base import (
    Amount,
    Answer,
    Blocked,
    Category,
    CommitSha,
    Count,
    ExperimentId,
    ExperimentRequest,
    GpuId,
    Integer,
    Name,
    Number,
    Priority,
    PublicStatus,
    Request,
    RequiredText,
    Seed,
    TagRequest,
    Text,
    ValBpb,
)
from orchestrator.schemas.steering import OperatorHold
from orchestrator.schemas.verdicts import AnyVerdict, OnlyInRace


class SetupRequest(TagRequest):
    time_budget_seconds: Annotated[Number, Field(gt=0, le=86_400)] = 300
    near_miss_threshold: Amount = 0.002
    max_consecutive_crashes: Annotated[Integer, Field(ge=1, le=1_000_000)] = 3
    # docs/keep-rules.md
    keep_rule: Literal["greedy", "greedy+merge", "race"] = "greedy"
    # By default where the keep rule is `race` and the tag runs on one GPU model.
    early_stop: bool | None = None
    # To which its runs belong, as the pool list spells it; without it that of the first claim.
    gpu_model: Annotated[Name, Field(min_length=1)] | None = None
    # Several models may run it.
    mix_models: bool = False

    @model_validator(mode="after")
    def _pins_or_mixes(self) -> "SetupRequest":
        if self.gpu_model is not None and self.mix_models:
            raise ValueError(
                "gpu_model pins one model, mix_models allows several: give one of them"
            )
        if self.early_stop and self.mix_models:
            raise ValueError(
                "early_stop compares the curves of all runs, and those of several GPU models do"
                " not compare: leave out early_stop or mix_models"
            )
        return self


class TagInfo(Answer):
    name: str
    branch: str
    created_at: str
    time_budget_seconds: float
    near_miss_threshold: float
    max_consecutive_crashes: int
    keep_rule: str = "greedy"  # of an orchestrator that has no other
    early_stop: bool = False
    best_val_bpb: float | None
    best_experiment_id: str | None
    total_experiments: int
    kept_experiments: int
    profile: str | None
    gpu_model: str | None = None
    mix_models: bool = False
    prepare_sha256: str | None
    paused: bool = False
    pause: OperatorHold | None = None


class SetupAnswer(Answer):
    tag: TagInfo
    branch: str


class RegisterRequest(TagRequest):
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


def _as_printed(name: str) -> Any:
    return Field(None, validation_alias=AliasChoices(name, re.sub("_m$", "_M", name)))


class Metrics(Request):
    """The last result block that train.py prints. Only `val_bpb` is mandatory. The keys of the
    block are names too: `total_tokens_M`.

    Units: MiB of peak device memory, seconds of counted training, millions of tokens and of
    parameters, percent of the device's peak FLOP/s.
    """

    val_bpb: ValBpb
    peak_vram_mb: Amount | None = None
    training_seconds: Amount | None = None
    total_tokens_m: Amount | None = _as_printed("total_tokens_m")
    mfu_percent: Amount | None = None
    num_steps: Count | None = None
    num_params_m: Amount | None = _as_printed("num_params_m")
    depth: Count | None = None


class CompleteRequest(Metrics):
    experiment_id: ExperimentId


class CrashRequest(ExperimentRequest):
    error: Text


class HistoryRequest(TagRequest):
    status: PublicStatus | None = None
    limit: Annotated[Integer, Field(ge=1, le=10_000)] = 10_000
    cursor: ExperimentId | None = None


class Record(Answer):
    """An experiment in upstream's form: an unknown metric is 0."""

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


class Estimate(Answer):
    """What the keep rule `race` believes of the champion's val_bpb: `low` and `high` hold it with
    probability 0.95. `readings` are what its runs read, by seed; in a tag that mixes GPU models as
    the first model would read them."""

    val_bpb: float
    low: float
    high: float
    readings: dict[int, float]
    confirmed: bool


class Best(Answer):
    experiment_id: str
    val_bpb: float
    commit_sha: str
    updated_at: str
    verified: bool = False  # as in its verdict
    estimate: OnlyInRace[Estimate] = None


class BestAnswer(Answer):
    best: Best
    experiment: Record


class NearMissRequest(TagRequest):
    limit: Annotated[Integer, Field(ge=1, le=10_000)] = 20


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


class SubmitRequest(TagRequest):
    """Register and enqueue in one call; `train_py` wins over `commit_sha` as the source."""

    hypothesis: RequiredText
    train_py: Annotated[str, StringConstraints(min_length=1)] | None = None
    commit_sha: CommitSha | None = None
    description: Text | None = None
    category: Category = "other"
    diff_summary: Text = ""
    parent_id: ExperimentId | None = None
    priority: Priority = 0
    seed: Seed = 42
    repeat: bool = False

    @model_validator(mode="after")
    def _has_a_source(self) -> "SubmitRequest":
        if self.train_py is None and self.commit_sha is None:
            raise ValueError("give train_py (the file's text) or commit_sha")
        return self


class SubmitAnswer(Answer):
    """`blocked` is there if no GPU takes the run, and says why."""

    experiment_id: str
    status: PublicStatus
    position: int | None = None
    blocked: Blocked = None
    verdict: AnyVerdict | None = None


class CurvePoint(Request):
    """One point of a learning curve: percent of the run, and the smoothed loss there."""

    step: Count
    percent: Amount
    loss: Number


class Environment(Request):
    """Where a run ran. All optional: a hand-run does not report it."""

    gpu_name: Name | None = None
    gpu_uuid: Name | None = None
    driver_version: Name | None = None
    torch_version: Name | None = None
    python_version: Name | None = None
    profile: Name | None = None
    # Results are comparable only on the same validation text.
    validation_sha256: Name | None = None
    host: Name | None = None
    # Tokenizer and tokens of all shards, those for training too.
    data_sha256: Name | None = None
    # What held the run: strict, pid or none (docs/security.md).
    sandbox: Name | None = None


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


class ExperimentFields(Answer):
    """What is known of an experiment. Unlike in `Record`, an unknown metric is null. Units as in
    `Metrics`."""

    id: str
    tag: str
    status: PublicStatus
    reason: str | None
    error: str | None
    val_bpb: float | None
    # Of a run that the early stop condemned: it has no val_bpb, unless it finished as an audit.
    stopped_early: bool = False
    predicted_val_bpb: float | None = None
    predicted_sd: float | None = None
    best_val_bpb_before: float | None
    peak_vram_mb: float | None
    training_seconds: float | None
    total_tokens_m: float | None
    mfu_percent: float | None
    num_steps: int | None
    num_params_m: float | None
    depth: int | None
    category: str
    hypothesis: str
    description: str
    diff_summary: str
    parent_id: str | None
    commit_sha: str
    source_sha256: str | None
    prepare_sha256: str | None
    seed: int
    priority: int
    time_budget_seconds: float
    created_at: str
    started_at: str | None
    finished_at: str | None


class ExperimentDetail(ExperimentFields):
    """An experiment in full."""

    gpu_id: str | None
    position: int | None
    blocked: Blocked = None  # as in `SubmitAnswer`
    verified_bpb: float | None = None
    warnings: list[str]
    environment: Environment
    verdict: AnyVerdict | None
    # What is known of a candidate, whose verdict waits for more runs.
    so_far: OnlyInRace[AnyVerdict] = None
    attempts: list[Attempt]
    lease: Lease | None
    # What an operator, or the early stop, has asked of a running attempt; its worker gets it with
    # the next renewal.
    stopping: Literal["cancel", "requeue", "early"] | None = None
    # The earlier experiment whose source this one runs again, for an operator or the keep rule.
    repeat_of: str | None = None
    # The experiments whose changes the keep rule merged into this one.
    merged_from: list[str] = Field([])
    curve: list[CurvePoint]
