"""Recomputes a tag from its journal alone, by the rules that decided it. Pure.

The journal has an entry for each revision of the tag, so a missing, doubled or foreign entry shows
as a gap. services/core/audit.py compares what comes out with the store.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from orchestrator.decisions import Decision, EarlyStops, RunResult, Snapshot
from orchestrator.domain import (
    INFRA_LOST,
    RECENT_RUNS,
    Best,
    Counts,
    Forecast,
    KeepRule,
    Note,
    OperatorAction,
    OperatorHold,
    Status,
    Strategy,
    Tag,
)
from orchestrator.rules import greedy_merge
from orchestrator.rules.decide import decide
from orchestrator.rules.early_stop import after_condemned, after_run, forecast, judged_against
from orchestrator.rules.race import FinishedRun, State as RaceState, begin, conflicted
from orchestrator.rules.race.decide import RaceDecision, decide as decide_race, unmerged
from orchestrator.rules.strategy import INITIAL


@dataclass(frozen=True)
class SetUp:
    """A tag began, with the settings that decisions depend on."""

    near_miss_threshold: float
    max_consecutive_crashes: int
    strategy: Strategy
    keep_rule: KeepRule = "greedy"
    early_stop: bool = False


@dataclass(frozen=True)
class Chosen:
    """A strategy was set at this revision, by a person (`action`) or by the adapt endpoint."""

    revision: int
    at_us: int
    strategy: Strategy
    action: OperatorAction | None = None


@dataclass(frozen=True)
class Steered:
    """An operator action changed the tag and decided nothing."""

    revision: int
    at_us: int
    action: OperatorAction


@dataclass(frozen=True)
class Switched:
    """A person let the tag keep by `race`: `seed` is that of its best's run, None without one."""

    revision: int
    at_us: int
    action: OperatorAction
    seed: int | None = None


@dataclass(frozen=True)
class Unmerged:
    """Wins over an old parent could not be merged: why not, by id."""

    revision: int
    at_us: int
    conflicts: Mapping[str, str]
    action: None = None


@dataclass(frozen=True)
class Condemned:
    """The early stop condemned a run: by what, and on which losses of its curve. Under `race` also
    the champion that it was made from."""

    revision: int
    at_us: int
    experiment_id: str
    losses: tuple[float, ...]
    forecast: Forecast
    base: str | None = None
    action: None = None


@dataclass(frozen=True)
class Settled:
    """A candidate that a decision settled."""

    experiment_id: str
    category: str
    status: Status
    near_miss: float | None


@dataclass(frozen=True)
class Decided:
    """A run was decided: what was reported, what the decision rested on, and what it was. With the
    run as the keep rule takes it and the candidates that it settled, where the rule has a state."""

    experiment_id: str
    at_us: int
    category: str
    result: RunResult
    revision: int
    best: float | None
    best_id: str | None
    streak: int
    decision: Decision
    action: OperatorAction | None = None
    race_run: FinishedRun | None = None
    settled: tuple[Settled, ...] = ()


Step = SetUp | Chosen | Steered | Switched | Unmerged | Condemned | Decided


@dataclass
class Replay:
    """What a tag's totals must be after the steps taken so far."""

    tag: Tag
    counts: Counts = field(default_factory=Counts)
    strategy: Strategy = INITIAL
    recent: tuple[Status, ...] = ()
    near: dict[str, float] = field(default_factory=dict)
    keeps: dict[str, float] = field(default_factory=dict)
    kept_in: Counter[str] = field(default_factory=Counter)
    near_in: Counter[str] = field(default_factory=Counter)
    decided: dict[str, Decided] = field(default_factory=dict)
    race: RaceState = field(default_factory=RaceState)
    stops: EarlyStops = field(default_factory=EarlyStops)
    forecasts: dict[str, Forecast] = field(default_factory=dict)
    notes: dict[str, Note] = field(default_factory=dict)
    # Each operator action: the revision before it, when, and what.
    actions: list[tuple[int, int, OperatorAction]] = field(default_factory=list)
    last_us: int = 0
    differences: list[str] = field(default_factory=list)
    _begun: bool = False

    @classmethod
    def of(cls, name: str, rules: int) -> "Replay":
        """That of a tag's journal, by the rules with which its race began."""
        return cls(Tag(name, 0, 0.0, 0.0, 1), race=RaceState(rules=rules))

    def take(self, step: Step) -> None:
        """Take the next step; what is wrong with it joins `differences`."""
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
        if step.action is not None:
            self.actions.append((step.revision, step.at_us, step.action))
        if isinstance(step, Chosen):
            self.strategy = step.strategy
        elif isinstance(step, Steered):
            self._steer(step.at_us, step.action)
        elif isinstance(step, Switched):
            self._switch(step)
        elif isinstance(step, Unmerged):
            self._unmerge(step)
        elif isinstance(step, Condemned):
            self._condemn(step)
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
            keep_rule=step.keep_rule,
            early_stop=step.early_stop,
        )

    def _steer(self, at_us: int, action: OperatorAction) -> None:
        """Apply an action on the tag; the others change runs."""
        if action.kind in ("pause", "resume"):
            paused = action.kind == "pause"
            if paused == (self.tag.pause is not None):
                self._differ(f"a {action.kind} that changed nothing, at {at_us}")
            pause = OperatorHold(action.by, action.reason, at_us) if paused else None
            self.tag = replace(self.tag, pause=pause)
        elif action.kind == "note":
            self.notes[action.target] = Note(action.target, action.reason, action.by, at_us)
        elif action.kind == "drop-note" and self.notes.pop(action.target, None) is None:
            self._differ(f"{action.target} was dropped and had never been left")

    def _switch(self, step: Switched) -> None:
        if self.tag.keep_rule == "race":
            self._differ(f"the tag began to keep by race twice, at {step.at_us}")
        if (self.tag.best is None) != (step.seed is None):
            self._differ(f"the race began with seed {step.seed} of {self.tag.best}")
        self.tag = replace(self.tag, keep_rule="race")
        best = self.tag.best
        race = RaceState() if best is None else begin(best, step.seed or 0)
        self.race = replace(race, rules=self.race.rules)

    def _condemn(self, step: Condemned) -> None:
        who = step.experiment_id
        if who in self.forecasts or who in self.decided:
            self._differ(f"{who} was condemned after it was decided, or a second time")
        best = judged_against(self.tag, self.race, step.base)
        due = forecast(self.stops, who, step.losses, best)
        if due != step.forecast:
            self._differ(f"{who} was condemned by {step.forecast}, by the rules {due}")
        self.stops = after_condemned(self.stops)
        self.forecasts[who] = step.forecast

    def _decide(self, step: Decided) -> None:
        who, tag = step.experiment_id, self.tag
        if step.result.kind == "stopped":
            if who not in self.forecasts:
                self._differ(f"{who} was stopped early and never condemned")
            result = replace(step.result, forecast=self.forecasts.get(who))
            step = replace(step, result=result)
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
        decision = self.decision(step.result, step.race_run)
        for name in ("status", "near_miss", "consecutive_crashes", "strategy"):
            written, due = getattr(step.decision, name), getattr(decision, name)
            if written != due:
                self._differ(f"{who}: {name} {written}, by the rules {due}")
        self._apply(step, decision)
        if isinstance(decision, RaceDecision):
            self._settle(step, decision)

    def decision(self, result: RunResult, race_run: FinishedRun | None = None) -> Decision:
        """What the rules decide on `result` now."""
        snapshot = Snapshot(self.tag, self.counts, self.strategy, len(self.near), self.recent)
        if race_run is None:
            return decide(snapshot, result)
        rule = decide_race if self.tag.keep_rule == "race" else greedy_merge.decide
        return rule(snapshot, result, self.race, race_run)

    def _apply(self, step: Decided, decision: Decision) -> None:
        self.last_us = step.at_us
        lost = step.result.reason == INFRA_LOST
        self.counts = self.counts.plus(decision.status, infra_lost=lost)
        self.tag = replace(self.tag, consecutive_crashes=decision.consecutive_crashes)
        self._judge(step, decision)
        if self.tag.early_stop:
            condemned_by = self.forecasts.get(step.experiment_id)
            self.stops = after_run(self.stops, step.result, condemned_by)
        if decision.strategy is not None:
            self.strategy = decision.strategy
        metrics = step.result.metrics
        if metrics is not None:
            seconds = self.tag.training_seconds + (metrics.training_seconds or 0.0)
            self.tag = replace(self.tag, training_seconds=seconds)
        best = decision.best
        if best is None and decision.improved and metrics is not None:
            best = Best(step.experiment_id, metrics.val_bpb)
        if best is not None and best != self.tag.best:
            self.tag = replace(
                self.tag,
                best_val_bpb=best.val_bpb,
                best_experiment_id=best.experiment_id,
                best_us=step.at_us,
            )

    def _judge(self, step: Decided, decision: Decision) -> None:
        """What the verdict on a run adds to the totals."""
        who, metrics = step.experiment_id, step.result.metrics
        self.decided[who] = replace(step, decision=decision)
        if decision.counts_in_rates:
            self.recent = (decision.status, *self.recent)[:RECENT_RUNS]
        if decision.near_miss is not None:
            self.near[who] = decision.near_miss
            self.near_in[step.category] += 1
        if decision.improved and metrics is not None:
            self.keeps[who] = decision.best.val_bpb if decision.best else metrics.val_bpb
            self.kept_in[step.category] += 1

    def _settle(self, step: Decided, decision: RaceDecision) -> None:
        """The verdicts on other experiments, and the race after this run."""
        self.race = decision.state
        settled = []
        for who, new in decision.others:
            known = self.decided[who]
            words = replace(new, best_before=known.decision.best_before)
            if known.decision.status is not Status.CANDIDATE or new.status is Status.CANDIDATE:
                self.decided[who] = replace(known, decision=words)
                continue
            self.last_us += 1
            settled.append(Settled(who, known.category, new.status, new.near_miss))
            candidates = self.counts.candidate - 1
            self.counts = replace(self.counts.plus(new.status), candidate=candidates)
            self._judge(replace(known, at_us=self.last_us), words)
        if tuple(settled) != step.settled:
            self._differ(
                f"{step.experiment_id} settled {step.settled}, by the rules {tuple(settled)}"
            )

    def _unmerge(self, step: Unmerged) -> None:
        self.race = conflicted(self.race, step.conflicts)
        for who, why in step.conflicts.items():
            known = self.decided[who]
            words = replace(known.decision, why=unmerged(known.decision.why, why))
            self.decided[who] = replace(known, decision=words)

    def _differ(self, what: str) -> None:
        self.differences.append(what)
