"""One run more of a source: whether it is evidence, and what it says of the noise. Pure."""

from dataclasses import replace
from statistics import fmean

from orchestrator.rules.noise import SeedNoise
from orchestrator.rules.race.beliefs import Reading, counted, on_model
from orchestrator.rules.race.drift import drift, is_disturbed, is_worse, most_apart
from orchestrator.rules.race.state import FinishedRun, Source, State


def read(
    state: State,
    source: Source,
    run: FinishedRun,
    value: float,
    parent: Source | None = None,
    *,
    uneven: bool,
) -> tuple[SeedNoise, Source]:
    """The source with one run more, and the noise that is learned from it. A second run with one
    seed is no evidence, nor is one so much worse than the others on its GPU model that something
    disturbed it; of a champion also one that is so much better. Nor is the first whose steps are
    `uneven`; with the second it seems to be the way of the source."""
    noise, seed, model = state.noise, run.seed, run.model
    own = counted(on_model(source.readings, model))
    disturbed = is_disturbed(noise, own.values(), value)
    drifted = parent is None and drift(noise, source, run) is not None
    uneven = uneven and not any(one.uneven for one in source.readings)
    counts = seed not in counted(source.readings) and not (disturbed or drifted or uneven)
    if counts:
        others = counted(on_model(parent.readings, model)) if parent else {}
        noise = noise.after(seed, value, source.fresh(model), others)
    source = with_reading(source, Reading(seed, value, counts, model=model, uneven=uneven))
    return _counting_after_all(noise, source) if counts and state.rules > 1 else (noise, source)


def _counting_after_all(noise: SeedNoise, source: Source) -> tuple[SeedNoise, Source]:
    """A run that seemed disturbed while little was known of the noise counts once chance explains
    it: then it was its seed."""
    for one in source.readings:
        own = counted(on_model(source.readings, one.model))
        if one.counts or one.uneven or one.value is None or one.seed in own or not own:
            continue
        if abs(one.value - fmean(own.values())) <= most_apart(noise, len(own)):
            noise = noise.after(one.seed, one.value, source.fresh(one.model), {})
            readings = (r._replace(counts=r.counts or r is one) for r in source.readings)
            source = replace(source, readings=tuple(readings))
    return noise, source


def with_reading(source: Source, reading: Reading) -> Source:
    return replace(source, readings=(*source.readings, reading))


def calm(noise: SeedNoise, baseline: Source) -> tuple[SeedNoise, Source]:
    """A baseline with its last run. Nothing is known of the noise before, so its worst run is held
    against the others: one disturbed run here would make the noise too large for all that follows.
    """
    values = counted(baseline.readings)
    if len(values) < 2 or len({one.model for one in baseline.readings}) > 1:
        return noise, baseline
    worst = max(values, key=values.__getitem__)
    alone, others = SeedNoise(), dict[int, float]()
    for seed, value in values.items():
        if seed != worst:
            alone = alone.after(seed, value, others, {})
            others[seed] = value
    if not is_worse(alone, others.values(), values[worst]):
        return noise, baseline
    readings = (one._replace(counts=one.counts and one.seed != worst) for one in baseline.readings)
    return alone, replace(baseline, readings=tuple(readings))
