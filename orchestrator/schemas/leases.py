"""The protocol of the workers: claim, renew, progress, finish."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from orchestrator.ids import AttemptId
from orchestrator.schemas.base import (
    Answer,
    Count,
    ExperimentRequest,
    GpuId,
    Integer,
    PublicStatus,
    Request,
    Text,
    ValBpb,
)
from orchestrator.schemas.experiments import CurvePoint, Environment, Metrics
from orchestrator.schemas.pool import Health
from orchestrator.schemas.verdicts import AnyVerdict


class ClaimRequest(Request):
    """`claim_id` is fresh for each claim and the same when that claim is sent again: a claim whose
    answer was lost on the way then gets the same job, not a second one."""

    gpu_id: GpuId
    claim_id: Annotated[str, StringConstraints(min_length=8, max_length=64)]


class Job(Answer):
    """One leased run. `epoch` is the fencing token that every later call on it must carry, and
    `lease_secret` the proof that the caller has the lease. A daemon of a version that does not know
    it gets none and needs none. `heartbeat_seconds` is the time between two renewals, None from an
    older orchestrator; it and `lease_seconds` hold until the end of the attempt."""

    experiment_id: str
    tag: str
    gpu_id: str
    epoch: int
    lease_secret: str | None = None
    seed: int
    time_budget_seconds: float
    grace_seconds: float
    lease_seconds: float
    heartbeat_seconds: float | None = None
    train_py: str
    source_sha256: str
    prepare_sha256: str | None
    # At the claim. A worker measures the model of a run that may be better a second time.
    best_val_bpb: float | None = None


class ClaimAnswer(Answer):
    job: Job | None


class LeaseRequest(ExperimentRequest):
    gpu_id: GpuId
    epoch: Annotated[Integer, Field(ge=1)]
    lease_secret: Annotated[str, StringConstraints(max_length=64)] | None = None

    @property
    def attempt(self) -> AttemptId:
        return AttemptId(self.experiment_id, self.epoch, self.lease_secret or "")


class RenewRequest(LeaseRequest):
    """`started` turns the lease into a running attempt: the launcher has been executed. With
    `health` the renewal is the GPU's heartbeat too, which saves a request."""

    started: bool = True
    health: Health | None = None


class LeaseAnswer(Answer):
    """`cancel` asks for the run's end, and `why` says if the early stop does. `gpu_known` is false
    for a heartbeat of a GPU that is not in the pool: it registers again."""

    ok: Literal[True] = True
    cancel: bool = False
    why: Annotated[
        Literal["early_stop"] | None, Field(exclude_if=lambda reason: reason is None)
    ] = None
    gpu_known: bool = True


class LogChunk(Request):
    """`data` is base64 of at most 128 KiB of raw output that begins at byte `offset` of the log."""

    offset: Count
    data: Annotated[str, StringConstraints(max_length=180_000)]


class ProgressRequest(LeaseRequest):
    """`curve` is the whole curve so far, thinned to at most 256 points: sending it again is
    harmless."""

    log: LogChunk | None = None
    curve: Annotated[list[CurvePoint], Field(max_length=256)] | None = None


# The run result in its worker's word; `FinishRequest` says what each means.
ReportedResult = Literal["completed", "crash", "timeout", "cancelled", "handed_back", "lost"]


class FinishRequest(LeaseRequest):
    """The end of an attempt.

    `completed` needs metrics; `crash` and `timeout` are results; `cancelled` answers a cancel;
    `handed_back` (a drain, an unfit host) and `lost` (the infrastructure failed) put the run back
    in the queue.
    """

    outcome: ReportedResult
    metrics: Metrics | None = None
    # By a second measurement of the saved model, in a process that train.py did not control.
    verified_bpb: ValBpb | None = None
    error: Text = ""
    exit_code: Integer | None = None
    warnings: list[Text] = Field(default_factory=list, max_length=20)
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
