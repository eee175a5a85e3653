"""One decided run more: the new state, and the verdicts that follow. Pure."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from orchestrator.decisions import RaceStatus, RaceVerdict
from orchestrator.domain import Best
from orchestrator.rules.noise import SeedNoise
from orchestrator.rules.race import beliefs
from orchestrator.rules.race.beliefs import KNOWN, Belief, Reading, counted
from orchestrator.rules.race.drift import slow, unchecked
from orchestrator.rules.race.readings import calm, read, with_reading
from orchestrator.rules.race.state import (
    Champion,
    Ending,
    Evidence,
    FinishedRun,
    Source,
    State,
)

CONFIRM = 0.98
PROVISIONAL = 0.80
DISCARD_BELOW = 0.27  # above what a tie can reach, however little is known
WAIT = 0.20  # a win over an old parent
MOST_RUNS = 10
CRASHES = 2  # of a champion
# What a state holds at most. A run made from an older champion is judged as it stands.
CHAMPIONS, WAITING = 32, 16

Stepped = tuple[State, tuple[RaceVerdict, ...]]
T = TypeVar("T")


def with_waiting(state: State, source: str, gain: Belief) -> State:
    """The state with one more win that waits for a merge."""
    waiting = {**state.waiting, source: gain}
    if len(waiting) > WAITING:
        waiting.pop(min(waiting, key=lambda name: waiting[name].mean))
    return replace(state, waiting=waiting)


def begin(best: Best, seed: int) -> State:
    """The race of a tag that another rule has judged so far: its best is a baseline with one run,
    so it is repeated before others are judged by it. As a best of single runs it is too good."""
    noise, readings = SeedNoise(), (Reading(seed, best.val_bpb),)
    source = Source(best.experiment_id, None, readings)
    return State(noise, (Champion(source, beliefs.baseline(readings, noise)),))


def conflicted(state: State, sources: Collection[str]) -> State:
    """The state without waiting wins that could not be merged."""
    return replace(state, waiting=_without(state.waiting, *sources))


def step(state: State, run: FinishedRun) -> Stepped:
    """The state after `run`, and the verdicts: on its own source, then on others."""
    known = next((one for one in state.champions if one.id == run.source), None)
    of_baseline = known is not None and known.source.unsettled
    repeats = state.repeats + (run.repeat and not of_baseline)
    uneven = state.unusual(run) is not None
    state = replace(
        state, runs=state.runs + 1, repeats=repeats, unchecked=unchecked(state, run),
        slow=slow(state, run),
    )  # fmt: skip
    if run.value is None:
        return _failed(state, run) if known is None else _champion_failed(state, run, known)
    if run.model is not None and not state.offsets:
        state = replace(state, offsets={run.model: KNOWN})
    source = state.candidates.get(run.source)
    if run.repeat and source is None and known is None:
        return state, ()  # it was settled while this run was under way
    if not state.champions:
        return _first(state, run, run.value)
    if known is not None:
        return _champion_ran(state, known, run, run.value, uneven=uneven)
    if source is None:
        state, source = _new(state, run)
    parent = state.parent(source.base).source
    noise, source = read(state, source, run, run.value, parent, uneven=uneven)
    state = replace(state, noise=noise)
    return _judge(state, source, state.evidence(source))


def _new(state: State, run: FinishedRun) -> tuple[State, Source]:
    """A candidate with its first run. Its parent is the champion if it names none that is known."""
    base = state.parent(run.base).id
    effects = [state.waiting[part] for part in run.merged_from if part in state.waiting]
    prior = beliefs.stacked(effects) if effects else None
    state = replace(state, waiting=_without(state.waiting, *run.merged_from))
    return state, Source(run.source, base, (), prior, run.merged_from)


def _first(state: State, run: FinishedRun, value: float) -> Stepped:
    baseline = Source(run.source, None, (Reading(run.seed, value, model=run.model),))
    champion = Champion(baseline, beliefs.baseline(baseline.readings, state.noise))
    why = f"the first result, {value:.4f}: all others are judged against it"
    verdict = RaceVerdict(run.source, "keep", 0.0, state.noise.sd, 1.0, 1, why, confirmed=True)
    return replace(state, champions=(champion,)), (verdict,)


def _champion_ran(
    state: State, champion: Champion, run: FinishedRun, value: float, *, uneven: bool
) -> Stepped:
    """The estimate of a champion, of now or earlier, moves; and with it the verdicts on those that
    race against it. On a model other than the first, so does the offset of that model."""
    noise, source = read(state, champion.source, run, value, uneven=uneven)
    offset, offsets, belief = state.offset(run.model), state.offsets, champion.belief
    if source.readings[-1].counts and run.model is not None:
        moved = beliefs.after_calibration(offset, belief, value, noise)
        offsets = {**offsets, run.model: moved}
    if champion.source.unsettled:
        if not source.unsettled:
            noise, source = calm(noise, source)
        first = (one for one in source.readings if not state.offset(one.model).variance)
        belief = beliefs.baseline(first, noise)
    else:
        for one in source.readings:
            if one.counts and one.value is not None and one not in champion.source.readings:
                belief = beliefs.after_reading(belief, one.value, noise, state.offset(one.model))
    in_force = champion is state.champions[-1]
    state = replace(state, noise=noise, offsets=offsets)
    state = _with(state, replace(champion, source=source, belief=belief))
    return _reviewed(*_confirmed(state)) if in_force else (state, ())


def _with(state: State, champion: Champion) -> State:
    """The state with another value for the champion of that id."""
    champions = (champion if one.id == champion.id else one for one in state.champions)
    return replace(state, champions=tuple(champions))


def _confirmed(state: State) -> Stepped:
    """Confirm a provisional champion that is by now better than the last confirmed one."""
    champion = state.champions[-1]
    if champion.confirmed:
        return state, ()
    last = next((one for one in reversed(state.champions) if one.confirmed), state.champions[0])
    source = replace(champion.source, base=last.id)
    evidence = state.evidence(source)
    if evidence.probability < CONFIRM:
        return state, ()
    verdict = _verdict(state, source, evidence, "keep", "confirmed")
    state = _with(state, replace(champion, confirmed=True))
    return state, (replace(verdict, confirmed=True),)


def _reviewed(state: State, verdicts: tuple[RaceVerdict, ...]) -> Stepped:
    """Judge the candidates again, the likeliest first, until one of them is the champion."""
    champion = state.champions[-1]
    judged = [(state.evidence(source), source) for source in state.candidates.values()]
    for evidence, source in sorted(judged, key=lambda pair: -pair[0].probability):
        state, more = _judge(state, source, evidence)
        verdicts += tuple(verdict for verdict in more if verdict.status != "repeat")
        if state.champions[-1] is not champion:
            break
    return state, verdicts


def _judge(state: State, source: Source, evidence: Evidence) -> Stepped:
    """The table of verdicts."""
    probability, most = evidence.probability, len(source.readings) >= MOST_RUNS
    if evidence.parent is not state.champions[-1]:
        return _old_parent(state, source, evidence)
    if not most and not counted(state.seen(source)):
        verdict = _verdict(state, source, evidence, "repeat", "another seed follows")
        return replace(state, candidates={**state.candidates, source.id: source}), (verdict,)
    if probability >= CONFIRM:
        return _crowned(state, source, evidence, confirmed=True)
    if most and probability >= PROVISIONAL:
        return _crowned(state, source, evidence, confirmed=False)
    if most or probability < DISCARD_BELOW:
        end = f"not proved after {MOST_RUNS} runs" if most else "discarded"
        candidates = _without(state.candidates, source.id)
        verdict = _verdict(state, source, evidence, "discard", end)
        return replace(state, candidates=candidates), (verdict,)
    verdict = _verdict(state, source, evidence, "repeat", "another seed follows")
    return replace(state, candidates={**state.candidates, source.id: source}), (verdict,)


def _crowned(state: State, source: Source, evidence: Evidence, *, confirmed: bool) -> Stepped:
    """`source` becomes the champion. Those that raced with it wait for a merge."""
    parent = evidence.parent
    own = state.seen(source)
    unsure = beliefs.of_offsets(own, state.offsets)
    belief = beliefs.successor(parent.belief, own, state.noise, evidence.prior, unsure)
    end = "kept" if confirmed else f"kept provisionally: {len(source.readings)} runs prove no more"
    verdict = replace(_verdict(state, source, evidence, "keep", end), confirmed=confirmed)
    state = replace(state, candidates=_without(state.candidates, source.id))
    state, verdicts = _dismissed(state)
    champions = (*state.champions, Champion(source, belief, confirmed))
    return replace(state, champions=champions[-CHAMPIONS:]), (verdict, *verdicts)


def _dismissed(state: State) -> Stepped:
    """The champion is about to be replaced: its candidates become wins that wait, or discards."""
    verdicts: list[RaceVerdict] = []
    for source in state.candidates.values():
        state, more = _old_parent(state, source, state.evidence(source))
        verdicts += more
    return state, tuple(verdicts)


def _old_parent(state: State, source: Source, evidence: Evidence) -> Stepped:
    """A run on a champion that was or is being replaced never replaces the new one as it stands: it
    would drop what came in between."""
    state = replace(state, candidates=_without(state.candidates, source.id))
    if evidence.probability < WAIT:
        return state, (_verdict(state, source, evidence, "discard", "discarded"),)
    effect = beliefs.effect(evidence.gap, evidence.prior)
    end = "its parent is no longer the champion, so it waits for a merge"
    verdict = _verdict(state, source, evidence, "wait", end)
    return with_waiting(state, source.id, effect), (verdict,)


ENDINGS: dict[Ending, str] = {
    "crashed": "crashed", "cancelled": "was cancelled", "lost": "was lost by its workers",
}  # fmt: skip


def _failed(state: State, run: FinishedRun) -> Stepped:
    """What becomes of an idea whose run did not complete is no matter of this rule. A repeat that
    crashed says that the source fails with some seeds; one that cannot be had proves nothing."""
    state = replace(state, waiting=_without(state.waiting, *run.merged_from))
    source = state.candidates.get(run.source)
    if source is None:
        return state, ()
    end = f"its run with seed {run.seed} {ENDINGS[run.ending]}"
    verdict = _verdict(state, source, state.evidence(source), "discard", end)
    return replace(state, candidates=_without(state.candidates, source.id)), (verdict,)


def _champion_failed(state: State, run: FinishedRun, champion: Champion) -> Stepped:
    """The second crash ends a champion that has a predecessor."""
    in_force = champion is state.champions[-1]
    reading = Reading(run.seed, None, counts=False, crashed=run.ending == "crashed")
    champion = replace(champion, source=with_reading(champion.source, reading))
    state = _with(state, champion)
    if not in_force or champion.crashes < CRASHES or len(state.champions) == 1:
        return state, ()
    return _dethroned(state, champion)


def _dethroned(state: State, champion: Champion) -> Stepped:
    before = state.champions[-2]
    source = replace(champion.source, base=before.id)
    end = f"{champion.crashes} of its repeats crashed, so {before.id} is the champion again"
    verdict = _verdict(state, source, state.evidence(source), "discard", end)
    state, verdicts = _dismissed(state)
    return replace(state, champions=state.champions[:-1]), (verdict, *verdicts)


def _verdict(
    state: State, source: Source, evidence: Evidence, status: RaceStatus, end: str
) -> RaceVerdict:
    parent, gap, _, probability = evidence
    who = "the champion" if parent is state.champions[-1] else parent.id
    own = state.seen(source)
    runs = len(counted(own))
    why = (
        f"{abs(gap.mean):.4f} {'better' if gap.mean > 0 else 'worse'} than {who}'s estimate"
        f" {parent.belief.mean:.4f}{_adjustments(state, own)}; seeds alone move a run by"
        f" {state.noise.sd:.4f}; better with probability {_chance(probability)} after"
        f" {runs} run{'s' * (runs != 1)}; {end}"
    )
    if not runs:
        why = f"{_uncounted(state, own)}; {end}"
    return RaceVerdict(source.id, status, gap.mean, state.noise.sd, probability, runs, why)


def _uncounted(state: State, readings: Iterable[Reading]) -> str:
    """Why no run of a candidate counts."""
    models = {one.model for one in readings if one.model not in (None, *state.offsets)}
    if models:
        named = ", ".join(sorted(filter(None, models)))
        return f"its value does not count until the champion has run on {named}"
    return "its run was disturbed, so its value does not count (see its warnings)"


def _adjustments(state: State, readings: Iterable[Reading]) -> str:
    """What was taken off the values of GPU models that read otherwise than the first."""
    models = {one.model for one in readings if one.counts and state.offset(one.model).variance}
    offsets = [(model, state.offset(model)) for model in sorted(filter(None, models))]
    return "".join(
        f", with {abs(mean):.4f} ± {math.sqrt(variance):.4f}"
        f" {'taken off' if mean > 0 else 'added'} on {model}"
        for model, (mean, variance) in offsets
    )


def _chance(probability: float) -> str:
    """Two decimals, rounded down so that no threshold seems to be reached; never a certainty."""
    return f"{min(max(math.floor(100 * probability), 1), 99) / 100:.2f}"


def _without(things: Mapping[str, T], *names: str) -> Mapping[str, T]:
    if not any(name in things for name in names):
        return things
    return {name: thing for name, thing in things.items() if name not in names}
