"""The audit of a system at rest: what must hold, and what must be counted.

The counting is the oracle's (tests/oracle): it decides every run once more, in the order of their
decision, and what follows from that is compared with the whole of Redis.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.chaos import stub
from bench.chaos.expected_losses import ExpectedLosses
from bench.chaos.promises import Promises, told
from bench.chaos.violations import Findings
from tests.oracle import keyspace
from tests.oracle.model import Model
from tests.oracle.race import RaceTag
from tests.oracle.replay import replayed
from tests.oracle.search import Run, Tag

_LOST = ("expired", "lost")
_SUMMARY_KEEPS = 1000


@dataclass(frozen=True)
class Records:
    """Everything that lies in Redis, and the oracle's view of it."""

    stored: dict[str, Any]
    model: Model

    @classmethod
    async def read(cls, client: Any) -> "Records":
        """`client` speaks to Redis itself, around the service."""
        stored = keyspace.parsed(await client.eval(keyspace.DUMP, 0))
        return cls(stored, replayed(stored))

    def members(self, name: str) -> list[str]:
        return [member for member, _ in self.stored.get(name, [])]

    def run(self, run: Run) -> dict[str, str]:
        found: dict[str, str] = self.stored[f"{{{run.tag.name}}}:run:{run.id}"]
        return found

    def attempts(self, run: Run) -> list[dict[str, Any]]:
        stored = self.stored.get(f"{{{run.tag.name}}}:attempts:{run.id}", [])
        return [json.loads(attempt) for attempt in stored]


def audit(
    records: Records,
    promises: Promises,
    losses: ExpectedLosses,
    seen: Iterable[str],
    gpus: Iterable[str],
    findings: Findings,
) -> None:
    """Everything that the records show. `seen` are the decided ids in the order of their events."""
    _check_promises(records, promises, findings)
    _check_rest(records, gpus, findings)
    _check_order(records, seen, findings)
    for run in records.model.runs.values():
        _check_verdict(records, run, promises, findings)
        _check_attempts(records, run, losses, findings)
    _check_counting(records, findings)


def _check_promises(records: Records, promises: Promises, findings: Findings) -> None:
    """What was acknowledged exists and is decided, and nothing else exists."""
    runs = records.model.runs
    for experiment_id in sorted(promises.acknowledged):
        run = runs.get(experiment_id)
        if run is None or run.state != "decided":
            state = run.state if run else "no record"
            findings.add("lost", f"{experiment_id} was acknowledged: {state}")
    for experiment_id in sorted(runs.keys() - promises.acknowledged):
        if not queued_by_rule(runs[experiment_id]):
            findings.add("created-twice", f"{experiment_id} was never acknowledged")


def queued_by_rule(run: Run) -> bool:
    """True for the repeats and merges of a keep rule. Agents of its tag queue neither."""
    repeats = isinstance(run.tag, RaceTag) and run.repeat_of is not None
    return repeats or run.category == "merge"


def _check_rest(records: Records, gpus: Iterable[str], findings: Findings) -> None:
    """Nothing is left to do, and every GPU is idle."""
    for run in records.model.runs.values():
        if run.state != "decided":
            findings.add("stuck", f"{run.id} is still {run.state}")
    for name in ("leases", "busy", "holds"):
        for member in records.members(name):
            findings.add("stuck", f"{member} is still among the {name}")
    idle = set(records.members("idle"))
    for gpu_id in sorted(set(gpus) ^ idle):
        findings.add("stuck", f"{gpu_id} is {'' if gpu_id in idle else 'not '}idle")


def _check_order(records: Records, seen: Iterable[str], findings: Findings) -> None:
    """`finished` grows strictly in the order in which the decisions were announced."""
    last: dict[Tag, int] = {}
    for experiment_id in seen:
        run = records.model.runs.get(experiment_id)
        if run is None or run.state != "decided":
            continue
        finished, before = int(records.run(run)["finished"]), last.get(run.tag, 0)
        if finished <= before:
            findings.add("time-order", f"{run.id} finished at {finished}, after {before}")
        last[run.tag] = finished


def _check_verdict(records: Records, run: Run, promises: Promises, findings: Findings) -> None:
    """The stored verdict is the one that was told, of a result that the current attempt printed."""
    stored = records.run(run)
    if run.id in promises.verdicts:
        first, verdict = promises.verdicts[run.id], told(json.loads(stored.get("verdict", "{}")))
        if first != verdict:
            findings.add("verdict-changed", f"{run.id}: {first}, stored is {verdict}")
    if "val_bpb" in stored and stub.epoch_in(float(stored["val_bpb"])) != run.epoch:
        findings.add("fencing", f"{run.id} took {stored['val_bpb']} in epoch {run.epoch}")


def _check_attempts(records: Records, run: Run, losses: ExpectedLosses, findings: Findings) -> None:
    attempts = records.attempts(run)
    epochs = [attempt["epoch"] for attempt in attempts]
    if epochs != list(range(1, int(records.run(run).get("epoch", 0)) + 1)):
        findings.add("two-leases", f"{run.id} had the epochs {epochs}")
    for attempt in attempts:
        if "ended" not in attempt:
            findings.add("stuck", f"{run.id}: attempt {attempt['epoch']} has no end")
        elif attempt["outcome"] in _LOST:
            start, end = int(attempt["claimed"]) / 1e6, int(attempt["ended"]) / 1e6
            if not losses.explain(attempt["gpu_id"], start, end):
                findings.add("needless-loss", f"{run.id}: {attempt}, and no fault was near")


# ---------------------------------------------------------------------------- counting


def _check_counting(records: Records, findings: Findings) -> None:
    """Verdicts, best, near misses, counters and indexes are those of the oracle."""
    found, wanted = keyspace.actual(records.stored), keyspace.expected(records.model)
    for key, (is_, should_be) in keyspace.differences(found, wanted).items():
        if isinstance(is_, dict) and isinstance(should_be, dict):
            for name, (one, other) in keyspace.differences(is_, should_be).items():
                findings.add(_invariant(key, name), f"{key} {name}: {one}, should be {other}")
        else:
            findings.add(_invariant(key), f"{key}: {is_}, should be {should_be}")


def _invariant(key: str, name: str = "") -> str:
    """Which invariant a difference in this key (and field) breaks."""
    word = key.rpartition("}:")[2].partition(":")[0]
    if word in ("run", "near"):
        return "right-verdict"
    return "best" if word == "keeps" or name.startswith("best_") else "counters"


def audit_summary(tag: Tag, runs: list[Run], summary: dict[str, Any], findings: Findings) -> None:
    """What the service says of a tag, against a recount."""
    stats = tag.stats(runs)
    wanted = stats | {
        "minutes": round(tag.seconds / 60, 1),
        "progression": [run.id for run in tag.keeps][-_SUMMARY_KEEPS:],
    }
    said = {name: summary["stats"][name] for name in stats} | {
        "minutes": summary["total_training_minutes"],
        "progression": [point["id"] for point in summary["bpb_progression"]],
    }
    if differing := keyspace.differences(said, wanted):
        findings.add("counters", f"{tag.name}: the summary is off by {differing}")
