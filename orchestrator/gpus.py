"""A GPU of the pool, as it is known from what its worker says. A frozen value."""

from dataclasses import dataclass, field

from orchestrator.domain import OperatorHold, profile_of

GPU_STATES = ("idle", "training", "offline", "draining", "quarantined", "unfit")


TAKING = ("idle", "training")  # of a GPU that takes runs, now or next


@dataclass(frozen=True)
class Gpu:
    """A GPU of the pool, and what has it: a lease, or the hold of a hand-run."""

    id: str
    name: str
    gpu_index: int
    gpu_name: str
    vram_mb: float
    registered_us: int
    heartbeat_us: int
    host: str | None = None
    platform: str | None = None
    data_folder: str | None = None  # on its host
    sandbox: str | None = None
    problem: str | None = None
    placement: str | None = None
    drift: str | None = None  # how the champion reads there, if otherwise than on other GPUs
    quarantined: bool = False
    draining: bool = False
    drain: OperatorHold | None = None
    lease_experiment_id: str | None = None
    held_by: str | None = None
    health: dict[str, float] = field(default_factory=dict)
    health_us: int | None = None

    @property
    def profile(self) -> str | None:
        return profile_of(self.platform)

    def status(self, now_us: int, offline_seconds: float) -> str:
        """The word that the pool list shows: the most serious one that applies."""
        if now_us - self.heartbeat_us > offline_seconds * 1e6:
            return "offline"
        if self.quarantined:
            return "quarantined"
        if self.draining or self.drain:
            return "draining"
        if self.lease_experiment_id or self.held_by:
            return "training"
        return "unfit" if self.problem else "idle"
