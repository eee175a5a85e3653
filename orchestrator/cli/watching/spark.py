"""Numbers as a line of blocks. Pure."""

import math
from collections.abc import Sequence
from itertools import pairwise

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " .:-=+*#@"


def sparkline(values: Sequence[float], width: int, rows: int = 1, ramp: str = BLOCKS) -> list[str]:
    """At most `width` columns and exactly `rows` lines, the upper first.

    The range is fitted to what comes after the first tenth: a loss falls so steeply at first that
    all the rest would lie on the ground. Higher values end at the top.
    """
    columns = _thinned([v for v in values if math.isfinite(v)], width)
    if not columns or rows < 1:
        return [""] * max(rows, 0)
    settled = columns[len(columns) // 10 :]
    low, high = min(settled), max(settled)
    steps = len(ramp) - 1
    lines: list[list[str]] = [[] for _ in range(rows)]
    for value in columns:
        # Halves, since the whole span may be more than a float holds.
        span = high / 2 - low / 2
        share = min(1.0, max(0.0, (value / 2 - low / 2) / span)) if span > 0 else 0.0
        # One step at least: the lowest value is a value, too.
        level = max(1, min(rows * steps, 1 + round(share * (rows * steps - 1))))
        for row in range(rows):
            lines[rows - 1 - row].append(ramp[max(0, min(steps, level - row * steps))])
    return ["".join(line) for line in lines]


def bar(share: float, width: int, full: str = "━", empty: str = "╌") -> str:
    """`share` (0 to 1) of `width`."""
    done = round(max(0.0, min(1.0, share)) * width)
    return full * done + empty * (width - done)


def _thinned(values: Sequence[float], width: int) -> list[float]:
    """Means of `width` stretches of equal length; the values themselves where they are fewer."""
    if len(values) <= width:
        return list(values)
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
