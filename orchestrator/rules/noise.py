"""How much runs of one source differ, and so which differences may be chance. Pure.

- `estimate`: between runs with one seed, for the page; without repeats there is no estimate.
- `SeedNoise`: between seeds, which the keep rule `race` judges by; it begins with a prior.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, variance

from orchestrator.schemas import Noise

# Of two runs that differ by chance alone, 19 of 20 lie within this many standard deviations of
# their difference.
COVERAGE = 1.96

# Before anything is measured: a standard deviation with the weight of one degree of freedom, and a
# shared part with that of four.
PRIOR_SD = 0.0015
PRIOR_SHARED, PRIOR_PAIRS = 0.3, 4
MOST_SHARED = 0.95


def band(sd: float) -> float:
    """Within which 19 of 20 differences between two runs lie, if one run has this deviation."""
    return COVERAGE * math.sqrt(2) * sd


def estimate(groups: Iterable[Sequence[float]]) -> Noise | None:
    """Pooled standard deviation over groups of repeats (each group: the values of one source);
    None where no source has two values."""
    repeated = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in repeated)
    if not freedom:
        return None
    squares = sum(variance(group) * (len(group) - 1) for group in repeated)
    sd = math.sqrt(squares / freedom)
    return Noise(sd=sd, band=band(sd), runs=sum(map(len, repeated)), sources=len(repeated))


@dataclass(frozen=True)
class SeedNoise:
    """Sums of squares around the mean of each source, and their degrees of freedom; the same for
    differences between two sources at equal seeds."""

    squares: float = 0.0
    freedom: int = 0
    pair_squares: float = 0.0
    pairs: int = 0

    # Cached, because every probability of a decision rests on them.
    @cached_property
    def _pooled(self) -> float:
        return (PRIOR_SD**2 + self.squares) / (1 + self.freedom)

    @cached_property
    def variance(self) -> float:
        """sigma² of one run; larger while it rests on few runs (the variance of Student's t is)."""
        return self._pooled * (1 + 2 / (1 + self.freedom))

    @cached_property
    def sd(self) -> float:
        return math.sqrt(self.variance)

    @cached_property
    def shared(self) -> float:
        """rho, the part of sigma² that two sources have in common at one seed: their differences
        have the variance 2 sigma² (1 - rho)."""
        both = 2 * self._pooled
        before = PRIOR_PAIRS * both * (1 - PRIOR_SHARED)
        rho = 1 - (self.pair_squares + before) / (both * (self.pairs + PRIOR_PAIRS))
        return min(max(rho, 0.0), MOST_SHARED)

    def after(
        self, seed: int, value: float, own: Mapping[int, float], parent: Mapping[int, float]
    ) -> "SeedNoise":
        """One run more of a source with the runs `own`, by seed, whose parent has the runs
        `parent`."""
        learned = self
        if own:
            squares = self.squares + _growth(own.values(), value)
            learned = replace(learned, squares=squares, freedom=self.freedom + 1)
        before = [parent[one] - own[one] for one in own if one in parent]
        if before and seed in parent:
            squares = self.pair_squares + _growth(before, parent[seed] - value)
            learned = replace(learned, pair_squares=squares, pairs=self.pairs + 1)
        return learned


def _growth(values: Collection[float], value: float) -> float:
    """What one value more adds to the sum of squares around the mean (Welford)."""
    n = len(values)
    return (value - fmean(values)) ** 2 * n / (n + 1)
