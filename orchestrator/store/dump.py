"""The whole keyspace as plain values, out and in again: what a backup holds of Redis.

Values and not Redis' own dump format, which only a server of the same kind and version reads. A key
comes in parts of at most `PART` members, so that no line of a backup grows with the history.
"""

import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import Conflict, Unavailable
from orchestrator.store import keys
from orchestrator.store.client import TextRedis
from orchestrator.store.scripts import redis_errors

PART = 1000
# Writers wait while a backup reads. The pause ends by itself if the reader dies.
PAUSE_SECONDS = 20.0
EVERYTHING = f"{keys.PREFIX}*"


@dataclass(frozen=True)
class Part:
    """Members of one key: field and value of a hash, member and score of a sorted set, id and
    fields of a stream, values of a list, the text of a string. A key without `ttl_ms` stays."""

    key: str
    kind: str
    members: list[Any]
    ttl_ms: int | None = None


class _Pause:
    """Keeps writers from writing until it is left."""

    def __init__(self, redis: TextRedis) -> None:
        self._redis = redis
        self._until = 0.0

    async def extend(self) -> None:
        """Call at least every few seconds. Raises `Unavailable` if that came too late."""
        now = time.monotonic()
        if self._until and now > self._until:
            raise Unavailable(
                "This process was held up and writers went on meanwhile: the backup is not of one"
                " moment. Make it again."
            )
        if now > self._until - PAUSE_SECONDS / 2:
            await self._redis.execute_command("CLIENT", "PAUSE", int(PAUSE_SECONDS * 1000), "WRITE")
            self._until = now + PAUSE_SECONDS

    async def end(self) -> None:
        await self._redis.execute_command("CLIENT", "UNPAUSE")


async def _parts(redis: TextRedis, key: str) -> AsyncIterator[Part]:
    kind, ttl = await redis.type(key), await redis.pttl(key)
    if kind == "none":
        return  # a nonce that has lapsed since the scan
    members = await _members(redis, key, kind)
    for start in range(0, len(members), PART):
        yield Part(key, kind, members[start : start + PART], ttl if ttl >= 0 else None)


async def _members(redis: TextRedis, key: str, kind: str) -> list[Any]:
    if kind == "string":
        return [await redis.get(key)]
    if kind == "list":
        return await redis.lrange(key, 0, -1)
    if kind == "hash":
        pairs: Iterable[Any] = (await redis.hgetall(key)).items()
    elif kind == "zset":
        pairs = await redis.zrange(key, 0, -1, withscores=True)
    else:
        pairs = await redis.xrange(key, "-", "+")
    return [list(pair) for pair in pairs]


class DumpStore:
    """Reads the whole keyspace in parts, and puts parts back into a server without our keys.

    A marker key exists until the last part is in, so that a restore that was cut short is not taken
    for a state, and can begin again.
    """

    def __init__(self, redis: TextRedis) -> None:
        self._redis = redis
        self._marker = keys.of_all("restoring")

    async def parts(self) -> AsyncIterator[Part]:
        """All keys as they are at one moment; writers wait until the last part has been read."""
        pause = _Pause(self._redis)
        with redis_errors():
            await pause.extend()
            try:
                async for key in self._redis.scan_iter(match=EVERYTHING, count=PART):
                    await pause.extend()
                    async for part in _parts(self._redis, key):
                        yield part
                        await pause.extend()
            finally:
                await pause.end()

    async def begin_restore(self) -> None:
        """Raises `Conflict` where there is a state already."""
        with redis_errors():
            found = [key async for key in self._redis.scan_iter(match=EVERYTHING, count=PART)]
            if found and self._marker not in found:
                raise Conflict("This Redis holds experiments already; restore into an empty one.")
            for key in found:
                await self._redis.delete(key)
            await self._redis.set(self._marker, "1")

    async def restore(self, parts: list[Part]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for part in parts:
            _write(pipeline, part)
            if part.ttl_ms is not None:
                pipeline.pexpire(part.key, part.ttl_ms)
        with redis_errors():
            await pipeline.execute()

    async def finish_restore(self) -> None:
        with redis_errors():
            await self._redis.delete(self._marker)


def _write(pipeline: Any, part: Part) -> None:
    key, members = part.key, part.members
    if part.kind == "hash":
        pipeline.hset(key, mapping=dict(members))
    elif part.kind == "zset":
        pipeline.zadd(key, dict(members))
    elif part.kind == "list":
        pipeline.rpush(key, *members)
    elif part.kind == "string":
        pipeline.set(key, members[0])
    else:
        for entry_id, fields in members:
            pipeline.xadd(key, fields, id=entry_id)
