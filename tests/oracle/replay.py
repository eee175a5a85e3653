"""A model of a system at rest: its runs are decided once more, in the order of their decision.

What an experiment is, which attempts it had and what was reported is taken from the records. What
follows from that (verdicts, best, near misses, counters, strategy, indexes) is worked out here, so
that `keyspace.differences` says where the product counted something else.
"""

import json
from collections.abc import Iterator
from typing import Any

from tests.oracle.model import Gpu, Model
from tests.oracle.race import RaceTag
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
        if isinstance(tag, RaceTag):
            _race(stored, tag, model)
        else:
            for decided in _over_in_order(stored, name, "finished"):
                run, kept = model.runs[decided], stored[f"{{{name}}}:run:{decided}"]
                tag.decide(run, _report(kept))
                said = json.loads(kept["verdict"])
                if run.verdict is not None and "why" in said:  # it waits for a merge
                    run.verdict["why"] = said["why"]
        tag.steps = int(stored[f"{{{name}}}:tag"]["revision"]) - len(tag.decided)
    for renewal, (experiment_id, _) in enumerate(stored.get("leases", [])):
        if experiment_id in model.runs:
            model.runs[experiment_id].renewal = renewal
    for gpu_id, _ in stored.get("gpus", []):
        model.gpus[gpu_id] = _gpu(gpu_id, stored[f"gpu:{gpu_id}"], model)
    return model


def _over_in_order(stored: Stored, tag: str, *times: str) -> list[str]:
    """Ids of the runs that are decided (or measured), by the first of these times that each has."""
    base = f"{{{tag}}}:run:"
    over = {
        name.removeprefix(base): next(int(run[time]) for time in times if time in run)
        for name, run in stored.items()
        if name.startswith(base) and run.get("state") in ("decided", "measured")
    }
    return sorted(over, key=lambda run: over[run])


def _race(stored: Stored, tag: RaceTag, model: Model) -> None:
    """Take as given what the rule said, in the order of trainings and then in that of verdicts."""
    base = f"{{{tag.name}}}:"
    champions = json.loads(stored.get(f"{base}race", "{}")).get("champions")
    if champions:
        tag.champion, (tag.estimate, _) = champions[-1]["source"]["id"], champions[-1]["belief"]
    keeps = [json.loads(member) for member, _ in stored.get(f"{base}keeps", [])]
    tag.estimates = {keep["id"]: keep["val_bpb"] for keep in keeps}
    near = dict(stored.get(f"{base}near", []))
    for trained in _over_in_order(stored, tag.name, "measured", "finished"):
        run = stored[f"{base}run:{trained}"]
        tag.train(model.runs[trained], _report(run), json.loads(run["verdict"]))
    for decided in _over_in_order(stored, tag.name, "finished"):
        if stored[f"{base}run:{decided}"]["state"] == "decided":
            tag.settle(model.runs[decided], near.get(decided))


def _tag(name: str, stored: Stored) -> Tag:
    kind = RaceTag if stored.get("keep_rule") == "race" else Tag
    return kind(
        name, float(stored["threshold"]), int(stored["max_crashes"]), stored.get("profile"),
        stored.get("gpu_model"), "mix_models" in stored, paused="paused" in stored,
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
        gpu_id, int(stored["order"]), 0, stored["gpu_name"], stored.get("profile"),
        stored.get("problem"),
        "quarantined" in stored, "draining" in stored, "drained" in stored,
        model.runs.get(leased), model.runs.get(stored.get("hold", "")), stored.get("last_hold"),
    )  # fmt: skip


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
