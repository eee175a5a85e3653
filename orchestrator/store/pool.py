"""Writes and reads on the GPU pool."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.domain import Gpu
from orchestrator.errors import Conflict
from orchestrator.store import keys, records
from orchestrator.store.client import TextRedis
from orchestrator.store.experiments import unknown_experiment
from orchestrator.store.jobs import unknown_gpu
from orchestrator.store.scripts import Reply, Scripts, redis_errors


@dataclass(frozen=True)
class PoolView:
    """The pool at one moment of Redis' clock."""

    now_us: int
    gpus: list[Gpu]


class PoolStore:
    def __init__(self, scripts: Scripts, redis: TextRedis) -> None:
        self._scripts = scripts
        self._redis = redis

    async def register(self, gpu_id: str, facts: Mapping[str, object]) -> PoolView:
        reply = await self._scripts.run(
            "pool_register", gpu_id, json.dumps(records.text_fields(facts))
        )
        return PoolView(int(reply["now"]), [records.gpu_from(gpu_id, reply["gpu"])])

    async def heartbeat(
        self, gpu_id: str, health: str, problem: str, *, quarantined: bool, draining: bool
    ) -> None:
        reply = await self._scripts.run(
            "heartbeat",
            gpu_id,
            health,
            problem,
            "1" if quarantined else "",
            "1" if draining else "",
        )
        self._check(reply, gpu_id)

    async def list(self) -> PoolView:
        reply = await self._scripts.run("pool_list")
        # An empty Lua table encodes as {}.
        gpus = [records.gpu_from(gpu_id, stored) for gpu_id, stored in reply["gpus"] or []]
        return PoolView(int(reply["now"]), gpus)

    async def get(self, gpu_id: str) -> PoolView:
        with redis_errors():
            seconds, micros = await self._redis.time()
            stored = await self._redis.hgetall(keys.of_all("gpu:", gpu_id))
        if not stored:
            raise unknown_gpu(gpu_id)
        return PoolView(seconds * 1_000_000 + micros, [records.gpu_from(gpu_id, stored)])

    async def acquire(
        self, tag: str, experiment_id: str, offline_seconds: float, grace_seconds: float
    ) -> tuple[str, int] | str:
        """Take an idle GPU for a hand-run: its id and index, or why there is none."""
        reply = await self._scripts.run(
            "acquire",
            tag,
            experiment_id,
            int(offline_seconds * 1e6),
            int(grace_seconds * 1e6),
        )
        if reply.outcome == "UNKNOWN_ID":
            raise unknown_experiment(experiment_id)
        if reply.outcome == "CONFLICT":
            raise Conflict(
                f"{experiment_id} is {reply['state']}: only a running hand-run acquires."
            )
        if reply.outcome == "PAUSED":
            return f"tag {tag!r} is paused"
        if reply.outcome == "NONE":
            return "no idle GPU"
        return reply["gpu_id"], int(reply["gpu_index"])

    async def release(self, gpu_id: str, experiment_id: str | None) -> None:
        reply = await self._scripts.run("release", gpu_id, experiment_id or "")
        if reply.outcome == "LEASED":
            raise Conflict(f"{gpu_id} is leased to {reply['by']}: its worker releases it.")
        if reply.outcome == "NOT_HELD":
            holder = reply.fields.get("by")
            raise Conflict(f"{gpu_id} is held by {holder or 'nobody'}, not by {experiment_id}.")
        self._check(reply, gpu_id)

    async def deregister(self, gpu_id: str) -> None:
        reply = await self._scripts.run("deregister", gpu_id)
        if reply.outcome == "HELD":
            raise Conflict(f"{gpu_id} is held by {reply['by']}; release it first.")
        if reply.outcome == "LEASED":
            raise Conflict(
                f"{gpu_id} is leased to {reply['by']}; cancel that run or let it end first."
            )
        self._check(reply, gpu_id)

    async def tidy(self, offline_seconds: float) -> None:
        """End holds that have lapsed and park silent GPUs."""
        await self._scripts.run("tidy", int(offline_seconds * 1e6))

    @staticmethod
    def _check(reply: Reply, gpu_id: str) -> None:
        if reply.outcome == "UNKNOWN_GPU":
            raise unknown_gpu(gpu_id)
