"""The scanning way: every experiment in one list, every answer by filtering it from the start.

A sketch of how the original answers suggest and summary, and a generous one: its store is a list of
dicts in the process (no Redis, no decoding), its HTTP the same FastAPI under the same uvicorn.
"""

import os
import random
from collections import Counter
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from bench.orchestrator.load import SHARES, tag_name
from bench.orchestrator.texts import IDEA, METRICS
from orchestrator.rules.suggest import CORE_CATEGORIES

NEAR_MISS_THRESHOLD = 0.002


def _experiments(total: int, tags: int) -> list[dict[str, Any]]:
    source = random.Random(7)
    kinds, weights = list(SHARES), list(SHARES.values())
    made = []
    for number in range(total):
        kind = source.choices(kinds, weights)[0]
        made.append(
            IDEA
            | METRICS
            | {
                "id": f"exp-{number:08d}",
                "tag": tag_name(number % tags),
                "status": "discard" if kind == "near" else kind,
                "val_bpb": 0.98 + source.random() * 0.05,
                "category": source.choice(CORE_CATEGORIES),
                "started_at": number,
                "finished_at": number + 1,
            }
        )
    return made


EXPERIMENTS = _experiments(int(os.environ["SCANNED_EXPERIMENTS"]), int(os.environ["SCANNED_TAGS"]))
app = FastAPI()


class TagRequest(BaseModel):
    tag: str


def _of(tag: str) -> list[dict[str, Any]]:
    return sorted((e for e in EXPERIMENTS if e["tag"] == tag), key=lambda e: e["started_at"])


@app.post("/api/search/suggest")
async def suggest(body: TagRequest) -> dict[str, Any]:
    found = _of(body.tag)
    finished = [e for e in found if e["status"] != "running"]
    keeps = [e for e in finished if e["status"] == "keep"]
    total = Counter(e["category"] for e in found)
    kept = Counter(e["category"] for e in keeps)
    best = min(e["val_bpb"] for e in keeps)
    near = [
        e
        for e in finished
        if e["status"] == "discard" and e["val_bpb"] - best < NEAR_MISS_THRESHOLD
    ]
    return {
        "strategy": "explore",
        "total_experiments": len(found),
        "category_stats": {c: {"total": total[c], "kept": kept[c]} for c in total},
        "underexplored_categories": [c for c in CORE_CATEGORIES if total[c] < 3],
        "high_yield_categories": [c for c in total if kept[c] / total[c] > 0.3],
        "near_misses_available": len(near),
        "near_miss_categories": sorted({e["category"] for e in near}),
        "recent_bpb_trend": [e["val_bpb"] for e in keeps[-5:]],
        "suggestions": [],
    }


@app.post("/api/report/summary")
async def summary(body: TagRequest) -> dict[str, Any]:
    found = _of(body.tag)
    statuses = Counter(e["status"] for e in found)
    keeps = [e for e in found if e["status"] == "keep"]
    best = min(keeps, key=lambda e: e["val_bpb"])
    return {
        "tag": body.tag,
        "best": {"val_bpb": best["val_bpb"], "commit": best["commit_sha"]},
        "stats": statuses | {"total": len(found), "keep_rate": len(keeps) / len(found)},
        "categories": Counter(e["category"] for e in found),
        # As many as our own answer has, so that the transfer is not what is compared.
        "bpb_progression": [{"id": e["id"], "val_bpb": e["val_bpb"]} for e in keeps[-3:]],
        "total_training_minutes": sum(e["training_seconds"] for e in found) / 60,
    }
