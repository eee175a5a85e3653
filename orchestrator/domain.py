"""Frozen values of the domain: tag, experiment, run, attempt, strategy, snapshot, decision.

An *experiment* is an idea with its exact source; a *run* is one training of it (seed, GPU, metrics,
curve); an *attempt* is one lease of a run. Times are integers: microseconds since the epoch by
Redis' clock. Nothing here knows Redis or HTTP; the store builds these values from what it keeps.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Literal

Mode = Literal["explore", "exploit", "combine", "ablation"]
# What a leased run's worker is asked to do: a person wants it ended or put back into the queue, or
# the tag's early stop has condemned it.
Stop = Literal["cancel", "requeue", "early"]

# The words for the end of a run and of an attempt: docs/architecture.md, "How a run ends".
ResultKind = Literal["completed", "crash", "timeout", "cancelled", "stopped"]
AttemptEnding = Literal[ResultKind, "lost", "expired", "handed_back", "requeued"]

# What a tag keeps: docs/keep-rules.md.
KeepRule = Literal["greedy", "greedy+merge", "race"]

INFRA_LOST = "infra_lost"
# How many of the newest judged runs the strategy adapts to.
RECENT_RUNS = 10


class Status(str, Enum):
    """The public status of a run: where it is before its verdict, and then the verdict."""

    QUEUED = "queued"
    RUNNING = "running"
    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    # Under the keep rule `race`: a run whose verdict waits for repeats, and such a repeat.
    CANDIDATE = "candidate"
    REPEAT = "repeat"


# What total, tsv and the ten most recent count as finished.
FINISHED = (Status.KEEP, Status.DISCARD, Status.CRASH, Status.TIMEOUT)


class State(str, Enum):
    """The life cycle of a run, which fences its changes. `HAND` is a hand-run: it has no lease. A
    `MEASURED` one has ended, and its verdict waits for repeats."""

    HAND = "hand"
    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    MEASURED = "measured"
    DECIDED = "decided"


def rfc3339(microseconds: int) -> str:
    """`2026-03-11T09:30:00.123456Z`: UTC, always six decimals, so that text sorts as time."""
    seconds, rest = divmod(microseconds, 1_000_000)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"


def branch_of(tag: str) -> str:
    return f"autoresearch/{tag}"


@dataclass(frozen=True)
class Metrics:
    """What a training printed; None means "not reported". `schemas.Metrics` has the same fields,
    with units and limits. The store's fields and the worker's parser derive from these two."""

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
    data_sha256: str | None = None
    sandbox: str | None = None


@dataclass(frozen=True)
class Forecast:
    """What a run was condemned by: at `percent` of its budget its training loss was `loss`, and so
    it was expected to read `val_bpb` ± `sd`, and better than the `champion` of that moment with
    `probability`; learned from `runs` finished runs. A `spared` run finishes, as an audit."""

    percent: int
    loss: float
    val_bpb: float
    sd: float
    probability: float
    champion: float
    runs: int
    spared: bool


@dataclass(frozen=True)
class NewExperiment:
    """An idea and its exact source, before the store gives it an id. A hand-run has no source."""

    hypothesis: str
    description: str
    category: str
    commit_sha: str
    diff_summary: str
    parent_id: str | None = None
    source_sha256: str | None = None
    submitted_by: str | None = None  # label of the token
    repeat_of: str | None = None
    merged_from: str | None = None  # ids with spaces between them


@dataclass(frozen=True, kw_only=True)
class Experiment(NewExperiment):
    """An idea and its exact source. Never changes after creation."""

    id: str
    tag: str
    created_us: int


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
    lease_secret: str = ""  # with its epoch in front: the last lease may have none
    lease_seconds: float | None = None  # as its claim said; None of an older version
    losses: int = 0
    gpu_id: str | None = None
    target_gpu: str | None = None
    stop: Stop | None = None
    started_us: int | None = None
    measured_us: int | None = None  # when its training ended, if the verdict came later
    finished_us: int | None = None
    metrics: Metrics | None = None
    verified_bpb: float | None = None
    best_before: float | None = None
    error: str | None = None
    reason: str | None = None
    warnings: tuple[str, ...] = ()
    environment: Environment = Environment()
    forecast: Forecast | None = None  # by which it was condemned
    verdict_json: str | None = None

    @property
    def stopped_early(self) -> bool:
        return self.status is Status.DISCARD and self.metrics is None


@dataclass(frozen=True)
class Timing:
    """Seconds between two heartbeats of a GPU, of silence until it loses its run, and of silence
    until it reads offline."""

    heartbeat_seconds: float
    lease_seconds: float
    offline_seconds: float

    def stretched(self, factor: float) -> "Timing":
        return Timing(*(factor * seconds for seconds in vars(self).values()))


@dataclass(frozen=True)
class Attempt:
    """One lease of a run. `ending` is None while it lives."""

    epoch: int
    gpu_id: str
    claimed_us: int
    ended_us: int | None = None
    ending: AttemptEnding | None = None


@dataclass(frozen=True)
class Strategy:
    """How the search goes on. The rules never replace a `pinned` one."""

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
    candidate: int = 0
    repeat: int = 0
    infra_lost: int = 0

    @property
    def finished(self) -> int:
        return self.keep + self.discard + self.crash + self.timeout

    @property
    def judged(self) -> int:
        """Finished runs that say something about the search: the base of every rate."""
        return self.finished - self.infra_lost

    def plus(self, status: Status, *, infra_lost: bool = False) -> "Counts":
        """The counts after one more decision."""
        more = {status.value: getattr(self, status.value) + 1}
        return replace(self, infra_lost=self.infra_lost + infra_lost, **more)


@dataclass(frozen=True)
class OperatorAction:
    """What a person does to a running search."""

    kind: str
    by: str  # who they say they are
    reason: str
    target: str = ""  # an experiment, note, GPU or token; empty where it is the tag itself
    actor: str = ""  # the label of their token


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
    """An operator action in the audit log, its effect, and the revision of its tag before it."""

    id: str
    at_us: int
    tag: str
    action: OperatorAction
    effect: str
    revision: int | None


def platform_of(profile: str | None, data_sha256: str | None) -> str | None:
    """What makes results comparable, as `cpu/0a1b2c3d4e5f`: the profile, and the hash of the data
    where a worker says it. A tag is bound to that of its first run."""
    return f"{profile}/{data_sha256[:12]}" if profile and data_sha256 else profile


def profile_of(platform: str | None) -> str | None:
    return platform and platform.partition("/")[0]


@dataclass(frozen=True)
class Best:
    """The experiment that others are judged against, and its val_bpb: what its run read, or under
    `race` what is believed of it."""

    experiment_id: str
    val_bpb: float


@dataclass(frozen=True)
class Tag:
    """A search: its settings, and its results so far."""

    name: str
    created_us: int
    time_budget_seconds: float
    near_miss_threshold: float
    max_consecutive_crashes: int
    revision: int = 0
    prepare_sha256: str | None = None
    keep_rule: KeepRule = "greedy"
    early_stop: bool = False
    platform: str | None = None  # that its results are bound to, see platform_of
    gpu_model: str | None = None  # that its runs are pinned to, unless it mixes models
    mix_models: bool = False
    best_val_bpb: float | None = None
    best_experiment_id: str | None = None
    best_commit_sha: str | None = None
    best_us: int | None = None
    consecutive_crashes: int = 0
    last_created_us: int = 0
    last_decided_us: int = 0
    training_seconds: float = 0.0
    pause: OperatorHold | None = None
    sealed: str = ""  # what the seal of the next journal entry rests on, see rules/seals.py

    @property
    def profile(self) -> str | None:
        return profile_of(self.platform)

    @property
    def best(self) -> Best | None:
        if self.best_experiment_id is None or self.best_val_bpb is None:
            return None
        return Best(self.best_experiment_id, self.best_val_bpb)
