"""The whole keyspace as plain values, out and in again: what a backup holds of Redis.

Values and not Redis' own dump format, which only a server of the same kind and version reads. A key
comes in parts of at most `PART` members, so that no line of a backup grows with the history.
"""

import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from orchestrator.errors import Conflict, Invalid, Unavailable
from orchestrator.store import keys
from orchestrator.store.client import TextRedis
from orchestrator.store.events import order
from orchestrator.store.scripts import redis_errors

PART, PART_BYTES = 1000, 1 << 20
# A longer line, which no backup has, could take many times its length of memory once it is parsed.
MAX_LINE_BYTES = 8 << 20
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

    def line(self) -> bytes:
        return json.dumps(asdict(self), ensure_ascii=False).encode() + b"\n"


_Text = Annotated[str, Field(strict=True)]
_Score = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_StreamId = Annotated[str, Field(pattern=r"^\d{1,19}-\d{1,19}$")]
_Fields = Annotated[dict[_Text, _Text], Field(min_length=1)]
_MEMBERS: dict[str, TypeAdapter[Any]] = {
    "string": TypeAdapter(Annotated[list[_Text], Field(max_length=1)]),
    "list": TypeAdapter(list[_Text]),
    "hash": TypeAdapter(list[tuple[_Text, _Text]]),
    "zset": TypeAdapter(list[tuple[_Text, _Score]]),
    "stream": TypeAdapter(list[tuple[_StreamId, _Fields]]),
}


@dataclass(frozen=True)
class _Line:
    """What every line holds, before its members are known for what they are."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    key: _Text
    kind: _Text
    members: Annotated[list[Any], Field(min_length=1, max_length=PART)]
    ttl_ms: Annotated[int, Field(strict=True, ge=0, le=10**12)] | None = None


_LINE = TypeAdapter(_Line)


class PartReader:
    """Lines of a backup as parts of our own keys, checked so that a server takes all of them."""

    def __init__(self) -> None:
        self._keys: set[int] = set()
        self._last: Part | None = None

    def read(self, line: bytes) -> Part:
        """The next part. Raises `Invalid`."""
        try:
            # Not pydantic's parser, which takes three times the memory for lists in lists.
            found = _LINE.validate_python(json.loads(line))
            part = Part(found.key, found.kind, self._members(found), found.ttl_ms)
            if b"\\u" in line:
                part.line()  # UnicodeEncodeError for half a character, which Redis does not take
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise Invalid(f"{where or 'a line'}: {first['msg']}") from error
        except (ValueError, RecursionError) as error:
            raise Invalid(f"it is no JSON that can be read ({error})") from error
        self._check_order(part)
        self._last = part
        return part

    def _members(self, found: _Line) -> list[Any]:
        kind = keys.type_of(found.key)
        if kind is None or kind != found.kind:
            raise Invalid(f"{found.key[:100]!r} ({found.kind[:20]}) is no key of this system")
        members: list[Any] = _MEMBERS[kind].validate_python(found.members)
        names = [member[0] for member in members] if kind in ("hash", "zset") else []
        if len(set(names)) != len(names):
            raise Invalid(f"{found.key!r} has a member twice")
        return members

    def _check_order(self, part: Part) -> None:
        """The parts of a key follow each other, and the ids of a stream rise."""
        last, first_id = self._last, "0-0"
        if last is not None and last.key == part.key:
            if part.kind == "string":
                raise Invalid(f"{part.key!r} comes twice")
            if part.kind == "stream":
                first_id = last.members[-1][0]
        else:
            number = hash(part.key)  # eight bytes instead of a name
            if number in self._keys:
                raise Invalid(f"{part.key!r} comes twice")
            self._keys.add(number)
        for entry_id, _ in part.members if part.kind == "stream" else ():
            if not order(first_id) < order(entry_id):
                raise Invalid(f"the entries of {part.key!r} are not in order")
            first_id = entry_id


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
    for members in _pieces(await _members(redis, key, kind)):
        yield Part(key, kind, members, ttl if ttl >= 0 else None)


def _pieces(members: list[Any]) -> Iterator[list[Any]]:
    """At most `PART` members each, and not much more than `PART_BYTES`."""
    piece: list[Any] = []
    size = 0
    for member in members:
        piece.append(member)
        size += len(json.dumps(member))
        if len(piece) == PART or size > PART_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


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

    async def restore(self, part: Part) -> None:
        pipeline = self._redis.pipeline(transaction=False)
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
