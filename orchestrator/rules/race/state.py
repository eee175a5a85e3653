"""The values of the keep rule `race`: what comes in, what is kept between runs, what comes out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import TypeAdapter

from orchestrator.rules import pace
from orchestrator.rules.noise import SeedNoise
from orchestrator.rules.race.beliefs import (
    KNOWN,
    UNKNOWN,
    Belief,
    Offsets,
    Prior,
    Reading,
    adjusted,
    counted,
    gap,
    idea,
    of_offsets,
    on_model,
    probability_better,
)

BASELINE_RUNS = 5
FIRST_SEED = 42
# Of the rules by which a tag is judged; it keeps the number that it began with, so that its audit
# decides as its orchestrator did. Since 2 a run that seemed disturbed may count after all.
RULES = 2

Ending = Literal["completed", "crashed", "cancelled", "lost"]


@dataclass(frozen=True)
class FinishedRun:
    """A run that completed with `value`, or ended otherwise. `source` is the experiment whose
    source it trains, `base` the champion that this source was made from. `model` is that of its GPU
    where the tag mixes models; `slow` the part of its training that slow steps cost it."""

    source: str
    seed: int
    value: float | None
    base: str | None = None
    repeat: bool = False
    merged_from: tuple[str, ...] = ()
    ending: Ending = "completed"
    gpu: str | None = None
    model: str | None = None
    slow: float | None = None


@dataclass(frozen=True)
class Source:
    """A source and its runs so far. Only a baseline has no `base`, only a merge has a `prior` of
    its own."""

    id: str
    base: str | None
    readings: tuple[Reading, ...] = ()
    prior: Prior | None = None
    merged_from: tuple[str, ...] = ()

    @property
    def runs(self) -> int:
        return len(counted(self.readings))

    @property
    def unsettled(self) -> bool:
        """True of a baseline that has too few runs to judge others by, and is worth more."""
        few = self.runs < BASELINE_RUNS and len(self.readings) < 2 * BASELINE_RUNS
        return self.base is None and few

    def fresh(self, model: str | None = None) -> dict[int, float]:
        """The runs on one model that say how noisy the source is: not the one for which it was
        picked."""
        return counted(on_model(self.readings if self.base is None else self.readings[1:], model))


@dataclass(frozen=True)
class Champion:
    """A source that is or was the best, and what is believed of its value."""

    source: Source
    belief: Belief
    confirmed: bool = True

    @property
    def id(self) -> str:
        return self.source.id

    @property
    def crashes(self) -> int:
        return sum(reading.crashed for reading in self.source.readings)


class Evidence(NamedTuple):
    """What speaks for a candidate: its gap to its parent, what was believed of it before, and the
    probability that it is better."""

    parent: Champion
    gap: Belief
    prior: Prior
    probability: float


@dataclass(frozen=True)
class State:
    """What the decided runs of a tag amount to. Its size hardly grows with their number.

    `champions` are the newest ones, the last is in force. `candidates` are open, `waiting` are wins
    over an old parent with what is believed of their effects. `offsets` has the GPU models of a tag
    that mixes them, `unchecked` how many runs each GPU has had since it ran the champion, `slow`
    what slow steps cost the newest runs on each model.
    """

    noise: SeedNoise = field(default_factory=SeedNoise)
    champions: tuple[Champion, ...] = ()
    candidates: Mapping[str, Source] = field(default_factory=dict)
    waiting: Mapping[str, Belief] = field(default_factory=dict)
    runs: int = 0
    repeats: int = 0
    offsets: Offsets = field(default_factory=dict)
    unchecked: Mapping[str, int] = field(default_factory=dict)
    slow: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    rules: int = RULES

    @property
    def known(self) -> set[str]:
        """The sources of which a run is evidence."""
        return {one.id for one in self.champions} | self.candidates.keys()

    def parent(self, base: str | None) -> Champion:
        """The champion of that id; the one in force if the state does not know it."""
        return next((one for one in self.champions if one.id == base), self.champions[-1])

    def offset(self, model: str | None) -> Belief:
        return KNOWN if model is None else self.offsets.get(model, UNKNOWN)

    def unusual(self, run: FinishedRun) -> str | None:
        """What is unlike other runs in the steps of this one."""
        return pace.unusual(run.slow, self.slow.get(run.model or "", ()))

    def seen(self, source: Source) -> tuple[Reading, ...]:
        """The readings of a source, comparable."""
        return adjusted(source.readings, self.offsets)

    def evidence(self, source: Source) -> Evidence:
        """Without a reading that counts, what was believed before."""
        parent, own, found = self.parent(source.base), self.seen(source), UNKNOWN
        if counted(own):
            delta, variance = gap(own, parent.belief, self.seen(parent.source), self.noise)
            found = Belief(delta, variance + of_offsets(own, self.offsets))
        prior = source.prior or idea(self.noise)
        return Evidence(parent, found, prior, probability_better(found, prior))


@dataclass(frozen=True)
class Next:
    """What to run: one more seed of a source, a merge of `sources` onto the champion (the first of
    them first), or an idea of an agent. `check` is the GPU model or the GPU that a repeat of the
    champion is to check, on `gpu`."""

    kind: Literal["repeat", "merge", "idea"]
    sources: tuple[str, ...] = ()
    seed: int = FIRST_SEED
    check: str | None = field(default=None, repr=False)
    gpu: str | None = field(default=None, repr=False)


_STATE = TypeAdapter(State)
# The newest states by their text: each is read twice, for what runs next and for the next verdict,
# mostly by the process that wrote it.
_KNOWN: dict[str, State] = {}
_KEPT = 64


def from_json(text: str | None) -> State:
    """The state that `to_json` made the text of; that of a new tag for None."""
    if text is None:
        return State()
    state = _KNOWN.get(text)
    return state or _kept(text, _STATE.validate_python({"rules": 1} | json.loads(text)))


def to_json(state: State) -> str:
    text = _STATE.dump_json(state).decode()
    _kept(text, state)
    return text


def _kept(text: str, state: State) -> State:
    _KNOWN[text] = state
    if len(_KNOWN) > _KEPT:
        del _KNOWN[next(iter(_KNOWN))]
    return state
