"""Sessions of pages, until they end: each with the hash of its token and where it was started."""

import json
from dataclasses import dataclass

from orchestrator.store import keys
from orchestrator.store.client import TextRedis
from orchestrator.store.scripts import redis_errors


@dataclass(frozen=True)
class StoredSession:
    """`origin` is the scheme, host and port that the page was loaded from."""

    token_sha256: str
    origin: str


class SessionStore:
    """By the hash of the cookie, so that nobody who reads the store can use a session."""

    def __init__(self, redis: TextRedis) -> None:
        self._redis = redis

    async def start(self, cookie_sha256: str, session: StoredSession, seconds: int) -> None:
        with redis_errors():
            text = json.dumps(vars(session))
            await self._redis.set(keys.of_all("session:", cookie_sha256), text, ex=seconds)

    async def get(self, cookie_sha256: str) -> StoredSession | None:
        with redis_errors():
            text = await self._redis.get(keys.of_all("session:", cookie_sha256))
        return None if text is None else StoredSession(**json.loads(text))

    async def end(self, cookie_sha256: str) -> None:
        with redis_errors():
            await self._redis.delete(keys.of_all("session:", cookie_sha256))
