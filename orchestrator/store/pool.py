"""Writes and reads on the GPU pool."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import Conflict, unknown_gpu
from orchestrator.gpus import Gpu
from orchestrator.ids import tag_of
from orchestrator.store import keys, records, verbs
from orchestrator.store.client import TextRedis
from orchestrator.store.scripts import Scripts, redis_errors


@dataclass(frozen=True)
class PoolView:
    """The pool at one moment of Redis' clock."""

    now_us: int
    gpus: list[Gpu]


@dataclass(frozen=True)
class Acquired:
    """A GPU that a hand-run holds now."""

    gpu_id: str
    gpu_index: int


@dataclass(frozen=True)
class NotAcquired:
    """No GPU for a hand-run now, and why."""

    reason: str


class PoolStore:
    def __init__(self, scripts: Scripts, redis: TextRedis) -> None:
        self._scripts = scripts
        self._redis = redis

    async def register(
        self, gpu_id: str, facts: Mapping[str, object], worker: str = ""
    ) -> PoolView:
        """Add a GPU, or renew its `facts`, whose names are those of the wire. Here and below,
        `worker` is the token that must own the GPU, if one must: else `Forbidden`."""
        fields = records.text_fields({**facts, "problem": facts.get("problem") or None})
        reply = await self._scripts.run(verbs.POOL_REGISTER, gpu_id, fields, worker)
        return PoolView(int(reply["now"]), [records.gpu_from(gpu_id, reply["gpu"])])

    async def heartbeat(
        self,
        gpu_id: str,
        health: Mapping[str, float] | None,
        problem: str | None,
        *,
        quarantined: bool,
        draining: bool,
        worker: str = "",
    ) -> None:
        flags = (quarantined or None, draining or None)
        await self._scripts.run(verbs.HEARTBEAT, gpu_id, health, problem, *flags, worker)

    async def list(self) -> PoolView:
        reply = await self._scripts.run(verbs.POOL_LIST)
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
        self, experiment_id: str, offline_seconds: float, grace_seconds: float
    ) -> Acquired | NotAcquired:
        """Take an idle GPU for a hand-run."""
        tag = tag_of(experiment_id)
        reply = await self._scripts.run(
            verbs.ACQUIRE, tag, experiment_id, int(offline_seconds * 1e6), int(grace_seconds * 1e6)
        )
        if reply.name == "CONFLICT":
            raise Conflict(
                f"{experiment_id} is {reply['state']}: only a running hand-run acquires."
            )
        if reply.name == "PAUSED":
            return NotAcquired(f"tag {tag!r} is paused")
        if reply.name == "NONE":
            pinned = reply.fields.get("gpu_model")
            of = f" of the model {pinned}, to which tag {tag!r} is pinned" if pinned else ""
            return NotAcquired(f"no idle GPU{of}")
        return Acquired(reply["gpu_id"], int(reply["gpu_index"]))

    async def release(self, gpu_id: str, experiment_id: str | None) -> None:
        reply = await self._scripts.run(verbs.RELEASE, gpu_id, experiment_id)
        if reply.name == "LEASED":
            raise Conflict(f"{gpu_id} is leased to {reply['by']}: its worker releases it.")
        if reply.name == "NOT_HELD":
            holder = reply.fields.get("by")
            raise Conflict(f"{gpu_id} is held by {holder or 'nobody'}, not by {experiment_id}.")

    async def deregister(self, gpu_id: str, worker: str = "") -> None:
        reply = await self._scripts.run(verbs.DEREGISTER, gpu_id, worker)
        if reply.name == "HELD":
            raise Conflict(f"{gpu_id} is held by {reply['by']}; release it first.")
        if reply.name == "LEASED":
            raise Conflict(
                f"{gpu_id} is leased to {reply['by']}; cancel that run or let it end first."
            )

    async def tidy(self, offline_seconds: float) -> int:
        """End holds that have lapsed, and park silent GPUs; how many are not silent."""
        reply = await self._scripts.run(verbs.TIDY, int(offline_seconds * 1e6))
        return int(reply["alive"])
