"""What a model must leave in Redis, and what lies there, in one form to be compared.

By the names of keys.py, without `ar:`. Times, empty keys, streams, and what `race` and the early
stop believe are left out, and where the orchestrators keep their files.
"""

import json
from typing import Any

from tests.oracle.model import Model
from tests.oracle.search import STATUSES, Run, Tag

State = dict[str, Any]

# ---------------------------------------------------------------------------- what must be there


def expected(model: Model) -> State:
    """The whole keyspace of this model."""
    gpus = sorted(model.gpus.values(), key=lambda gpu: gpu.order)
    leased = sorted((r for r in model.runs.values() if r.leased), key=lambda run: run.renewal)
    found: State = {
        "tags": list(model.tags),
        "seq": model.seq,
        "leases": [run.id for run in leased],
        "gpus": [(gpu.id, gpu.order) for gpu in gpus],
        "idle": [(gpu.id, gpu.order) for gpu in gpus if gpu.idle],
        "busy": [(gpu.id, gpu.order) for gpu in gpus if gpu.lease or gpu.hold],
        "seen": sorted(model.gpus),
        "holds": sorted(gpu.id for gpu in gpus if gpu.hold),
        "drained": sorted(model.drained),
    }
    for gpu in gpus:
        found[f"gpu:{gpu.id}"] = {
            "order": gpu.order, "gpu_name": gpu.model, "profile": gpu.profile,
            "problem": gpu.problem, "quarantined": gpu.quarantined, "draining": gpu.draining,
            "drained": gpu.drained,
            "lease": f"{gpu.lease.id} {gpu.lease.epoch}" if gpu.lease else None,
            "hold": gpu.hold.id if gpu.hold else None, "last_hold": gpu.last_hold,
        }  # fmt: skip
        found[f"direct:{gpu.id}"] = [(run.id, run.score) for run in model.directed(gpu.id)]
    for tag in model.tags.values():
        found |= _of_tag(model, tag)
        if (queue := model.queue(tag)) and not tag.paused:
            ready = f"ready:{tag.profile or '-'}" + (f"#{tag.model}" if tag.model else "")
            found.setdefault(ready, []).append((tag.name, queue[0].score))
    for name, heads in found.items():
        if name.startswith("ready:"):
            heads.sort(key=lambda head: head[1])
    for run in model.runs.values():
        found |= _of_run(run)
    return without_empty(found)


def without_empty(state: State) -> State:
    return {name: value for name, value in state.items() if value not in ([], {}, 0)}


def _of_tag(model: Model, tag: Tag) -> State:
    runs = model.runs_of(tag)
    best = tag.best
    found: State = {
        "tag": {
            "profile": tag.profile, "gpu_model": tag.model, "mix_models": tag.mixes,
            "best_val_bpb": tag.best_value,
            "best_id": best.id if best else None, "best_commit": best.commit if best else None,
            "streak": tag.streak, "revision": tag.revision, "infra_lost": tag.lost,
            "training_seconds": tag.seconds, "paused": tag.paused,
        },
        "strategy": {
            "mode": tag.mode, "explore_ratio": tag.ratio, "temperature": tag.temperature,
            "pinned": tag.pinned,
        },
        "notes": sorted(tag.notes),
        "all": [run.id for run in runs],
        "hand": [run.id for run in runs if run.state == "hand"],
        "keeps": [(run.id, tag.kept_as(run), run.category) for run in tag.keeps],
        "near": [(run.id, run.near) for run in tag.near],
        "recent": tag.recent,
        "cats": tag.categories(runs),
        "sources": {key: " ".join(ids) for key, ids in tag.sources.items() if ids},
        "queue": [(run.id, run.score) for run in model.queue(tag)],
        "follow": tag.follow(runs),
    }  # fmt: skip
    for status in STATUSES:
        found[f"status:{status}"] = [run.id for run in runs if run.status == status]
    return {f"{{{tag.name}}}:{name}": value for name, value in found.items()}


def _of_run(run: Run) -> State:
    base = f"{{{run.tag.name}}}:"
    return {
        f"{base}exp:{run.id}": {
            "category": run.category, "commit_sha": run.commit, "parent_id": run.parent,
            "source": run.source, "repeat_of": run.repeat_of,
        },
        f"{base}run:{run.id}": {
            "state": run.state, "status": run.status, "epoch": run.epoch, "losses": run.losses,
            "gpu_id": run.gpu, "target_gpu": run.target, "stop": run.stop, "seed": run.seed,
            "priority": run.priority, "score": run.score,
            "val_bpb": run.report.val_bpb if run.report else None,
            "reason": run.report.reason if run.report else None, "verdict": run.verdict,
        },
        f"{base}attempts:{run.id}": [(a.epoch, a.gpu, a.outcome) for a in run.attempts],
    }  # fmt: skip


# ---------------------------------------------------------------------------- what is there

# All keys of the system with what they hold, in one round trip.
DUMP = """
local out = {}
for _, key in ipairs(redis.call('KEYS', 'ar:*')) do
  local kind, value = redis.call('TYPE', key).ok, nil
  local request = string.find(key, '^ar:nonce:') or string.find(key, '^ar:idem:')
  local apart = key == 'ar:answers' or key == 'ar:files'
  if request or apart or kind == 'stream' then kind = nil
  elseif kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  else value = redis.call('GET', key) end
  if kind then out[#out + 1] = { string.sub(key, 4), kind, value } end
end
return cjson.encode(out)
"""

# The fields that are compared, each with its type, or with its type and what stands for a missing
# one.
_HASHES: dict[str, dict[str, Any]] = {
    "tag": {
        "profile": str, "gpu_model": str, "mix_models": (bool, False), "best_val_bpb": float,
        "best_id": str, "best_commit": str,
        "streak": (int, 0), "revision": int, "infra_lost": (int, 0), "training_seconds": (float, 0),
        "paused": (bool, False),
    },
    "strategy": {
        "mode": str, "explore_ratio": float, "temperature": float,
        "pinned": lambda text: text == "1",
    },
    "gpu": {
        "order": int, "gpu_name": str, "profile": str, "problem": str, "quarantined": (bool, False),
        "draining": (bool, False), "drained": (bool, False), "lease": str, "hold": str,
        "last_hold": str,
    },
    "exp": {
        "category": str, "commit_sha": str, "parent_id": str, "source": str, "repeat_of": str,
    },
    "run": {
        "state": str, "status": str, "epoch": (int, 0), "losses": (int, 0), "gpu_id": str,
        "target_gpu": str, "stop": str, "seed": int,
        "priority": int, "score": int, "val_bpb": float, "reason": str, "verdict": json.loads,
    },
}  # fmt: skip
_SCORED = ("gpus", "idle", "busy", "ready", "direct", "near", "queue")
_UNORDERED = ("seen", "holds")


def parsed(dump: str) -> dict[str, Any]:
    """What `DUMP` found: hashes as dicts, sorted sets as pairs of member and score."""
    found: dict[str, Any] = {}
    for name, kind, value in json.loads(dump):
        if kind == "hash":
            found[name] = dict(zip(value[::2], value[1::2], strict=True))
        elif kind == "zset":
            found[name] = list(zip(value[::2], map(float, value[1::2]), strict=True))
        else:
            found[name] = int(value) if name == "seq" else value
    return found


def actual(stored: dict[str, Any]) -> State:
    """A parsed dump in the form of `expected`."""
    believed = ("}:race", "}:stops")
    compared = {name: value for name, value in stored.items() if not name.endswith(believed)}
    return without_empty({name: _value(name, value) for name, value in compared.items()})


def _value(name: str, value: Any) -> Any:
    word = name.rpartition("}:")[2].partition(":")[0]
    if word in _HASHES:
        return {field: _field(value, field, how) for field, how in _HASHES[word].items()}
    if word in ("notes", "drained"):
        return sorted(value)
    if word == "cats":
        return {field: int(n) for field, n in value.items() if n != "0"}
    if word == "keeps":
        keeps = [json.loads(member) for member, _ in value]
        return [(keep["id"], keep["val_bpb"], keep["category"]) for keep in keeps]
    if word == "attempts":
        attempts = [json.loads(text) for text in value]
        return [(a["epoch"], a["gpu_id"], a.get("outcome")) for a in attempts]
    if word in _UNORDERED:
        return sorted(member for member, _ in value)
    if word in ("tags", "leases", "all", "hand", "status"):
        return [member for member, _ in value]
    return value


def _field(stored: dict[str, str], field: str, how: Any) -> Any:
    convert, absent = how if isinstance(how, tuple) else (how, None)
    return convert(stored[field]) if field in stored else absent


def differences(found: State, wanted: State) -> dict[str, tuple[Any, Any]]:
    """What is there and what should be, of each key that differs."""
    names = sorted(found.keys() | wanted.keys())
    return {n: (found.get(n), wanted.get(n)) for n in names if found.get(n) != wanted.get(n)}
