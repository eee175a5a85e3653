"""Frozen values of a decision: what it rests on, and what it is.

The rules take a snapshot and a run's result and give a decision; the store applies it in one step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.domain import (
    Best,
    Counts,
    Environment,
    Experiment,
    Forecast,
    Metrics,
    ResultKind,
    Run,
    Status,
    Strategy,
    Tag,
)

RaceStatus = Literal["keep", "discard", "repeat", "wait"]


@dataclass(frozen=True)
class EarlyStops:
    """What a tag's early stop has learned and done. `curves` are the newest finished runs: their
    losses at the start and at the marks (rules/early_stop.py), then val_bpb. `audited` runs were
    condemned and completed; `off` is true once too many of them were `false_kills`."""

    curves: tuple[tuple[float, ...], ...] = ()
    condemned: int = 0
    stopped: int = 0
    saved_seconds: float = 0.0
    audited: int = 0
    false_kills: int = 0
    off: bool = False


@dataclass(frozen=True)
class Workload:
    """What of a tag is queued and runs, for a keep rule that queues runs itself.

    `started` are the seeds of the runs under way by id, the oldest first. `follow` says what the
    rule has queued and is not over: id -> `SOURCE SEED`, or `merge SEED`. `ideas` are other queued
    runs. `gpus` may run the tag (4 stands for all that are more, where fewer are idle), `idle` of
    them have no run. Nothing was submitted or decided for
    `quiet_seconds`.
    """

    started: Mapping[str, int]
    follow: Mapping[str, str]
    ideas: int
    idle: int
    gpus: int
    quiet_seconds: float


@dataclass(frozen=True)
class Snapshot:
    """All that a decision rests on, read in one step; `tag.revision` fences its application."""

    tag: Tag
    counts: Counts
    strategy: Strategy
    near_misses: int
    recent: tuple[Status, ...]  # of the newest judged runs, newest first
    run: Run | None = None
    experiment: Experiment | None = None
    # Of a keep rule that has a state (rules/race/state.py): that, and True if it asked for the run.
    race: str | None = None
    follow_up: bool = False
    workload: Workload | None = None  # as if the run were decided
    stops: EarlyStops = EarlyStops()  # of a tag with early stop


@dataclass(frozen=True)
class RunResult:
    """How a run ended, as reported: with metrics if it completed, else with an error.

    Of a run that was `stopped` early the forecast and the training time that it saved; `losses` are
    those of a completed run's curve (rules/early_stop.py)."""

    kind: ResultKind
    metrics: Metrics | None = None
    verified_bpb: float | None = None  # by a second measurement of the saved model
    error: str = ""
    reason: str | None = None  # INFRA_LOST where the infrastructure, not the source, failed
    warnings: tuple[str, ...] = ()
    environment: Environment = Environment()  # noqa: RUF009 - frozen
    losses: tuple[float, ...] = ()
    forecast: Forecast | None = None
    saved_seconds: float | None = None
    slow_part: float | None = None  # of its training, what slow steps cost it: rules/pace.py


@dataclass(frozen=True)
class RaceVerdict:
    """What the keep rule `race` says of the experiment `source` now. `delta` is how much better
    than its parent it reads, `sigma` what the seed alone does to one run, `probability` that it is
    better. With `repeat` another seed follows; with `wait` it is a win over an old parent."""

    source: str
    status: RaceStatus
    delta: float
    sigma: float
    probability: float
    runs: int
    why: str
    confirmed: bool = False


@dataclass(frozen=True)
class Decision:
    """What a run result means for its tag: a value, which the store applies in one step. `delta` is
    best before - this one, 0 for the first; `near_miss` the distance from the best of a discarded
    run that came close; `strategy` the adapted one, or None where it stays. Under `race`, `best` is
    the one after the decision, and `ruling` what the rule says of the run. `why` is the rule's
    sentence, where it has one. `stops` is what a tag's early stop knows after the run; None where
    it stays."""

    status: Status
    improved: bool = False
    delta: float = 0.0
    best_before: float | None = None
    near_miss: float | None = None
    consecutive_crashes: int = 0
    should_abort: bool = False
    counts_in_rates: bool = True
    strategy: Strategy | None = None
    best: Best | None = None
    ruling: RaceVerdict | None = None
    why: str | None = None
    stops: EarlyStops | None = None
