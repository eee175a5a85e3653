"""Runs that something disturbed, and GPUs on which the champion reads otherwise. Pure."""

import math
from collections.abc import Collection, Mapping
from statistics import fmean

from orchestrator.rules import pace
from orchestrator.rules.noise import SeedNoise
from orchestrator.rules.race.beliefs import counted, on_model
from orchestrator.rules.race.state import FinishedRun, Source, State

DISTURBED = 4.0  # standard deviations
KNOWN_NOISE = 3  # degrees of freedom, before which no run is called disturbed
# A GPU that has had so many runs of a tag since it ran the champion runs it again.
CHECK_RUNS = 25
GPUS = 256  # whose runs are counted


def is_disturbed(noise: SeedNoise, others: Collection[float], value: float) -> bool:
    return noise.freedom >= KNOWN_NOISE and bool(others) and is_worse(noise, others, value)


def is_worse(noise: SeedNoise, others: Collection[float], value: float) -> bool:
    """True of a run that is worse than the others of its source by more than chance."""
    return value > fmean(others) + most_apart(noise, len(others))


def most_apart(noise: SeedNoise, others: int) -> float:
    """How far chance takes a run from the mean of so many others."""
    return DISTURBED * noise.sd * math.sqrt(1 + 1 / others)


def drift(noise: SeedNoise, champion: Source, run: FinishedRun) -> str | None:
    """What is wrong with the GPU on which a champion reads otherwise than on the other GPUs of that
    model, by more than chance; None if it does not."""
    others = counted(on_model(champion.readings, run.model)).values()
    if run.value is None or not others or champion.unsettled or noise.freedom < KNOWN_NOISE:
        return None
    apart, most = run.value - fmean(others), most_apart(noise, len(others))
    if abs(apart) <= most:
        return None
    return (
        f"reads {abs(apart):.4f} {'higher' if apart > 0 else 'lower'} than the other runs of the"
        f" champion {champion.id} (chance alone: {most:.4f} at most): look at its clocks, its heat"
        " and what else runs there"
    )


def slow(state: State, run: FinishedRun) -> Mapping[str, tuple[float, ...]]:
    """What slow steps cost the newest runs on each GPU model."""
    if run.slow is None:
        return state.slow
    model = run.model or ""
    return {**state.slow, model: (*state.slow.get(model, ()), run.slow)[-pace.RECENT :]}


def unchecked(state: State, run: FinishedRun) -> Mapping[str, int]:
    """How many runs each GPU has had since it ran the champion; the last one to run comes last."""
    if run.gpu is None or not state.champions:
        return state.unchecked
    since = 0 if run.source == state.champions[-1].id else state.unchecked.get(run.gpu, 0) + 1
    others = [(gpu, runs) for gpu, runs in state.unchecked.items() if gpu != run.gpu]
    return dict([*others[1 - GPUS :], (run.gpu, since)])
