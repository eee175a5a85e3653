"""The verdict on a run result: keep or discard, near miss, crash streak. No time, no storage.

The store applies the `Decision`, exactly once (decide.lua).
"""

from dataclasses import replace

from orchestrator.decisions import Decision, RunResult, Snapshot
from orchestrator.domain import INFRA_LOST, RECENT_RUNS, Status, Strategy, Tag
from orchestrator.rules.strategy import adapt


def decide(snapshot: Snapshot, result: RunResult) -> Decision:
    """Judge `result` against the tag as `snapshot` shows it.

    A run is kept when it is strictly better than the best. A discarded one within the tag's
    threshold of the best (strictly; a tie has distance 0) is a near miss. Only a completed run ends
    a crash streak; one lost to the infrastructure, or cancelled, says nothing about the search.
    """
    if result.kind == "completed":
        decision = _completed(snapshot, result)
    else:
        decision = failed(snapshot, result)
    return replace(decision, strategy=adapted(snapshot, decision))


def _completed(snapshot: Snapshot, result: RunResult) -> Decision:
    assert result.metrics is not None  # noqa: S101 - schemas and workers refuse it earlier
    val_bpb = result.metrics.val_bpb
    best = snapshot.tag.best_val_bpb
    if best is None:
        return Decision(Status.KEEP, improved=True)
    delta = best - val_bpb
    if val_bpb < best:
        return Decision(Status.KEEP, improved=True, delta=delta, best_before=best)
    return Decision(
        Status.DISCARD,
        delta=delta,
        best_before=best,
        near_miss=near_miss(snapshot.tag, val_bpb - best),
    )


def near_miss(tag: Tag, distance: float) -> float | None:
    """The distance of a discarded run from the best, if it came close."""
    return distance if distance < tag.near_miss_threshold or distance == 0 else None


def failed(snapshot: Snapshot, result: RunResult) -> Decision:
    """The decision on a run without a value. One that was stopped early is discarded, and as it
    ran without a fault it ends a crash streak."""
    tag = snapshot.tag
    if result.kind == "stopped":
        return Decision(Status.DISCARD, best_before=tag.best_val_bpb)
    if result.kind == "cancelled" or result.reason == INFRA_LOST:
        return Decision(
            status=Status.CANCELLED if result.kind == "cancelled" else Status.CRASH,
            best_before=tag.best_val_bpb,
            consecutive_crashes=tag.consecutive_crashes,
            should_abort=tag.consecutive_crashes >= tag.max_consecutive_crashes,
            counts_in_rates=False,
        )
    streak = tag.consecutive_crashes + 1
    return Decision(
        status=Status.TIMEOUT if result.kind == "timeout" else Status.CRASH,
        best_before=tag.best_val_bpb,
        consecutive_crashes=streak,
        should_abort=streak >= tag.max_consecutive_crashes,
    )


def adapted(snapshot: Snapshot, *decisions: Decision) -> Strategy | None:
    """The strategy that fits the tag once `decisions` are applied; None where it stays."""
    judged = [one for one in decisions if one.counts_in_rates]
    if not judged:
        return None
    counts, near, recent = snapshot.counts, snapshot.near_misses, snapshot.recent
    for one in judged:
        counts, near = counts.plus(one.status), near + (one.near_miss is not None)
        recent = (one.status, *recent)[:RECENT_RUNS]
    return adapt(replace(snapshot, counts=counts, near_misses=near, recent=recent))
