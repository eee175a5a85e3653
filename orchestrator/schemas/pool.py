"""GPUs, and what their daemons report of them."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from orchestrator.schemas.base import (
    Amount,
    Answer,
    ExperimentId,
    GpuId,
    Integer,
    Name,
    Number,
    Request,
    Text,
)
from orchestrator.schemas.steering import OperatorHold


class Health(Request):
    temperature_c: Number | None = None
    memory_used_mb: Number | None = None
    memory_total_mb: Number | None = None
    utilization_percent: Number | None = None


class GpuRequest(Request):
    gpu_id: GpuId


class RegisterGpuRequest(GpuRequest):
    """An agent that trains by hand sends the first four fields; a daemon sends all. One that does
    not send `lease_secrets` is of a version that knows none, and its leases have none."""

    gpu_index: Annotated[Integer, Field(ge=0, le=10_000)]
    gpu_name: Name
    vram_mb: Amount
    name: Name | None = None
    host: Name | None = None
    gpu_uuid: Name | None = None
    boot_id: Name | None = None
    profile: Name | None = None
    data_sha256: Name | None = None
    data_folder: Annotated[str, StringConstraints(max_length=1000)] | None = None
    driver_version: Name | None = None
    torch_version: Name | None = None
    sandbox: Name | None = None
    problem: Text | None = None
    placement: Name | None = None
    lease_secrets: Literal[True] | None = None


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
    # strict, pid or none: what holds its runs; None of a worker that does not say.
    sandbox: str | None = None
    problem: str | None = None
    # What started its daemon, such as "slurm 12_3".
    placement: Annotated[str | None, Field(exclude_if=lambda placement: placement is None)] = None
    # Under the keep rule `race`: how the champion read there last, if otherwise than elsewhere.
    drift: Annotated[str | None, Field(exclude_if=lambda drift: drift is None)] = None
    # Why it is idle while runs are queued: their tags run on another GPU model or on other data.
    passed_over: Annotated[str | None, Field(exclude_if=lambda why: why is None)] = None
    health: Health | None = None
    # The operator's drain; `status` is then "draining", with or without a run still going.
    drain: OperatorHold | None = None


class Timing(Answer):
    """The orchestrator's intervals, sent to workers so that both sides use one setting."""

    lease_seconds: float
    heartbeat_seconds: float


class RegisterGpuAnswer(Answer):
    registered: Literal[True] = True
    worker: Worker
    timing: Timing


class HeartbeatRequest(GpuRequest):
    """`problem` (text) keeps the GPU out of claims and shows in the pool list; `quarantined` marks
    a GPU whose hardware failed; `draining` one whose daemon is about to stop."""

    health: Health | None = None
    problem: Text | None = None
    quarantined: bool = False
    draining: bool = False


class Ok(Answer):
    ok: Literal[True] = True


class HeartbeatAnswer(Ok):
    """The time between two heartbeats that the size of the pool asks for, None from an older
    orchestrator. A GPU that has a run keeps that of its claim."""

    heartbeat_seconds: float | None = None


class PoolAnswer(Answer):
    workers: list[Worker]
    total: int
    idle: int
    training: int
    offline: int


class AcquireAnswer(Answer):
    acquired: bool
    gpu_id: str | None
    gpu_index: int | None = None
    reason: str | None = None


class ReleaseRequest(GpuRequest):
    experiment_id: ExperimentId | None = None


class ReleaseAnswer(Answer):
    released: Literal[True] = True


class DeregisterAnswer(Answer):
    deregistered: Literal[True] = True


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
