"""The verdict on an outcome: keep or discard, near miss, crash streak. No time, no storage.

What the store does with the `Decision`, and that it is applied once, is not said here.
"""

from dataclasses import replace

from orchestrator.domain import INFRA_LOST, Decision, Outcome, Snapshot, Status
from orchestrator.rules.strategy import adapt


def decide(snapshot: Snapshot, outcome: Outcome) -> Decision:
    """Judge `outcome` against the tag as `snapshot` shows it.

    A run is kept when it is strictly better than the best. A discarded one within the tag's
    threshold of the best (strictly; a tie has distance 0) is a near miss. Only a completed run ends
    a crash streak; one lost to the infrastructure, or cancelled, says nothing about the search.
    """
    if outcome.status == "completed":
        decision = _completed(snapshot, outcome)
    else:
        decision = _failed(snapshot, outcome)
    strategy = adapt(_after(snapshot, decision)) if decision.counts_in_rates else None
    return replace(decision, strategy=strategy)


def _completed(snapshot: Snapshot, outcome: Outcome) -> Decision:
    assert outcome.metrics is not None  # noqa: S101 - schemas and workers refuse it earlier
    val_bpb = outcome.metrics.val_bpb
    best = snapshot.tag.best_val_bpb
    if best is None:
        return Decision(status=Status.KEEP, improved=True)
    delta = best - val_bpb
    if val_bpb < best:
        return Decision(status=Status.KEEP, improved=True, delta=delta, best_before=best)
    distance = val_bpb - best
    close = distance < snapshot.tag.near_miss_threshold or distance == 0
    return Decision(
        status=Status.DISCARD,
        delta=delta,
        best_before=best,
        near_miss=distance if close else None,
    )


def _failed(snapshot: Snapshot, outcome: Outcome) -> Decision:
    tag = snapshot.tag
    if outcome.status == "cancelled" or outcome.reason == INFRA_LOST:
        return Decision(
            status=Status.CANCELLED if outcome.status == "cancelled" else Status.CRASH,
            best_before=tag.best_val_bpb,
            consecutive_crashes=tag.consecutive_crashes,
            should_abort=tag.consecutive_crashes >= tag.max_consecutive_crashes,
            counts_in_rates=False,
        )
    streak = tag.consecutive_crashes + 1
    return Decision(
        status=Status.TIMEOUT if outcome.status == "timeout" else Status.CRASH,
        best_before=tag.best_val_bpb,
        consecutive_crashes=streak,
        should_abort=streak >= tag.max_consecutive_crashes,
    )


def _after(snapshot: Snapshot, decision: Decision) -> Snapshot:
    """The snapshot as it will read once `decision` is applied: what the strategy adapts to."""
    name = decision.status.value
    counts = replace(snapshot.counts, **{name: getattr(snapshot.counts, name) + 1})
    return replace(
        snapshot,
        counts=counts,
        near_misses=snapshot.near_misses + (decision.near_miss is not None),
        recent=(decision.status, *snapshot.recent)[:10],
    )
