"""One tag and its runs. What the product counts as it goes is counted here from all decided runs.

Time is an order here and nothing else.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Any

STATUSES = (
    "queued", "running", "keep", "discard", "crash", "timeout", "cancelled", "candidate", "repeat",
)  # fmt: skip
# What says nothing of its category: a run that was not had, and one that is evidence on another.
UNCOUNTED = ("cancelled", "repeat")
COMPLETED = ("keep", "discard")
LEASED = ("leased", "running")

Verdict = dict[str, Any]


class Refused(Enum):
    """Why a request is refused: the name of the product's error."""

    NOT_FOUND = "NotFound"
    CONFLICT = "Conflict"
    LEASE_LOST = "LeaseLost"
    LEASE_RENEWED = "LeaseRenewed"
    UNAVAILABLE = "Unavailable"


@dataclass(frozen=True)
class Report:
    """How a run ended, as its reporter says."""

    status: str
    val_bpb: float | None = None
    seconds: float | None = None
    reason: str | None = None


@dataclass
class Attempt:
    epoch: int
    gpu: str
    outcome: str | None = None


@dataclass(eq=False)
class Run:
    """An experiment with its run. `state` is the store's, `status` what callers are shown."""

    id: str
    tag: "Tag"
    category: str
    commit: str
    parent: str | None
    state: str
    status: str
    source: str | None = None
    seed: int | None = None
    priority: int | None = None
    score: int | None = None
    gpu: str | None = None
    target: str | None = None
    losses: int = 0
    stop: str | None = None  # what an operator wants of a leased run: cancel or requeue
    repeat_of: str | None = None
    renewal: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    report: Report | None = None
    near: float | None = None
    verdict: Verdict | None = None

    @property
    def epoch(self) -> int:
        return len(self.attempts)

    @property
    def leased(self) -> bool:
        return self.state in LEASED

    @property
    def value(self) -> float:
        assert self.report is not None
        assert self.report.val_bpb is not None
        return self.report.val_bpb

    @property
    def judged(self) -> bool:
        """Says something about the search: decided, and neither cancelled, lost nor a repeat."""
        assert self.report is not None
        return self.status not in UNCOUNTED and self.report.reason is None

    @property
    def source_key(self) -> str:
        return f"{self.source or ''}:{'' if self.seed is None else self.seed}"


@dataclass(eq=False)
class Tag:
    name: str
    threshold: float
    max_crashes: int
    profile: str | None = None
    model: str | None = None
    mixes: bool = False
    mode: str = "explore"
    ratio: float = 0.7
    temperature: float = 1.0
    pinned: bool = False
    paused: bool = False
    notes: list[str] = field(default_factory=list)
    steps: int = 0  # of the revision, besides decisions: strategies that were set, operator actions
    decided: list[Run] = field(default_factory=list)
    sources: dict[str, list[str]] = field(default_factory=dict)

    @property
    def revision(self) -> int:
        return len(self.decided) + self.steps

    @property
    def strategy(self) -> tuple[str, float, float, bool]:
        return self.mode, self.ratio, self.temperature, self.pinned

    @property
    def keeps(self) -> list[Run]:
        return [run for run in self.decided if run.status == "keep"]

    @property
    def best(self) -> Run | None:
        return min(self.keeps, key=lambda run: run.value, default=None)

    @property
    def best_value(self) -> float | None:
        return self.best.value if self.best else None

    def kept_as(self, run: Run) -> float | None:
        """With which val_bpb a keep is among the keeps."""
        return run.value

    def follow(self, _: list[Run]) -> dict[str, str]:
        """Of these runs of the tag, those that the keep rule has queued."""
        return {}

    def first_undecided(self, runs: Iterable[Run], *, leased: bool = False) -> Run | None:
        """The oldest submission of `runs` that is leased, or else (unless `leased`) queued."""
        mine = sorted((r for r in runs if r.tag is self), key=lambda run: run.id)
        states = [LEASED] if leased else [LEASED, ("queued",)]
        return next((r for wanted in states for r in mine if r.state in wanted), None)

    @property
    def recent(self) -> list[str]:
        """Statuses of the ten newest judged runs, newest first."""
        return list(islice((run.status for run in reversed(self.decided) if run.judged), 10))

    @property
    def lost(self) -> int:
        return sum(run.report.reason == "infra_lost" for run in self.decided if run.report)

    @property
    def finished(self) -> int:
        return sum(run.status not in UNCOUNTED for run in self.decided)

    @property
    def near(self) -> list[Run]:
        near = [run for run in self.decided if run.near is not None]
        return sorted(near, key=lambda run: (run.near, run.id))

    @property
    def streak(self) -> int:
        """Failures since the last completed run."""
        streak = 0
        for run in self.decided:
            if run.judged:
                streak = 0 if run.status in COMPLETED else streak + 1
        return streak

    @property
    def seconds(self) -> float:
        return sum(run.report.seconds or 0.0 for run in self.decided if run.report)

    def categories(self, runs: Iterable[Run]) -> dict[str, int]:
        """Counters of each category; `runs` are all runs of the tag, decided or not."""
        counts = Counter(f"n:{run.category}" for run in runs if run.status not in UNCOUNTED)
        counts += Counter(f"kept:{run.category}" for run in self.keeps)
        counts += Counter(f"near:{run.category}" for run in self.near)
        return dict(counts)

    def stats(self, runs: Iterable[Run]) -> dict[str, float]:
        """The summary's counters; `runs` are all runs of the tag, decided or not."""
        counts = Counter(run.status for run in runs)
        judged = self.finished - self.lost
        return {
            "total": self.finished, "kept": counts["keep"], "discarded": counts["discard"],
            "crashed": counts["crash"] + counts["timeout"], "timed_out": counts["timeout"],
            "cancelled": counts["cancelled"], "infra_lost": self.lost,
            "running": counts["running"], "queued": counts["queued"],
            "keep_rate": counts["keep"] / judged if judged else 0,
        }  # fmt: skip

    # -- the rules

    def decide(self, run: Run, report: Report) -> None:
        """Give the run its status and verdict, and adapt the strategy."""
        best = self.best.value if self.best else None
        run.state, run.report = "decided", report
        self.decided.append(run)
        if report.status == "completed":
            self._judge(run, best)
        else:
            self._fail(run, report)
        self._judged(run)

    def _fail(self, run: Run, report: Report) -> None:
        run.status = report.status
        run.verdict = {
            "experiment_id": run.id,
            "status": run.status,
            "consecutive_crashes": self.streak,
            "should_abort": self.streak >= self.max_crashes,
            "action": "git_reset",
            "reason": report.reason,
        }

    def _judged(self, run: Run) -> None:
        """What a verdict leads to."""
        if run.judged:
            self.adapt()
        elif run.status != "repeat" and run.id in self.sources.get(run.source_key, ()):
            self.sources[run.source_key].remove(run.id)  # the source has not had its run

    def _judge(self, run: Run, best: float | None) -> None:
        """A result against the best before it: strictly better is kept."""
        value = run.value
        improved = best is None or value < best
        run.status = "keep" if improved else "discard"
        if best is not None and not improved:
            distance = value - best
            run.near = distance if distance < self.threshold or value == best else None
        run.verdict = {
            "experiment_id": run.id,
            "status": run.status,
            "val_bpb": value,
            "improved": improved,
            "delta": 0.0 if best is None else best - value,
            "best_val_bpb": value if improved else best,
            "action": "keep_commit" if improved else "git_reset",
            "verified": False,
        }

    def fitting(self) -> tuple[str, float] | None:
        """Mode and temperature by the rules of api.md, in their order; None leaves them."""
        recent = self.recent
        if self.pinned or self.finished < 5 or not recent:
            return None
        crashed = sum(status in ("crash", "timeout") for status in recent) / len(recent)
        kept = recent.count("keep") / len(recent)
        if crashed > 0.5:
            return "exploit", 0.3
        if kept == 0 and self.finished > 20:
            return ("combine", 0.5) if len(self.near) >= 2 else ("ablation", 0.3)
        return ("exploit", 0.5) if kept > 0.3 else ("explore", 0.8)

    def adapt(self) -> bool:
        """Take the strategy that fits; False if the present one stays."""
        fitting = self.fitting()
        if fitting is not None:
            self.mode, self.temperature = fitting
            self.ratio = 0.8 if self.mode == "explore" else 0.3
        return fitting is not None
