"""The built-in search agent: which edit of train.py to try next.

The orchestrator's suggestion (mode, categories, near misses) chooses the kind of edit; Optuna's TPE
sampler proposes a direction in the space of the knobs. The same seed and the same results give the
same proposals. It submits nothing.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.demo.constants import Value, read_constants, render, same_value, with_constants
from orchestrator.demo.knobs import Knob, usable_knobs, with_companions

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_TRIES_PER_MOVE = 40
# How far a step goes, in parts of a knob's range.
_LARGE_STEP, _SMALL_STEP = 0.3, 0.1
_CRASH_PENALTY = 0.5
# With fewer results than this there is nothing to exploit, and TPE draws blindly.
_FEW_RESULTS = 4
_LEAN_RATE = 0.8


class NothingLeftError(Exception):
    """The agent finds no edit that it has not tried yet."""


@dataclass(frozen=True)
class Guidance:
    """What the orchestrator says about the tag: strategy, suggestion, and the near misses' ids.

    `explore_ratio` of the edits explore in any mode; None leaves it to the mode.
    """

    mode: str = "explore"
    temperature: float = 1.0
    explore_ratio: float | None = None
    underexplored: Sequence[str] = ()
    high_yield: Sequence[str] = ()
    near_misses: Sequence[str] = ()


@dataclass(frozen=True)
class Proposal:
    """One edit, as it is submitted. `changes` are relative to the source it started from."""

    source: str
    hypothesis: str
    category: str
    diff_summary: str
    changes: Mapping[str, Value]


class Agent:
    """Proposes edits of `baseline`; pass each result to `observe` before the next proposal."""

    def __init__(self, baseline: str, seed: int) -> None:
        import optuna

        self.baseline = baseline
        self.seed = seed
        self._base = _values(baseline)
        self.knobs = usable_knobs(self._base)
        if not self.knobs:
            raise NothingLeftError("train.py has no constant that the built-in agent knows")
        self._random = random.Random(seed)  # noqa: S311  (a search, not a secret)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=6)
        self._study = optuna.create_study(sampler=sampler)
        self._results = 0
        self._seen = {baseline}
        self._moves: dict[str, Mapping[str, Value]] = {}

    def observe(self, experiment_id: str, proposal: Proposal | None, val_bpb: float | None) -> None:
        """Learn the result of a proposal, or of the baseline (None); no val_bpb means a crash."""
        source = proposal.source if proposal else self.baseline
        self._seen.add(source)
        if proposal:
            self._moves[experiment_id] = proposal.changes
        if val_bpb is None:
            measured = (t.value for t in self._study.trials if t.value is not None)
            val_bpb = max(measured, default=1.0) + _CRASH_PENALTY
        self._tell(_values(source), val_bpb)
        self._results += 1

    def propose(self, best: str, guidance: Guidance) -> Proposal:
        """An untried edit of the source `best`; NothingLeftError if none is found."""
        moves: dict[str, Callable[[], Proposal | None]] = {
            "combine": lambda: self._combine(best, guidance),
            "ablation": lambda: self._ablate(best),
            "exploit": lambda: self._step_one_or_two(best, guidance, large=False),
            "explore": lambda: self._step_one_or_two(best, guidance, large=True),
        }
        # Every mode falls back on exploring, which always has something to try.
        for mode in dict.fromkeys((self._mode(guidance), "explore")):
            for _ in range(_TRIES_PER_MOVE):
                proposal = moves.get(mode, moves["explore"])()
                if proposal is not None and proposal.source not in self._seen:
                    self._seen.add(proposal.source)
                    return proposal
        raise NothingLeftError("the built-in agent has no edit left that it has not tried")

    def _mode(self, guidance: Guidance) -> str:
        if guidance.explore_ratio is None:
            return guidance.mode
        if self._results < _FEW_RESULTS or self._random.random() < guidance.explore_ratio:
            return "explore"
        return "exploit" if guidance.mode == "explore" else guidance.mode

    def _step_one_or_two(self, best: str, guidance: Guidance, *, large: bool) -> Proposal | None:
        """Explore: a large step of one constant, in a category that was hardly tried. Exploit: a
        small step of one or two, in a category that paid."""
        values = _values(best)
        usable = list(self._usable(values).values())
        if not usable:
            return None
        wanted = guidance.underexplored if large else guidance.high_yield
        pool = [k for k in usable if k.category in wanted] or usable
        chosen = [self._pick(pool)]
        if not large and self._random.random() < 0.5:
            chosen.append(self._pick(usable))
        spread = _LARGE_STEP if large else _SMALL_STEP
        spread *= max(0.3 if large else 0.5, guidance.temperature)
        aim, toward = self._sample(), 0.5 if large else 0.25
        changes: dict[str, Value] = {}
        for knob in chosen:
            pull = toward * (aim[knob.name] - knob.encode(values[knob.name]))
            changes[knob.name] = self._step(knob, values[knob.name], pull, spread)
        why = "a large step, little tried" if large else "a small step near the best"
        return self._proposal(best, changes, chosen[0].category, why)

    def _combine(self, best: str, guidance: Guidance) -> Proposal | None:
        """The edits of one or two near misses on top of the best: small gains may add up."""
        known = [self._moves[i] for i in guidance.near_misses if i in self._moves]
        if not known:
            return None
        count = min(len(known), self._random.choice((1, 2, 2)))
        picked = self._random.sample(known, count)
        changes = {name: value for move in picked for name, value in move.items()}
        return self._proposal(best, changes, "combination", "merges near misses")

    def _ablate(self, best: str) -> Proposal | None:
        """Take back one edit of the best, in case it does not help."""
        values = _values(best)
        changed = [n for n in self._usable(values) if not same_value(values[n], self._base[n])]
        if not changed:
            return None
        name = self._random.choice(changed)
        return self._proposal(best, {name: self._base[name]}, "ablation", "takes one edit back")

    def _usable(self, values: Mapping[str, Value]) -> dict[str, Knob]:
        """The baseline's knobs that the source still has, with a value that they fit."""
        return {n: k for n, k in self.knobs.items() if n in values and k.fits(values[n])}

    def _pick(self, pool: Sequence[Knob]) -> Knob:
        return self._random.choices(pool, weights=[k.weight for k in pool])[0]

    def _step(self, knob: Knob, old: Value, pull: float, spread: float) -> Value:
        """A new value: `pull` is part of the way to TPE's proposal; a random step of `spread`
        ranges is added to it."""
        low, high = knob.range(self._base[knob.name])
        here = knob.encode(old)
        step = self._random.gauss(0, spread * (high - low))
        if self._results >= _FEW_RESULTS:
            step += pull
        elif knob.lean and self._random.random() < _LEAN_RATE:
            step = math.copysign(step, knob.lean)
        # A tiny change is not worth a run.
        least = 1 if knob.whole else spread * (high - low) / 2
        step = math.copysign(max(abs(step), least), step)
        if not low <= here + step <= high:
            step = -step
        return knob.decode(min(max(here + step, low), high), old)

    def _proposal(
        self, best: str, changes: Mapping[str, Value], category: str, why: str
    ) -> Proposal | None:
        values = _values(best)
        own = {n: v for n, v in changes.items() if n in self.knobs}
        full = dict(changes) | with_companions(self.knobs, own, self._base)
        real = {n: v for n, v in full.items() if n in values and not same_value(v, values[n])}
        if not real:
            return None
        edits = (f"{n} {render(values[n])} → {render(v)}" for n, v in real.items())
        summary = ", ".join(edits).replace("PROFILE.", "")
        return Proposal(with_constants(best, real), f"{summary}: {why}", category, summary, real)

    def _sample(self) -> dict[str, float]:
        """Coordinates of TPE's next point; `_tell` adds the point that was run instead of it."""
        from optuna.trial import TrialState

        trial = self._study.ask(self._distributions())
        self._study.tell(trial, state=TrialState.FAIL)
        return {name: float(at) for name, at in trial.params.items()}

    def _tell(self, values: Mapping[str, Value], val_bpb: float) -> None:
        from optuna.trial import create_trial

        spaces = self._distributions()
        params: dict[str, float] = {}
        for name, knob in self._usable(values).items():
            low, high = knob.range(self._base[name])
            at = min(max(knob.encode(values[name]), low), high)
            params[name] = round(at) if knob.whole else at
        known = {n: spaces[n] for n in params}
        self._study.add_trial(create_trial(params=params, distributions=known, value=val_bpb))

    def _distributions(self) -> "dict[str, BaseDistribution]":
        from optuna.distributions import FloatDistribution, IntDistribution

        spaces: dict[str, BaseDistribution] = {}
        for name, knob in self.knobs.items():
            low, high = knob.range(self._base[name])
            if knob.whole:
                spaces[name] = IntDistribution(round(low), round(high))
            else:
                spaces[name] = FloatDistribution(low, high)
        return spaces


def _values(source: str) -> dict[str, Value]:
    return {name: constant.value for name, constant in read_constants(source).items()}
