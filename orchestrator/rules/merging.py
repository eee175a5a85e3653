"""Wins over a parent that is no longer the best, and how they are chosen for a merge. Pure.

What of them waits: `greedy_merge.py` and `race/verdicts.py`.
"""

from collections.abc import Mapping
from typing import NamedTuple

AT_MOST = 4


class Reading(NamedTuple):
    """A run and what its parent read."""

    experiment_id: str
    val_bpb: float
    parent_val_bpb: float

    @property
    def gain(self) -> float:
        return self.parent_val_bpb - self.val_bpb


def waits(run: Reading, best: Reading, *, improved: bool) -> Reading | None:
    """Who waits for a merge after `run`, made from a parent that is no longer the best, was decided
    against `best`. If it is the new best as it stands, then the old best, whose change it lacks;
    else the run itself, if it reads lower than its parent."""
    loser = best if improved else run
    return loser if loser.gain > 0 else None


def chosen(waiting: Mapping[str, float]) -> tuple[str, ...]:
    """The wins of the next merge by their gains, the largest first."""
    return tuple(sorted(waiting, key=lambda name: -waiting[name])[:AT_MOST])
