"""Recomputes a tag from its journal alone, by the rules that decided it. Pure.

The journal has an entry for each revision of the tag, so a missing, doubled or foreign entry shows
as a gap. Whether the store agrees with what comes out is not asked here.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

from orchestrator.domain import (
    INFRA_LOST,
    Counts,
    Decision,
    Note,
    OperatorAction,
    OperatorHold,
    Outcome,
    Snapshot,
    Status,
    Strategy,
    Tag,
)
from orchestrator.rules.decide import decide
from orchestrator.rules.strategy import INITIAL

RECENT = 10


@dataclass(frozen=True)
class SetUp:
    """A tag began: what of its settings decisions depend on."""

    near_miss_threshold: float
    max_consecutive_crashes: int
    strategy: Strategy


@dataclass(frozen=True)
class Chosen:
    """A strategy was set, by a person or by the adapt endpoint, at this revision."""

    revision: int
    at_us: int
    strategy: Strategy
    act: OperatorAction | None = None


@dataclass(frozen=True)
class Steered:
    """A person changed how the tag goes on, and decided nothing."""

    revision: int
    at_us: int
    act: OperatorAction


@dataclass(frozen=True)
class Decided:
    """A run was decided: what was reported, what the decision rested on, and what it was."""

    experiment_id: str
    at_us: int
    category: str
    outcome: Outcome
    revision: int
    best: float | None
    best_id: str | None
    streak: int
    decision: Decision
    act: OperatorAction | None = None


Step = SetUp | Chosen | Steered | Decided


@dataclass
class Replay:
    """What a tag's totals must be, after each step that it takes."""

    tag: Tag
    counts: Counts = field(default_factory=Counts)
    strategy: Strategy = INITIAL
    recent: tuple[Status, ...] = ()
    near: dict[str, float] = field(default_factory=dict)
    keeps: dict[str, float] = field(default_factory=dict)
    kept_in: Counter[str] = field(default_factory=Counter)
    near_in: Counter[str] = field(default_factory=Counter)
    decided: dict[str, Decided] = field(default_factory=dict)
    notes: dict[str, Note] = field(default_factory=dict)
    # Each act of a person: the revision before it, when, and what.
    acts: list[tuple[int, int, OperatorAction]] = field(default_factory=list)
    last_us: int = 0
    differences: list[str] = field(default_factory=list)
    _begun: bool = False

    @classmethod
    def of(cls, name: str) -> "Replay":
        return cls(Tag(name, 0, 0.0, 0.0, 1))

    def take(self, step: Step) -> None:
        """Go on by one step; what is wrong with it joins `differences`."""
        if isinstance(step, SetUp):
            self._set_up(step)
            return
        if not self._begun:
            self._differ("the journal does not begin with the setup of the tag")
            self._begun = True
        if step.revision != self.tag.revision:
            self._differ(
                f"the journal goes from revision {self.tag.revision} to {step.revision}:"
                " entries are missing or doubled"
            )
            self.tag = replace(self.tag, revision=step.revision)
        if step.act is not None:
            self.acts.append((step.revision, step.at_us, step.act))
        if isinstance(step, Chosen):
            self.strategy = step.strategy
        elif isinstance(step, Steered):
            self._steer(step.at_us, step.act)
        else:
            self._decide(step)
        self.tag = replace(self.tag, revision=self.tag.revision + 1)

    def _set_up(self, step: SetUp) -> None:
        if self._begun:
            self._differ("the tag was set up a second time")
        self._begun = True
        self.strategy = step.strategy
        self.tag = replace(
            self.tag,
            near_miss_threshold=step.near_miss_threshold,
            max_consecutive_crashes=step.max_consecutive_crashes,
        )

    def _steer(self, at_us: int, act: OperatorAction) -> None:
        """What an act leaves behind in the tag; others leave their traces with runs."""
        if act.action in ("pause", "resume"):
            paused = act.action == "pause"
            if paused == (self.tag.pause is not None):
                self._differ(f"a {act.action} that changed nothing, at {at_us}")
            pause = OperatorHold(act.by, act.reason, at_us) if paused else None
            self.tag = replace(self.tag, pause=pause)
        elif act.action == "note":
            self.notes[act.target] = Note(act.target, act.reason, act.by, at_us)
        elif act.action == "drop-note" and self.notes.pop(act.target, None) is None:
            self._differ(f"{act.target} was dropped and had never been left")

    def _decide(self, step: Decided) -> None:
        who, tag = step.experiment_id, self.tag
        if who in self.decided:
            self._differ(f"{who} was decided twice")
        if step.at_us <= self.last_us:
            self._differ(f"{who} was decided at {step.at_us}, not after {self.last_us}")
        rested_on = (step.best, step.best_id, step.streak)
        known = (tag.best_val_bpb, tag.best_experiment_id, tag.consecutive_crashes)
        if rested_on != known:
            self._differ(
                f"{who} was decided on (best, its id, crash streak) {rested_on}, not {known}"
            )
        decision = self.decision(step.outcome)
        for name in ("status", "near_miss", "consecutive_crashes", "strategy"):
            written, due = getattr(step.decision, name), getattr(decision, name)
            if written != due:
                self._differ(f"{who}: {name} {written}, by the rules {due}")
        self._apply(step, decision)

    def decision(self, outcome: Outcome) -> Decision:
        """What the rules make of `outcome` as the tag stands."""
        return decide(
            Snapshot(self.tag, self.counts, self.strategy, len(self.near), self.recent), outcome
        )

    def _apply(self, step: Decided, decision: Decision) -> None:
        who, metrics = step.experiment_id, step.outcome.metrics
        self.decided[who] = replace(step, decision=decision)
        self.last_us = step.at_us
        name = decision.status.value
        lost = step.outcome.reason == INFRA_LOST
        self.counts = replace(
            self.counts,
            **{name: getattr(self.counts, name) + 1, "infra_lost": self.counts.infra_lost + lost},
        )
        self.tag = replace(self.tag, consecutive_crashes=decision.consecutive_crashes)
        if decision.counts_in_rates:
            self.recent = (decision.status, *self.recent)[:RECENT]
        if decision.near_miss is not None:
            self.near[who] = decision.near_miss
            self.near_in[step.category] += 1
        if decision.strategy is not None:
            self.strategy = decision.strategy
        if metrics is not None:
            seconds = self.tag.training_seconds + (metrics.training_seconds or 0.0)
            self.tag = replace(self.tag, training_seconds=seconds)
        if decision.improved and metrics is not None:
            self.keeps[who] = metrics.val_bpb
            self.kept_in[step.category] += 1
            self.tag = replace(
                self.tag,
                best_val_bpb=metrics.val_bpb,
                best_experiment_id=who,
                best_us=step.at_us,
            )

    def _differ(self, what: str) -> None:
        self.differences.append(what)
