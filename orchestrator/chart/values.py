"""What the progress chart shows of a history: range, running best, and which keeps get a label.

Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# Above so many runs the first ones would take all the room: the axis is logarithmic then.
LOG_ABOVE = 5_000
MAX_LABELS = 12
# Height of the rail of crashes at the bottom, in parts of the axes.
RAIL = 0.035
# Twice the default threshold of a near miss: differences below are noise.
_LEAST_HEIGHT = 0.004


@dataclass(frozen=True)
class Point:
    """One decided run; `number` is its place in the order of verdicts, from 1 on.

    `val_bpb` is None for a crash; `label` stands beside a keep. `hours` since the first verdict, if
    known.
    """

    number: int
    status: str
    val_bpb: float | None
    label: str = ""
    hours: float | None = None


def value_range(points: Sequence[Point]) -> tuple[float, float]:
    """The y-axis: from below the best to above the first result, so that a bad run does not flatten
    the progress. Where there is no progress yet, most runs.

    The lowest sixth is left to labels and to the rail of crashes.
    """
    values = sorted(p.val_bpb for p in points if p.val_bpb is not None)
    if not values:
        return 0.0, 1.0
    keeps = [p.val_bpb for p in points if p.val_bpb is not None and p.status == "keep"]
    low = values[0]
    top = max(keeps, default=low)
    if top - low < _LEAST_HEIGHT:
        top = max(top, _most(values))
    height = max(top - low, _LEAST_HEIGHT, 1e-3 * abs(low))
    return low - 0.25 * height, top + max(0.12 * height, low + height - top)


def _most(values: Sequence[float]) -> float:
    """The highest of the sorted `values` that is no outlier (Tukey's fence)."""
    quartile = values[(3 * (len(values) - 1)) // 4]
    fence = quartile + 1.5 * max(quartile - values[0], 1e-6)
    return max(v for v in values if v <= fence)


def running_best(points: Sequence[Point]) -> list[Point]:
    """The runs that were the best when they were decided."""
    best: list[Point] = []
    for point in points:
        if point.val_bpb is not None and (not best or point.val_bpb < (best[-1].val_bpb or 0)):
            best.append(point)
    return best


def labelled(points: Sequence[Point], limit: int = MAX_LABELS) -> list[Point]:
    """The keeps that get a label, the most important first: the latest, the first, then those that
    gained most."""
    keeps = [p for p in running_best(points) if p.status == "keep"]
    gains = {
        after.number: (before.val_bpb or 0) - (after.val_bpb or 0)
        for before, after in pairwise(keeps)
    }
    middle = sorted(keeps[1:-1], key=lambda p: -gains[p.number])
    ends = keeps[-1:] + (keeps[:1] if len(keeps) > 1 else [])
    return (ends + middle)[:limit]
