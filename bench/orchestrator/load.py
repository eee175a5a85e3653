"""Fills a Redis with finished experiments: one of each kind through the API, the rest as copies.

copy.lua writes what the product wrote, record by record and index by index, ten times faster than
deciding each run. tests/unit/test_bench.py compares a copy with its template.
"""

import secrets
import time
from pathlib import Path
from typing import Any

from bench.harness.servers import RedisProcess
from bench.harness.wire import Connection
from bench.orchestrator.texts import ENVIRONMENT, IDEA, METRICS
from orchestrator.store import keys

TAGS = 10
# As many characters as the copies' tags have, so that copies are as large as their templates.
TEMPLATE_TAG = "load-x"
GPU = "load-gpu"
_BATCH = 5000
# Of 100 experiments of a tag, as in a long search.
SHARES = {"discard": 70, "near": 20, "keep": 3, "crash": 7}
# The first tag has as many keeps at any size, so that its answers are of one size.
STEADY_KEEPS = 3


def tag_name(number: int) -> str:
    return f"load-{number}"


class Loader:
    def __init__(self, server: RedisProcess, port: int) -> None:
        self._redis = server.client()
        self._api = Connection(port)
        script = keys.lua_names() + (Path(__file__).parent / "copy.lua").read_text("utf-8")
        self._copy: Any = self._redis.register_script(script)
        self.templates = self._make_templates()

    def close(self) -> None:
        self._redis.close()
        self._api.close()

    def load(self, total: int, tags: int = TAGS) -> float:
        """Fill `tags` tags with `total` experiments; the bytes that each took."""
        for number in range(tags):
            self._api.post("/api/experiment/setup", tag=tag_name(number))
        before = self._used()
        per_tag = total // tags
        for number in range(tags):
            self._load_tag(tag_name(number), self._plan(per_tag, steady=number == 0))
        return (self._used() - before) / (per_tag * tags)

    @staticmethod
    def _plan(count: int, *, steady: bool) -> dict[str, int]:
        plan = {kind: max(1, count * share // 100) for kind, share in SHARES.items()}
        plan["keep"] = STEADY_KEEPS if steady or plan["keep"] < STEADY_KEEPS else plan["keep"]
        plan["discard"] = count - sum(plan.values()) + plan["discard"]
        return plan

    def _load_tag(self, tag: str, plan: dict[str, int]) -> None:
        total = sum(plan.values())
        created = int(time.time() * 1e6) - 1_000_000 - total * 10
        last = ""
        for offset, (kind, count) in enumerate(plan.items()):
            # Kinds are mixed in time; the step is a multiple of their number, so no two collide.
            step = total * 10 // count // len(plan) * len(plan)
            for start in range(0, count, _BATCH):
                first = created + start * step + offset
                args = [self.templates[kind], tag, min(_BATCH, count - start), first, step]
                last = self._copy(args=args)
            if kind == "keep":
                self._set_best(tag, last)

    def _set_best(self, tag: str, experiment_id: str) -> None:
        """What the decision that made it the best would have written."""
        template = self._redis.hgetall(keys.of_tag(TEMPLATE_TAG, "tag"))
        fields = {n: template[n] for n in ("best_val_bpb", "best_commit", "best_at", "profile")}
        self._redis.hset(keys.of_tag(tag, "tag"), mapping=fields | {"best_id": experiment_id})

    def record_bytes(self, copies: int) -> list[int]:
        """What the keys of single experiments take (MEMORY USAGE), of the newest of each tag."""
        sizes = []
        for number in range(TAGS):
            tag = tag_name(number)
            for i in self._redis.zrange(keys.of_tag(tag, "all"), -copies, -1):
                names = [keys.of_tag(tag, name, i) for name in ("exp:", "run:", "attempts:")]
                sizes.append(sum(self._redis.memory_usage(name, samples=0) or 0 for name in names))
        return sizes

    def _used(self) -> int:
        return int(self._redis.info("memory")["used_memory"])

    # -- templates, through the API

    def _make_templates(self) -> dict[str, str]:
        self._api.post("/api/experiment/setup", tag=TEMPLATE_TAG)
        self._api.post(
            "/api/pool/register", gpu_id=GPU, gpu_index=0, gpu_name="Test GPU", vram_mb=80_000,
            profile=ENVIRONMENT["profile"],
        )  # fmt: skip
        made = {}
        for kind, val_bpb in (("keep", 0.9831), ("near", 0.9842), ("discard", 0.9913)):
            made[kind] = self._finished(outcome="completed", metrics={"val_bpb": val_bpb} | METRICS)
        error = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB."
        made["crash"] = self._finished(outcome="crash", error=error)
        return made

    def _finished(self, **report: Any) -> str:
        source = f"# {secrets.token_hex(8)}\nprint('---')\n"
        idea = {k: v for k, v in IDEA.items() if k != "commit_sha"}
        self._api.post("/api/experiment/submit", tag=TEMPLATE_TAG, train_py=source, **idea)
        claim = {"gpu_id": GPU, "claim_id": secrets.token_hex(8)}
        job = self._api.post("/api/job/claim", **claim)["job"]
        lease = {name: job[name] for name in ("experiment_id", "gpu_id", "epoch", "lease_secret")}
        self._api.post("/api/job/finish", environment=ENVIRONMENT, **lease, **report)
        return str(job["experiment_id"])


def settled(client: Any) -> None:
    """Wait until no rewrite of the append-only file is running or due."""
    while True:
        state = client.info("persistence")
        if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
            return
        time.sleep(0.2)
