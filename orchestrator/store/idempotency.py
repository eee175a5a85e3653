"""What an Idempotency-Key was answered with, for a day."""

import json
from dataclasses import dataclass
from typing import Literal

from orchestrator.store import keys
from orchestrator.store.client import TextRedis
from orchestrator.store.scripts import IDEMPOTENCY_SECONDS, redis_errors

# How long a first request may take before the same one may run in its place. Its scripts carry
# nonces made from the key, so even then nothing is done twice.
IN_PROGRESS_SECONDS = 60


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
        self, key: str, fingerprint: str
    ) -> StoredAnswer | Literal["new", "busy", "mismatch"]:
        """Take the key for a request with this fingerprint, or say what became of it."""
        name, taken = keys.of_all("idem:", key), json.dumps({"fingerprint": fingerprint})
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
            return "busy"
        return StoredAnswer(value["status"], value["content_type"], value["body"])

    async def finish(self, key: str, fingerprint: str, answer: StoredAnswer) -> None:
        """Keep the answer for a day."""
        value = {
            "fingerprint": fingerprint,
            "status": answer.status,
            "content_type": answer.content_type,
            "body": answer.body,
        }
        with redis_errors():
            await self._redis.set(
                keys.of_all("idem:", key), json.dumps(value), ex=IDEMPOTENCY_SECONDS
            )

    async def forget(self, key: str) -> None:
        """Let the key be used again: the request failed on our side."""
        with redis_errors():
            await self._redis.delete(keys.of_all("idem:", key))
