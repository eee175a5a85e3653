"""What an Idempotency-Key was answered with: for a day, and no more answers than ANSWERS_KEPT."""

import json
from dataclasses import dataclass
from typing import Literal

from orchestrator.store import keys
from orchestrator.store.client import TextRedis
from orchestrator.store.scripts import IDEMPOTENCY_SECONDS, redis_errors

# How long a key stays taken after the last sign of life of the request that has it. If that one
# died, the same request may run in its place: its scripts carry nonces made from the key, so none
# acts twice.
IN_PROGRESS_SECONDS = 6
# A request is sent again within minutes. The oldest answers beyond this number are dropped; their
# requests still act once, by the nonces of their scripts.
ANSWERS_KEPT = 5_000


@dataclass(frozen=True)
class StoredAnswer:
    """An answer to replay byte for byte."""

    status: int
    content_type: str
    body: str


class IdempotencyStore:
    def __init__(self, redis: TextRedis) -> None:
        self._redis = redis

    async def begin(
        self, key: str, fingerprint: str, owner: str
    ) -> StoredAnswer | Literal["new", "busy", "mismatch"]:
        """Take the key for a request with this fingerprint, or say how far an earlier one got.

        `owner` marks the caller: redis-py may send a SET twice, and the second answer says that the
        key is taken.
        """
        name = keys.of_all("idem:", key)
        taken = json.dumps({"fingerprint": fingerprint, "owner": owner})
        with redis_errors():
            # Two commands, since SET takes NX and GET together from Redis 7.0 on only.
            if await self._redis.set(name, taken, nx=True, ex=IN_PROGRESS_SECONDS):
                return "new"
            stored = await self._redis.get(name)
        if stored is None:
            return "busy"  # it lapsed between the two: the caller's next try takes it
        value = json.loads(stored)
        if value["fingerprint"] != fingerprint:
            return "mismatch"
        if "status" not in value:
            return "new" if value["owner"] == owner else "busy"
        return StoredAnswer(value["status"], value["content_type"], value["body"])

    async def hold(self, key: str) -> None:
        """A sign of life of the request that has the key."""
        with redis_errors():
            await self._redis.expire(keys.of_all("idem:", key), IN_PROGRESS_SECONDS)

    async def finish(self, key: str, fingerprint: str, answer: StoredAnswer) -> None:
        """Keep the answer for a day, or until there are too many newer ones."""
        value = json.dumps({"fingerprint": fingerprint, **vars(answer)})
        order = keys.of_all("answers")
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.set(keys.of_all("idem:", key), value, ex=IDEMPOTENCY_SECONDS)
            pipe.lpush(order, key)
            pipe.lrange(order, ANSWERS_KEPT, -1)
            pipe.ltrim(order, 0, ANSWERS_KEPT - 1)
            oldest = (await pipe.execute())[2]
        for old in oldest:
            await self.forget(old)

    async def forget(self, key: str) -> None:
        """Let the key be used again: the request failed on our side."""
        with redis_errors():
            await self._redis.delete(keys.of_all("idem:", key))
