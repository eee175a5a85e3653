"""How much repeats of one source differ, and so which differences may be chance. Pure.

Without repeats there is no estimate.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import variance

# Of two runs that differ by chance alone, 19 of 20 lie within this many standard deviations of
# their difference.
COVERAGE = 1.96


@dataclass(frozen=True)
class Noise:
    """The spread of val_bpb between repeats: `sd` of one run, from `runs` runs of `sources`."""

    sd: float
    runs: int
    sources: int

    @property
    def band(self) -> float:
        """The difference that 19 of 20 pairs of runs of one source stay below."""
        return COVERAGE * math.sqrt(2) * self.sd


def estimate(groups: Iterable[Sequence[float]]) -> Noise | None:
    """Pooled standard deviation over groups of repeats (each group: the values of one source);
    None where no source has two values."""
    repeated = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in repeated)
    if not freedom:
        return None
    squares = sum(variance(group) * (len(group) - 1) for group in repeated)
    return Noise(math.sqrt(squares / freedom), sum(map(len, repeated)), len(repeated))
