"""What is believed of a source's value and of a candidate's effect, under noise. Pure.

Values are val_bpb, lower is better. An *effect* is parent minus candidate: above 0 is better. All
beliefs are normal distributions or mixtures of a few. No verdicts: those are in verdicts.py.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

from orchestrator.rules.noise import SeedNoise


class Belief(NamedTuple):
    """A normal distribution."""

    mean: float
    variance: float


class Part(NamedTuple):
    """One normal part of a mixture."""

    weight: float
    mean: float
    variance: float


class Reading(NamedTuple):
    """One run of a source; `value` is None for one that did not complete. `counts` is False for a
    run that is no evidence: a disturbed one, or a second one with a seed that the source has had.
    `model` is that of its GPU, None in a tag that runs on one model; `uneven` says that its steps
    were unlike those of other runs.
    """

    seed: int
    value: float | None
    counts: bool = True
    crashed: bool = False
    model: str | None = None
    uneven: bool = False


# How much higher each GPU model reads than the first one, whose offset is exactly 0.
Offsets = Mapping[str, Belief]
KNOWN = Belief(0.0, 0.0)  # that of the first model
UNKNOWN = Belief(0.0, 1.0)  # of a model on which no champion has run

Prior = tuple[Part, ...]

# What an idea does before anything is known of it: 15 % help, 30 % change nothing, 55 % harm.
# Fixed, because a prior that follows the tag's share of good ideas was no better.
IDEA: Prior = (
    Part(0.15, 0.002, 0.002**2),
    Part(0.30, 0.0, 0.0),
    Part(0.55, -0.002, 0.003**2),
)
# Where seeds move a run by more than this (a budget of seconds), ideas do more as well.
IDEA_SD = 0.005

# Of a gain over one parent this much is left over another one, give or take.
STACKING = Belief(0.7, 0.3**2)


def idea(noise: SeedNoise) -> Prior:
    """What is believed of an idea before its first run."""
    if noise.sd <= IDEA_SD:
        return IDEA
    scale = noise.sd / IDEA_SD
    return tuple(Part(w, scale * mean, scale**2 * variance) for w, mean, variance in IDEA)


def counted(readings: Iterable[Reading]) -> dict[int, float]:
    """The values that are evidence, by seed."""
    return {one.seed: one.value for one in readings if one.counts and one.value is not None}


def on_model(readings: Iterable[Reading], model: str | None) -> tuple[Reading, ...]:
    return tuple(reading for reading in readings if reading.model == model)


def adjusted(readings: Iterable[Reading], offsets: Offsets) -> tuple[Reading, ...]:
    """What the first model would have read. A model on which no champion has run says nothing."""
    return tuple(
        reading
        if reading.model is None or reading.value is None
        else reading._replace(value=reading.value - offsets[reading.model].mean)
        if reading.model in offsets
        else reading._replace(counts=False)
        for reading in readings
    )


def of_offsets(readings: Iterable[Reading], offsets: Offsets) -> float:
    """The variance that offsets bring into the mean of adjusted readings. What is wrong with the
    offset of a model is wrong in all of its readings, so repeats do not lessen it."""
    models = Counter(r.model for r in readings if r.counts and r.value is not None)
    known = (model for model in models if model is not None and model in offsets)
    return sum((models[m] / models.total()) ** 2 * offsets[m].variance for m in known)


def after_calibration(offset: Belief, champion: Belief, value: float, noise: SeedNoise) -> Belief:
    """The offset of a model once a champion has read `value` there (a Kalman filter too)."""
    gain = offset.variance / (offset.variance + champion.variance + noise.variance)
    mean = offset.mean + gain * (value - champion.mean - offset.mean)
    return Belief(mean, offset.variance * (1 - gain))


def baseline(readings: Iterable[Reading], noise: SeedNoise) -> Belief:
    """Of a source with nothing but its own runs: their mean, and its sampling variance."""
    values = counted(readings).values()
    return Belief(fmean(values), noise.variance / len(values))


def after_reading(belief: Belief, value: float, noise: SeedNoise, offset: Belief = KNOWN) -> Belief:
    """One run more, on a model with this offset (the update of a Kalman filter for a constant)."""
    gain = belief.variance / (belief.variance + noise.variance + offset.variance)
    mean = belief.mean + gain * (value - offset.mean - belief.mean)
    return Belief(mean, belief.variance * (1 - gain))


def gap(
    readings: Iterable[Reading], parent: Belief, parents: Iterable[Reading], noise: SeedNoise
) -> Belief:
    """How much better than its parent a candidate reads: delta, and its sampling variance V.

    Two sources share the part rho of their noise at one seed. So where the parent has run with all
    the candidate's seeds, paired differences say more than means do; the parent's other runs still
    count by 1 - rho. Elsewhere, and at rho = 0, it is the difference to the parent's estimate.
    """
    own, others = counted(readings), counted(parents)
    n, k, rho = len(own), len(others), noise.shared
    mean = fmean(own.values())
    if rho == 0 or not own.keys() <= others.keys():
        return Belief(parent.mean - mean, parent.variance + noise.variance / n)
    paired = fmean(others[seed] for seed in own)
    delta = paired - mean + parent.mean - fmean(others.values())
    variance = 2 * noise.variance * (1 - rho) / n
    if k > n:
        rest = fmean(value for seed, value in others.items() if seed not in own)
        delta += (1 - rho) * (k - n) / k * (rest - paired)
        variance -= noise.variance * (1 - rho) ** 2 * (k - n) / (n * k)
    return Belief(delta, variance)


def _normal(x: float) -> float:
    """Φ, the distribution function of the standard normal."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _updated(prior: Prior, seen: Belief) -> list[Part]:
    """Bayes' rule for a mixture and a normal observation. Weights by their logarithms: far from
    every part, all densities would be 0."""
    logs = []
    for part in prior:
        sd = math.sqrt(part.variance + seen.variance)
        distance = (seen.mean - part.mean) / sd
        logs.append(math.log(part.weight / sd) - 0.5 * distance**2)
    weights = [math.exp(log - max(logs)) for log in logs]
    parts = []
    for part, weight in zip(prior, weights, strict=True):
        share = part.variance / (part.variance + seen.variance)
        mean = part.mean + share * (seen.mean - part.mean)
        parts.append(Part(weight / sum(weights), mean, share * seen.variance))
    return parts


def _moments(parts: Iterable[Part]) -> Belief:
    """Mean and variance of a mixture."""
    parts = list(parts)
    mean = sum(part.weight * part.mean for part in parts)
    variance = sum(part.weight * (part.variance + (part.mean - mean) ** 2) for part in parts)
    return Belief(mean, variance)


def probability_better(seen: Belief, prior: Prior) -> float:
    """P(effect > 0) for the gap `seen`. An effect of exactly 0 is not better."""
    return min(
        1.0,
        sum(
            part.weight * _normal(part.mean / math.sqrt(part.variance))
            if part.variance
            else part.weight * (part.mean > 0)
            for part in _updated(prior, seen)
        ),
    )


def effect(seen: Belief, prior: Prior) -> Belief:
    """What is believed of a candidate's effect."""
    return _moments(_updated(prior, seen))


def successor(
    parent: Belief,
    readings: Iterable[Reading],
    noise: SeedNoise,
    prior: Prior,
    unsure: float = 0.0,
) -> Belief:
    """What is believed of the value of a candidate that becomes the champion: before its runs,
    the parent's value less an effect; then its own runs, whose mean has the variance `unsure`
    beside that of the noise. So its lucky readings count for little."""
    values = counted(readings).values()
    before = tuple(
        Part(part.weight, parent.mean - part.mean, parent.variance + part.variance)
        for part in prior
    )
    seen = Belief(fmean(values), noise.variance / len(values) + unsure)
    return _moments(_updated(before, seen))


def stacked(effects: Iterable[Belief]) -> Prior:
    """The prior of a merge: the sum of its parts' effects, each of which keeps STACKING of itself
    (variances of a product of independent values)."""
    mean, spread = STACKING
    total, variance = 0.0, 0.0
    for one in effects:
        total += mean * one.mean
        variance += mean**2 * one.variance + spread * (one.mean**2 + one.variance)
    return (Part(1.0, total, variance),)
