"""The audit of a system at rest: from the records alone, what must hold and what must be counted.

Pure: evidence (evidence.py) and what the agents remember go in, violations come out. Everything is
worked out anew from the records in order of decision, with the rules written once more, simply.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from bench.chaos import stub
from bench.chaos.evidence import PoolEvidence, Record, TagEvidence
from bench.chaos.excuses import Excuses
from bench.chaos.ledger import Ledger
from bench.chaos.observer import Decided
from bench.chaos.violations import Findings

_RECENT = 10
_LOST = ("expired", "lost")
_SUMMARY_KEEPS = 1000


def audit_tag(tag: TagEvidence, ledger: Ledger, excuses: Excuses, findings: Findings) -> None:
    """All that can be said of one tag."""
    _check_indexes(tag, findings)
    _check_verdicts(tag, ledger, findings)
    _check_attempts(tag, excuses, findings)
    _check_recount(tag, findings)
    _check_summary(tag, findings)


# ---------------------------------------------------------------------------- nothing lost


def audit_promises(tags: Iterable[TagEvidence], ledger: Ledger, findings: Findings) -> None:
    """What was acknowledged exists and is decided, and nothing else exists."""
    records = {record.id: record for tag in tags for record in tag.records.values()}
    for experiment_id in sorted(ledger.acknowledged):
        record = records.get(experiment_id)
        if record is None or not record.decided:
            state = record.run.get("state") if record else "no record"
            findings.add("lost", f"{experiment_id} was acknowledged: {state}")
    for experiment_id in sorted(records.keys() - ledger.acknowledged):
        findings.add("created-twice", f"{experiment_id} was acknowledged to nobody")


def audit_rest(pool: PoolEvidence, gpus: Iterable[str], findings: Findings) -> None:
    """The pool as it must look when nothing is to be done."""
    for name in ("leases", "busy", "holds"):
        for member in getattr(pool, name):
            findings.add("stuck", f"{member} is still among the {name}")
    for gpu_id in sorted(set(gpus) ^ set(pool.idle)):
        findings.add("stuck", f"{gpu_id} is {'not ' * (gpu_id not in pool.idle)}idle")


def _check_indexes(tag: TagEvidence, findings: Findings) -> None:
    for name in ("queued", "by_hand"):
        for experiment_id in getattr(tag, name):
            findings.add("stuck", f"{experiment_id} is still {name}")
    for status, ids in tag.by_status.items():
        recount = {record.id for record in tag.records.values() if record.status == status}
        if ids != recount:
            findings.add("counters", f"{tag.name}: index of {status} is off by {ids ^ recount}")


# ---------------------------------------------------------------------------- verdicts


def audit_order(tags: Iterable[TagEvidence], seen: list[Decided], findings: Findings) -> None:
    """`finished` grows strictly in the order in which decisions came along."""
    for tag in tags:
        last = 0
        for decision in seen:
            record = tag.records.get(decision.experiment_id)
            if record is None or not record.decided:
                continue
            finished = int(record.run["finished"])
            if finished <= last:
                findings.add("time-order", f"{record.id} finished at {finished}, after {last}")
            last = finished


def _check_verdicts(tag: TagEvidence, ledger: Ledger, findings: Findings) -> None:
    """Judge every run again, in order of decision."""
    threshold = float(tag.fields["threshold"])
    best: float | None = None
    near: dict[str, float] = {}
    for record in tag.in_order:
        told = ledger.told.get(record.id, record.verdict)
        if told != record.verdict:
            findings.add("verdict-changed", f"{record.id}: {told}, stored is {record.verdict}")
        value = record.val_bpb
        if value is None:
            if record.status in ("keep", "discard"):
                findings.add("right-verdict", f"{record.id} is {record.status} without a result")
            continue
        _check_result(record, value, best, findings)
        if best is None or value < best:
            best = value
        elif value - best < threshold or value == best:
            near[record.id] = value - best
    if near != tag.near:
        off = _unlike(near, tag.near)
        findings.add("right-verdict", f"{tag.name}: near misses are off by {off}")
    _check_best(tag, findings)


def _check_result(record: Record, value: float, best: float | None, findings: Findings) -> None:
    """One result against the best before it."""
    epoch = int(record.run.get("epoch", 0))
    if stub.epoch_in(value) != epoch:
        findings.add("fencing", f"{record.id} took {value} in epoch {epoch}")
    better = best is None or value < best
    if record.status == "keep" and not better:
        findings.add("keep-order", f"{record.id} kept with {value}, best was {best}")
    verdict = record.verdict or {}
    right = ("keep" if better else "discard", 0.0 if best is None else best - value)
    if (record.status, verdict.get("delta")) != right:
        findings.add("right-verdict", f"{record.id}: {value} against {best} gave {verdict}")


def _check_best(tag: TagEvidence, findings: Findings) -> None:
    keeps = [record for record in tag.in_order if record.status == "keep"]
    values = [record.val_bpb for record in keeps if record.val_bpb is not None]
    stored = tag.fields.get("best_val_bpb")
    if (None if stored is None else float(stored)) != min(values, default=None):
        findings.add(
            "best", f"{tag.name}: best is {stored}, least keep {min(values, default=None)}"
        )
    if [keep["id"] for keep, _ in tag.keeps] != [record.id for record in keeps]:
        findings.add("best", f"{tag.name}: the progression is not that of the keeps")


def _check_attempts(tag: TagEvidence, excuses: Excuses, findings: Findings) -> None:
    for record in tag.records.values():
        epochs = [attempt["epoch"] for attempt in record.attempts]
        if epochs != list(range(1, len(epochs) + 1)):
            findings.add("two-leases", f"{record.id} had the epochs {epochs}")
        for attempt in record.attempts:
            if "ended" not in attempt:
                findings.add("stuck", f"{record.id}: attempt {attempt['epoch']} has no end")
            elif attempt["outcome"] in _LOST:
                start, end = int(attempt["claimed"]) / 1e6, int(attempt["ended"]) / 1e6
                if not excuses.explain(attempt["gpu_id"], start, end):
                    findings.add("needless-loss", f"{record.id}: {attempt}, and no fault was near")


# ---------------------------------------------------------------------------- counters


def _check_recount(tag: TagEvidence, findings: Findings) -> None:
    streak, recent, seconds = 0, [], 0.0
    for record in tag.in_order:
        seconds += float(record.run.get("training_seconds", 0))
        if record.status == "cancelled" or record.infra_lost:
            continue
        recent.append(record.status)
        streak = 0 if record.status in ("keep", "discard") else streak + 1
    expected = {
        "streak": (float(tag.fields.get("streak", 0)), streak),
        "infra_lost": (
            float(tag.fields.get("infra_lost", 0)),
            sum(record.infra_lost for record in tag.in_order),
        ),
        "training_seconds": (float(tag.fields.get("training_seconds", 0)), seconds),
        "recent": (tag.recent, recent[-_RECENT:][::-1]),
        "categories": (_without_zeros(tag.categories), _categories(tag)),
    }
    for name, (stored, recount) in expected.items():
        same = (
            abs(stored - recount) < 1e-6
            if isinstance(stored, float) and isinstance(recount, float)
            else stored == recount
        )
        if not same:
            findings.add("counters", f"{tag.name}: {name} is {stored}, recounted {recount}")


def _categories(tag: TagEvidence) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for record in tag.records.values():
        category = record.experiment["category"]
        counts[f"n:{category}"] += record.status != "cancelled"
        counts[f"kept:{category}"] += record.status == "keep"
        counts[f"near:{category}"] += record.id in tag.near
    return _without_zeros(counts)


def _without_zeros(counts: dict[str, int] | Counter[str]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _check_summary(tag: TagEvidence, findings: Findings) -> None:
    """What the service says of the tag against a recount."""
    counts = Counter(record.status for record in tag.records.values())
    lost = sum(record.infra_lost for record in tag.records.values())
    finished = counts["keep"] + counts["discard"] + counts["crash"] + counts["timeout"]
    judged = finished - lost
    seconds = sum(float(r.run.get("training_seconds", 0)) for r in tag.records.values())
    stats, summary = tag.summary["stats"], tag.summary
    expected: dict[str, Any] = {
        "total": finished,
        "kept": counts["keep"],
        "discarded": counts["discard"],
        "crashed": counts["crash"] + counts["timeout"],
        "timed_out": counts["timeout"],
        "cancelled": counts["cancelled"],
        "infra_lost": lost,
        "running": counts["running"],
        "queued": counts["queued"],
        "keep_rate": counts["keep"] / judged if judged else 0.0,
    }
    said = {name: stats[name] for name in expected} | {
        "minutes": summary["total_training_minutes"],
        "progression": [point["id"] for point in summary["bpb_progression"]],
    }
    keeps = [record.id for record in tag.in_order if record.status == "keep"]
    expected |= {"minutes": round(seconds / 60, 1), "progression": keeps[-_SUMMARY_KEEPS:]}
    if said != expected:
        findings.add("counters", f"{tag.name}: summary off by {_unlike(expected, said)}")


def _unlike(expected: Mapping[str, object], found: Mapping[str, object]) -> dict[str, object]:
    names = sorted(expected.keys() | found.keys())
    return {
        name: (expected.get(name), found.get(name))
        for name in names
        if expected.get(name) != found.get(name)
    }
