"""How evenly a run took its steps, from its curve, and if that is unlike other runs. Pure.

A program beside it, a hot GPU or a wait for data makes some steps slow. A run is held against its
own fastest time first, since the steps of another source may take longer by design.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean, median, quantiles

PARTS = 20  # of a run; the first one has steps that are not timed
STEPS = 10  # in each part, or too few to say
KNOWN = 5  # runs that say what is usual
RECENT = 20
# Slower by less than this is not called unusual, nor what is within four standard deviations.
LEAST, SPREAD = 0.05, 4 * 1.4826


def slow_part(curve: Iterable[tuple[float, float]]) -> float | None:
    """The part of its steps that a run lacks, as it was not always as fast as in the faster quarter
    of its time. `curve` has (percent of the run's time, step); None if that says too little."""
    steps: dict[float, float] = {}
    for percent, step in curve:
        steps[percent] = max(step, steps.get(percent, step))
    points = sorted(steps.items())
    if len(points) < PARTS or points[-1][0] < 99 or points[0][0] > 100 / PARTS:
        return None
    at = [_step_at(points, 100 * part / PARTS) for part in range(1, PARTS + 1)]
    parts = [after - before for before, after in pairwise(at)]
    usual = quantiles(parts, n=4)[2]
    return round(max(0.0, 1 - fmean(parts) / usual), 4) if usual >= STEPS else None


def _step_at(points: Sequence[tuple[float, float]], percent: float) -> float:
    """The step at that time, between two points of the curve."""
    for (before, a), (after, b) in pairwise(points):
        if percent <= after:
            return a + (b - a) * max(0.0, percent - before) / (after - before)
    return points[-1][1]


def unusual(slow: float | None, others: Sequence[float]) -> str | None:
    """What is unlike the other runs on its GPU model; None if nothing is, or too little known."""
    if slow is None or len(others) < KNOWN:
        return None
    usual = median(others)
    spread = SPREAD * median(abs(one - usual) for one in others)
    if slow <= usual + max(LEAST, spread):
        return None
    return (
        f"slow steps cost it {slow:.0%} of its training, and {usual:.0%} in other runs: something"
        " else used its machine, or it waited for data"
    )
