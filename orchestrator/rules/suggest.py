"""What to try next, in words, from counters alone. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.decisions import Snapshot
from orchestrator.domain import Counts

# The categories that count as underexplored; submissions may have others.
CORE_CATEGORIES = (
    "architecture", "optimizer", "hyperparams", "activation", "attention", "embedding",
    "normalization", "regularization", "scheduling", "initialization", "simplification",
)  # fmt: skip
UNDEREXPLORED_BELOW = 3
HIGH_YIELD_RATE = 0.3


@dataclass(frozen=True)
class CategoryCount:
    """Experiments of one category; `near` counts its near misses."""

    total: int = 0
    kept: int = 0
    near: int = 0


@dataclass(frozen=True)
class Advice:
    """What suggest answers beside the strategy and the trend."""

    underexplored: list[str]
    high_yield: list[str]
    near_miss_categories: list[str]
    suggestions: list[str]


def advise(
    snapshot: Snapshot, categories: Mapping[str, CategoryCount], trend: Sequence[float]
) -> Advice:
    """Say which categories were tried least, which gave keeps, and what the mode asks for."""
    underexplored = [
        name
        for name in CORE_CATEGORIES
        if categories.get(name, CategoryCount()).total < UNDEREXPLORED_BELOW
    ]
    high_yield = [
        name
        for name, count in categories.items()
        if count.total >= UNDEREXPLORED_BELOW and count.kept / count.total > HIGH_YIELD_RATE
    ]
    near = [name for name, count in categories.items() if count.near]
    lines = [_for_mode(snapshot, underexplored, high_yield, near)]
    if snapshot.tag.pause is not None:
        lines.append(
            "A person has paused this search: what you submit waits in the queue, and nothing new"
            f" is started. They say: {snapshot.tag.pause.reason}"
        )
    if snapshot.tag.best_val_bpb is None:
        lines.insert(0, f"No result yet. {baseline_advice(snapshot.counts)}")
    if snapshot.tag.consecutive_crashes:
        lines.append(
            f"The last {snapshot.tag.consecutive_crashes} run(s) crashed: read the log of one"
            " before the next edit."
        )
    if len(trend) >= 2:
        lines.append(f"The last {len(trend)} keeps gained {trend[0] - trend[-1]:.6f} bpb in all.")
    return Advice(underexplored, high_yield, near, lines)


def baseline_advice(counts: Counts) -> str:
    """What to do in a tag without a result."""
    if counts.queued or counts.running:
        return "The first run, its baseline, is under way: wait for its verdict."
    return "Run the unmodified train.py first, as the baseline."


def _for_mode(
    snapshot: Snapshot, underexplored: list[str], high_yield: list[str], near: list[str]
) -> str:
    mode = snapshot.strategy.mode
    if mode == "explore":
        where = ", ".join(underexplored[:4]) or "a direction that no run has taken"
        return f"Explore: try a new direction; least tried: {where}."
    if mode == "exploit":
        where = ", ".join(high_yield[:4]) or "the kind of change that was kept last"
        return f"Exploit: small steps from the best; what has paid: {where}."
    if mode == "combine":
        where = f" (in {', '.join(near[:4])})" if near else ""
        return (
            f"Combine: put two of the {snapshot.near_misses} near misses{where} together on the"
            " best."
        )
    return "Ablate: take one earlier change out of the best; keep what is simpler and no worse."
