"""Submissions, and one experiment in full."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from orchestrator.schemas.base import (
    Amount,
    Answer,
    Category,
    CommitSha,
    Count,
    ExperimentId,
    Name,
    Number,
    PublicStatus,
    Request,
    RequiredText,
    Seed,
    TagName,
    Text,
)
from orchestrator.schemas.experiments import AnyVerdict


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
    """One point of a learning curve: percent of the run done, and the smoothed loss there."""

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
    # What a person has asked of a run that is under way; its worker will have heard soon.
    stopping: Literal["cancel", "requeue"] | None = None
    # The earlier experiment whose source this one runs again, where a person asked for that.
    repeat_of: str | None = None
    curve: list[CurvePoint]
