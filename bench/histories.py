"""Writes a tag's history like that of a long search: plausible results, ideas and times.

Each run is judged by the product's own rules and written as submit.lua and decide.lua write it, so
the audit finds no difference (tests/browser/test_scale.py checks that). No two runs are alike, as
they are in the copies of orchestrator/load.py: this is for looking at.

    python -m bench.histories redis://127.0.0.1:6379 TAG RUNS [HOURS]
"""

import asyncio
import json
import random
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

from orchestrator.decisions import Decision, RunResult, Snapshot
from orchestrator.domain import RECENT_RUNS, Counts, Experiment, Metrics, Run, State, Status, Tag
from orchestrator.ids import id_of
from orchestrator.rules.decide import decide
from orchestrator.rules.strategy import INITIAL
from orchestrator.services import views
from orchestrator.store import entries, keys, records
from orchestrator.store.connection import Store

BATCH = 1000
RUN_SECONDS = 330
BASELINE = 0.997900
IDEAS = {
    "architecture": ("U-net skip connections", "12 layers, narrower", "parallel attention and MLP"),
    "optimizer": ("AdamW betas 0.8/0.95", "Muon momentum 0.97", "second-order warm start"),
    "hyperparams": ("embedding LR 0.8", "batch of 2^19 tokens", "matrix LR 0.035"),
    "activation": ("ReLU squared to SwiGLU", "GELU instead of ReLU squared", "softsign gate"),
    "attention": ("QK norm with learned scale", "n_kv_head 6 to 3", "no softcap", "window of 512"),
    "embedding": ("remove value embeddings", "no x0 residual", "tie the unembedding"),
    "normalization": ("post-norm on MLP output", "RMSNorm without gain", "pre-norm twice"),
    "regularization": ("z-loss 1e-4", "dropout 0.02", "weight decay on embeddings"),
    "scheduling": (
        "cosine to linear decay",
        "warmdown 0.5 to 0.7 (more cooldown)",
        "add 5% warmup",
    ),
    "initialization": ("zero-init output projection", "orthogonal init", "smaller std"),
    "simplification": ("drop residual scalars", "remove the second bias", "one norm less"),
    "combination": ("warmdown 0.7 + embedding LR 0.8", "z-loss + QK norm"),
    "ablation": ("without rotary", "without warmup", "without the gate"),
    "other": ("torch.compile max-autotune", "rotary base 10k to 100k"),
}
ERRORS = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB.",
    "RuntimeError: shape mismatch in attention: [64, 12, 64] and [64, 6, 64]",
    "ValueError: loss is NaN at step 212",
)


class History:
    """The runs of a tag, decided one after the other."""

    def __init__(self, tag: Tag, seed: int) -> None:
        self._chance = random.Random(seed)
        self.snapshot = Snapshot(
            tag=tag, counts=Counts(), strategy=INITIAL, near_misses=0, recent=()
        )
        self.gpus = [f"gpu-{number}" for number in range(8)]

    def next(self, created_us: int, finished_us: int) -> tuple[Snapshot, RunResult, Decision]:
        """The next run: what it was judged on, how it ended, the verdict."""
        number = self.snapshot.counts.finished
        tag = self.snapshot.tag
        category = self._chance.choice(list(IDEAS)) if number else "other"
        idea = self._chance.choice(IDEAS[category]) if number else "baseline"
        experiment = Experiment(
            id=id_of(created_us, tag.name), tag=tag.name, created_us=created_us,
            hypothesis=idea, description=idea, category=category,
            commit_sha=f"{self._chance.getrandbits(40):010x}", diff_summary=f"train.py: {idea}",
            parent_id=tag.best_experiment_id, source_sha256=f"{created_us:064x}",
        )  # fmt: skip
        run = Run(
            experiment.id, State.RUNNING, Status.RUNNING, 42, 0, tag.time_budget_seconds, epoch=1,
            gpu_id=self._chance.choice(self.gpus), started_us=created_us + 4_000_000,
        )  # fmt: skip
        snapshot = replace(self.snapshot, experiment=experiment, run=run)
        result = self._result(number, tag.best_val_bpb)
        decision = decide(snapshot, result)
        self._apply(snapshot, result, decision, finished_us)
        return snapshot, result, decision

    def _result(self, number: int, best: float | None) -> RunResult:
        chance = self._chance
        if number and chance.random() < 0.078:
            if chance.random() < 0.1:
                return RunResult("timeout", error="no result within the time budget and grace")
            return RunResult("crash", error=chance.choice(ERRORS))
        val_bpb = BASELINE
        if best is not None and chance.random() < 0.42 / (1 + number / 14):
            # What is left to gain shrinks with what has been gained.
            val_bpb = best - chance.expovariate(1 / (0.075 * max(best - 0.9688, 1e-5)))
        elif best is not None:
            val_bpb = best + chance.lognormvariate(-5.75, 1.05) + 2e-6
        metrics = Metrics(
            round(val_bpb, 6), peak_vram_mb=chance.gauss(45_000, 3000), training_seconds=300.0,
            total_tokens_m=round(chance.gauss(500, 20), 1),
            mfu_percent=round(chance.gauss(40, 1), 1), num_steps=int(chance.gauss(950, 30)),
            num_params_m=50.3, depth=8,
        )  # fmt: skip
        return RunResult("completed", metrics=metrics)

    def _apply(
        self, snapshot: Snapshot, result: RunResult, decision: Decision, finished_us: int
    ) -> None:
        old = self.snapshot
        tag = replace(
            old.tag,
            revision=old.tag.revision + 1,
            consecutive_crashes=decision.consecutive_crashes,
            training_seconds=old.tag.training_seconds + (300.0 if result.metrics else 0.0),
        )
        if decision.improved and snapshot.experiment and result.metrics:
            best = snapshot.experiment
            tag = replace(
                tag, best_val_bpb=result.metrics.val_bpb, best_experiment_id=best.id,
                best_commit_sha=best.commit_sha, best_us=finished_us,
            )  # fmt: skip
        strategy = decision.strategy and replace(decision.strategy, updated_us=finished_us)
        self.snapshot = replace(
            old,
            tag=tag,
            strategy=strategy or old.strategy,
            counts=old.counts.plus(decision.status),
            near_misses=old.near_misses + (decision.near_miss is not None),
            recent=(decision.status, *old.recent)[:RECENT_RUNS],
        )


class Writer:
    """Writes runs to Redis, a thousand in one pipeline."""

    def __init__(self, redis: Any, tag: str) -> None:
        self._redis = redis
        self._tag = tag
        self._pipeline = redis.pipeline(transaction=False)
        self._categories: Counter[str] = Counter()

    def key(self, name: str, suffix: str = "") -> str:
        return keys.of_tag(self._tag, name, suffix)

    def run(
        self, snapshot: Snapshot, result: RunResult, decision: Decision, finished_us: int
    ) -> None:
        """What submit.lua and decide.lua write for one run."""
        experiment, run, pipe = snapshot.experiment, snapshot.run, self._pipeline
        assert experiment is not None
        assert run is not None
        name, at = experiment.id, str(finished_us)
        status, created = decision.status.value, experiment.created_us
        pipe.hset(self.key("exp:", name), mapping=_experiment_fields(experiment))
        pipe.hset(self.key("run:", name), mapping=_run_fields(snapshot, run, result, decision, at))
        attempt = {
            "epoch": 1, "gpu_id": run.gpu_id, "claimed": str(run.started_us), "ended": at,
            "outcome": result.kind,
        }  # fmt: skip
        pipe.rpush(self.key("attempts:", name), json.dumps(attempt))
        pipe.zadd(self.key("all"), {name: created})
        pipe.zadd(self.key("status:", status), {name: created})
        pipe.hset(self.key("sources"), f"{experiment.source_sha256}:42", name)
        self._categories[f"n:{experiment.category}"] += 1
        if decision.near_miss is not None:
            pipe.zadd(self.key("near"), {name: decision.near_miss})
            self._categories[f"near:{experiment.category}"] += 1
        if decision.improved and result.metrics:
            keep = {
                "id": name, "val_bpb": result.metrics.val_bpb,
                "description": experiment.description, "category": experiment.category,
            }  # fmt: skip
            pipe.zadd(self.key("keeps"), {json.dumps(keep): finished_us})
            self._categories[f"kept:{experiment.category}"] += 1
        journal = entries.journal_data(snapshot, result, decision, 1)
        entry = {"kind": "decided", "id": name, "at": at, "data": json.dumps(journal)}
        # An entry's id holds its time, as one that a decision wrote does.
        pipe.xadd(self.key("journal"), entry, id=f"{finished_us // 1000}-{finished_us % 1000}")

    async def flush(self) -> None:
        await self._pipeline.execute()

    async def totals(self, snapshot: Snapshot, first_us: int, last_us: int) -> None:
        """The tag after its last run. By its new time of creation, an orchestrator that has read
        the journal in between starts over."""
        tag = snapshot.tag
        fields = {
            "created": first_us,
            "revision": tag.revision, "last_decided": last_us, "last_created": last_us,
            "streak": tag.consecutive_crashes, "training_seconds": tag.training_seconds,
            "best_val_bpb": tag.best_val_bpb, "best_id": tag.best_experiment_id,
            "best_commit": tag.best_commit_sha, "best_at": tag.best_us,
        }  # fmt: skip
        pipe = self._pipeline
        pipe.hset(self.key("tag"), mapping=records.text_fields(fields))
        strategy = records.strategy_fields(snapshot.strategy)
        strategy["updated"] = str(snapshot.strategy.updated_us)
        pipe.hset(self.key("strategy"), mapping=strategy)
        pipe.hset(self.key("cats"), mapping=self._categories)
        if snapshot.recent:
            pipe.rpush(self.key("recent"), *(status.value for status in snapshot.recent))
        pipe.xadd(
            keys.of_all("events"),
            {"type": "decided", "tag": self._tag, "id": "", "data": json.dumps({})},
        )
        await pipe.execute()


def _experiment_fields(experiment: Experiment) -> dict[str, str]:
    return records.experiment_fields(experiment) | {"created": str(experiment.created_us)}


def _run_fields(
    snapshot: Snapshot, run: Run, result: RunResult, decision: Decision, at: str
) -> dict[str, str]:
    verdict = views.verdict(run.experiment_id, result, decision).model_dump_json()
    fields = {
        "state": "decided", "status": decision.status.value, "seed": 42, "priority": 0,
        "budget": snapshot.tag.time_budget_seconds, "epoch": 1, "gpu_id": run.gpu_id,
        "started": run.started_us, "finished": at, "verdict": verdict,
        "env_gpu_name": "NVIDIA H100 80GB HBM3", "env_profile": "cuda",
    }  # fmt: skip
    return records.text_fields(fields) | records.result_fields(result, decision)


async def _predate(redis: Any, journal: str, milliseconds: int) -> None:
    """Give the entry of the setup an id before those of the runs."""
    ((_, entry),) = await redis.xrange(journal)
    await redis.delete(journal)
    await redis.xadd(journal, entry, id=f"{milliseconds}-0")


async def write(url: str, name: str, runs: int, hours: float = 0, seed: int = 7) -> None:
    """A new tag with `runs` decided runs in the last `hours` (by default 84 an hour)."""
    store = Store(url, 30)
    redis: Any = store.redis
    seconds, microseconds = await redis.time()
    now = seconds * 1_000_000 + microseconds
    try:
        empty = Tag(name, 0, 300.0, 0.002, 3)
        tag = await store.experiments.setup(empty, INITIAL)
        history, writer = History(tag, seed), Writer(redis, name)
        span = int((hours or runs / 84) * 3600e6)
        step, chance, last = max(span // max(runs, 1), 5), random.Random(seed), 0
        await _predate(redis, keys.of_tag(name, "journal"), (now - span) // 1000)
        for number in range(runs):
            finished = now - span + step * (number + 1) + chance.randrange(step) // 2
            created = finished - RUN_SECONDS * 1_000_000 - chance.randrange(4_000_000)
            writer.run(*history.next(created - created % 8 + number % 8, finished), finished)
            last = finished
            if number % BATCH == BATCH - 1:
                await writer.flush()
        await writer.totals(history.snapshot, now - span, last)
    finally:
        await store.close()


if __name__ == "__main__":
    url_, name_, runs_, *hours_ = sys.argv[1:]
    asyncio.run(write(url_, name_, int(runs_), float(hours_[0]) if hours_ else 0))
