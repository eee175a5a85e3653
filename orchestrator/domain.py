"""Frozen values of the domain: tag, experiment, run, attempt, strategy, snapshot, decision.

An *experiment* is an idea with its exact source; a *run* is one training of it (seed, GPU, metrics,
curve); an *attempt* is one lease of a run. Times are integers: microseconds since the epoch by
Redis' clock. Nothing here knows Redis or HTTP; the store builds these values from what it keeps.
"""

from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import Any, Literal

Mode = Literal["explore", "exploit", "combine", "ablation"]
# What a person has asked of a run that is under way: to end it, or to put it back into the queue.
Stop = Literal["cancel", "requeue"]

# The eleven categories that count for "underexplored"; others are accepted as given.
CORE_CATEGORIES = (
    "architecture", "optimizer", "hyperparams", "activation", "attention", "embedding",
    "normalization", "regularization", "scheduling", "initialization", "simplification",
)  # fmt: skip

INFRA_LOST = "infra_lost"
MAX_INFRASTRUCTURE_LOSSES = 2


class Status(str, Enum):
    """The public status of a run."""

    QUEUED = "queued"
    RUNNING = "running"
    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


# What total, tsv and the ten most recent count as finished.
FINISHED = (Status.KEEP, Status.DISCARD, Status.CRASH, Status.TIMEOUT)


class State(str, Enum):
    """Where a run stands inside. `HAND` is an agent's own training, which has no lease."""

    HAND = "hand"
    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    DECIDED = "decided"


def rfc3339(microseconds: int) -> str:
    """`2026-03-11T09:30:00.123456Z`: UTC, always six decimals, so that text sorts as time."""
    seconds, rest = divmod(microseconds, 1_000_000)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"


def experiment_id(tag: str, created_us: int) -> str:
    """The id of the experiment of `tag` created at that moment: no two share one."""
    return f"exp-{created_us:014x}-{tag}"


def created_us_of(experiment_id: str) -> int:
    return int(experiment_id[4:18], 16)


def branch_of(tag: str) -> str:
    return f"autoresearch/{tag}"


@dataclass(frozen=True)
class Metrics:
    """What a training printed. Units as in `schemas.Metrics`; None means "not reported"."""

    val_bpb: float
    peak_vram_mb: float | None = None
    training_seconds: float | None = None
    total_tokens_m: float | None = None
    mfu_percent: float | None = None
    num_steps: int | None = None
    num_params_m: float | None = None
    depth: int | None = None


@dataclass(frozen=True)
class Environment:
    """Where a run ran."""

    gpu_name: str | None = None
    gpu_uuid: str | None = None
    driver_version: str | None = None
    torch_version: str | None = None
    python_version: str | None = None
    profile: str | None = None
    validation_sha256: str | None = None
    host: str | None = None


@dataclass(frozen=True)
class Experiment:
    """An idea and its exact source. Never changes after creation."""

    id: str
    tag: str
    created_us: int
    hypothesis: str
    description: str
    category: str
    commit_sha: str
    diff_summary: str
    parent_id: str | None = None
    source_sha256: str | None = None
    repeat_of: str | None = None


@dataclass(frozen=True)
class Run:
    """One training of an experiment, from the queue (or the agent's hand) to its verdict."""

    experiment_id: str
    state: State
    status: Status
    seed: int
    priority: int
    time_budget_seconds: float
    prepare_sha256: str | None = None
    epoch: int = 0
    losses: int = 0
    gpu_id: str | None = None
    target_gpu: str | None = None
    stop: Stop | None = None
    started_us: int | None = None
    finished_us: int | None = None
    metrics: Metrics | None = None
    best_before: float | None = None
    error: str | None = None
    reason: str | None = None
    warnings: tuple[str, ...] = ()
    environment: Environment = Environment()
    verdict_json: str | None = None


@dataclass(frozen=True)
class Attempt:
    """One lease of a run. `outcome` is None while it lives."""

    epoch: int
    gpu_id: str
    claimed_us: int
    ended_us: int | None = None
    outcome: str | None = None


@dataclass(frozen=True)
class Strategy:
    """How the search goes on. `pinned` keeps a person's choice from being adapted away."""

    mode: Mode
    explore_ratio: float
    temperature: float
    updated_us: int
    reason: str
    pinned: bool = False


@dataclass(frozen=True)
class Counts:
    """Runs of a tag by status; `infra_lost` is a part of `crash`."""

    queued: int = 0
    running: int = 0
    keep: int = 0
    discard: int = 0
    crash: int = 0
    timeout: int = 0
    cancelled: int = 0
    infra_lost: int = 0

    @property
    def finished(self) -> int:
        return self.keep + self.discard + self.crash + self.timeout

    @property
    def judged(self) -> int:
        """Finished runs that say something about the search: the base of every rate."""
        return self.finished - self.infra_lost


@dataclass(frozen=True)
class OperatorAction:
    """What a person does to a running search: who, what, to what, and why. `target` is an
    experiment, a note, a GPU, or nothing where it is the tag itself."""

    action: str
    by: str
    reason: str
    target: str = ""


@dataclass(frozen=True)
class OperatorHold:
    """Who paused a tag or drained a GPU, why, and when."""

    by: str
    reason: str
    at_us: int


@dataclass(frozen=True)
class Note:
    """What a person says to the agents of a tag."""

    id: str
    text: str
    by: str
    at_us: int


@dataclass(frozen=True)
class LedgerEntry:
    """An operator action that took effect. `revision` is the tag's before it, None for the pool."""

    id: str
    at_us: int
    tag: str
    act: OperatorAction
    outcome: str
    revision: int | None


@dataclass(frozen=True)
class Tag:
    """A search: its settings, and what it has come to."""

    name: str
    created_us: int
    time_budget_seconds: float
    near_miss_threshold: float
    max_consecutive_crashes: int
    revision: int = 0
    prepare_sha256: str | None = None
    profile: str | None = None
    best_val_bpb: float | None = None
    best_experiment_id: str | None = None
    best_commit_sha: str | None = None
    best_us: int | None = None
    consecutive_crashes: int = 0
    training_seconds: float = 0.0
    pause: OperatorHold | None = None


@dataclass(frozen=True)
class Snapshot:
    """All that a decision rests on, read in one step; `tag.revision` fences its application.

    `recent` holds the statuses of the ten most recent judged runs, newest first.
    """

    tag: Tag
    counts: Counts
    strategy: Strategy
    near_misses: int
    recent: tuple[Status, ...]
    run: Run | None = None
    experiment: Experiment | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended, as reported: metrics of a completed one, or the error of another.

    `reason` says more than the status where it matters (`infra_lost`).
    """

    status: Literal["completed", "crash", "timeout", "cancelled"]
    metrics: Metrics | None = None
    error: str = ""
    reason: str | None = None
    warnings: tuple[str, ...] = ()
    environment: Environment = Environment()


@dataclass(frozen=True)
class Decision:
    """What an outcome means for its tag: a value, applied by the store in one step.

    `delta` is best before - this one, 0 for the first; `near_miss` the distance from the best of a
    discarded run that came close; `strategy` the adapted one, or None where it stays.
    """

    status: Status
    improved: bool = False
    delta: float = 0.0
    best_before: float | None = None
    near_miss: float | None = None
    consecutive_crashes: int = 0
    should_abort: bool = False
    counts_in_rates: bool = True
    strategy: Strategy | None = None


@dataclass(frozen=True)
class JournalEntry:
    """A step of a tag: its `setup`, a choice of `strategy`, that a run was `decided`, or that the
    tag was `steered`.

    `data` is what the step did and what it was based on; for a decision `journal_data` in
    store/records.py says what lies in it.
    """

    id: str
    kind: str
    experiment_id: str
    at_us: int
    data: dict[str, Any]


GPU_STATES = ("idle", "training", "offline", "draining", "quarantined", "unfit")


@dataclass(frozen=True)
class Gpu:
    """A GPU of the pool, and what it is busy with: a lease, or a hand-run's hold."""

    id: str
    name: str
    gpu_index: int
    gpu_name: str
    vram_mb: float
    registered_us: int
    heartbeat_us: int
    host: str | None = None
    profile: str | None = None
    problem: str | None = None
    quarantined: bool = False
    draining: bool = False
    drain: OperatorHold | None = None
    lease_experiment_id: str | None = None
    held_by: str | None = None
    health: dict[str, float] = field(default_factory=dict)
    health_us: int | None = None

    def status(self, now_us: int, offline_seconds: float) -> str:
        """The one word of the pool list, the gravest first."""
        if now_us - self.heartbeat_us > offline_seconds * 1e6:
            return "offline"
        if self.quarantined:
            return "quarantined"
        if self.draining or self.drain:
            return "draining"
        if self.lease_experiment_id or self.held_by:
            return "training"
        return "unfit" if self.problem else "idle"
