"""A model of a system at rest: its runs are decided once more, in the order of their decision.

What an experiment is, which attempts it had and what was reported is taken from the records. What
follows from that (verdicts, best, near misses, counters, strategy, indexes) is worked out here, so
that `keyspace.differences` says where the product counted something else.
"""

import json
from collections.abc import Iterator
from typing import Any

from tests.oracle.model import Gpu, Model
from tests.oracle.search import Attempt, Report, Run, Tag

Stored = dict[str, Any]


def replayed(stored: Stored) -> Model:
    """`stored` is a parsed dump (keyspace.py)."""
    model = Model()
    model.seq = stored.get("seq", 0)
    model.drained = set(stored.get("drained", {}))
    for name, _ in stored.get("tags", []):
        tag = model.tags[name] = _tag(name, stored[f"{{{name}}}:tag"])
        tag.notes = list(stored.get(f"{{{name}}}:notes", {}))
        for run in _runs(stored, tag):
            model.runs[run.id] = run
        for decided in _decided_in_order(stored, name):
            tag.decide(model.runs[decided], _report(stored[f"{{{name}}}:run:{decided}"]))
        tag.steps = int(stored[f"{{{name}}}:tag"]["revision"]) - len(tag.decided)
    for renewal, (experiment_id, _) in enumerate(stored.get("leases", [])):
        if experiment_id in model.runs:
            model.runs[experiment_id].renewal = renewal
    for gpu_id, _ in stored.get("gpus", []):
        model.gpus[gpu_id] = _gpu(gpu_id, stored[f"gpu:{gpu_id}"], model)
    return model


def _decided_in_order(stored: Stored, tag: str) -> list[str]:
    """Ids of the decided runs, by their stored time of decision."""
    base = f"{{{tag}}}:run:"
    finished = {
        name.removeprefix(base): int(run["finished"])
        for name, run in stored.items()
        if name.startswith(base) and run.get("state") == "decided"
    }
    return sorted(finished, key=lambda run: finished[run])


def _tag(name: str, stored: Stored) -> Tag:
    return Tag(
        name, float(stored["threshold"]), int(stored["max_crashes"]), stored.get("profile"),
        paused="paused" in stored,
    )  # fmt: skip


def _runs(stored: Stored, tag: Tag) -> Iterator[Run]:
    """Every run of the tag by creation, as it was before it was decided."""
    for experiment_id, _ in stored.get(f"{{{tag.name}}}:all", []):
        idea, run = (stored[f"{{{tag.name}}}:{name}:{experiment_id}"] for name in ("exp", "run"))
        attempts = map(json.loads, stored.get(f"{{{tag.name}}}:attempts:{experiment_id}", []))
        made = Run(
            experiment_id, tag, idea["category"], idea["commit_sha"], idea.get("parent_id"),
            run["state"], run["status"], idea.get("source"), _number(run.get("seed")),
            _number(run.get("priority")), _number(run.get("score")), run.get("gpu_id"),
            run.get("target_gpu"), int(run.get("losses", 0)), run.get("stop"),
            idea.get("repeat_of"),
            attempts=[Attempt(a["epoch"], a["gpu_id"], a.get("outcome")) for a in attempts],
        )  # fmt: skip
        if made.source and made.source.startswith(made.commit):  # it was submitted with it
            tag.sources.setdefault(made.source_key, []).append(made.id)
        yield made


def _report(run: Stored) -> Report:
    status = "completed" if "val_bpb" in run else run["status"]
    value, seconds = run.get("val_bpb"), run.get("training_seconds")
    return Report(status, value and float(value), seconds and float(seconds), run.get("reason"))


def _gpu(gpu_id: str, stored: Stored, model: Model) -> Gpu:
    leased = stored.get("lease", "").partition(" ")[0]
    return Gpu(
        gpu_id, int(stored["order"]), 0, stored.get("profile"), stored.get("problem"),
        "quarantined" in stored, "draining" in stored, "drained" in stored,
        model.runs.get(leased), model.runs.get(stored.get("hold", "")), stored.get("last_hold"),
    )  # fmt: skip


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
