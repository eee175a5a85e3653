"""How much repeats of one source differ, and so which differences may be chance. Pure.

Without repeats there is no estimate.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import variance

from orchestrator.schemas import Noise

# Of two runs that differ by chance alone, 19 of 20 lie within this many standard deviations of
# their difference.
COVERAGE = 1.96


def estimate(groups: Iterable[Sequence[float]]) -> Noise | None:
    """Pooled standard deviation over groups of repeats (each group: the values of one source);
    None where no source has two values."""
    repeated = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in repeated)
    if not freedom:
        return None
    squares = sum(variance(group) * (len(group) - 1) for group in repeated)
    sd = math.sqrt(squares / freedom)
    band = COVERAGE * math.sqrt(2) * sd
    return Noise(sd=sd, band=band, runs=sum(map(len, repeated)), sources=len(repeated))
