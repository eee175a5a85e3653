"""Answers kept until something happens: two hundred open pages cost one reading.

Every change of state appends to the event stream, so an answer stands while the stream ends where
it ended before the answer was made. Asking for that place is one small read.
"""

import asyncio
import gzip
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

from orchestrator.store.events import EventStore

LIMIT_BYTES = 64 * 1024 * 1024
LIMIT_COUNT = 1000
# Below this, compressing costs more than it saves.
SMALL_BYTES = 1024


@dataclass(frozen=True)
class Body:
    """A JSON body, and the same compressed unless it is small."""

    plain: bytes
    compressed: bytes | None

    @classmethod
    async def of(cls, plain: bytes) -> "Body":
        """Compressing gives way to other requests, in a thread, where there is much to do."""
        if len(plain) < SMALL_BYTES:
            return cls(plain, None)
        if len(plain) < 64 * SMALL_BYTES:
            return cls(plain, gzip.compress(plain, 1, mtime=0))
        return cls(plain, await asyncio.to_thread(gzip.compress, plain, 4, mtime=0))

    def __len__(self) -> int:
        return len(self.plain) + len(self.compressed or b"")


class ResponseCache:
    def __init__(self, events: EventStore) -> None:
        self._events = events
        self._kept: OrderedDict[Hashable, tuple[str, asyncio.Future[Body]]] = OrderedDict()
        self._bytes = 0

    async def body(self, key: Hashable, make: Callable[[str], Awaitable[bytes]]) -> Body:
        """The body that `make(place)` answers, made once for each place of the event stream."""
        place = await self._events.last_id()
        kept = self._kept.get(key)
        if kept is not None and kept[0] == place:
            self._kept.move_to_end(key)
            return await asyncio.shield(kept[1])
        making = asyncio.ensure_future(self._made(make, place))
        self._forget(key)
        self._kept[key] = place, making
        making.add_done_callback(lambda _: self._done(key, making))
        return await asyncio.shield(making)

    @staticmethod
    async def _made(make: Callable[[str], Awaitable[bytes]], place: str) -> Body:
        return await Body.of(await make(place))

    def _done(self, key: Hashable, making: "asyncio.Future[Body]") -> None:
        """Count what is kept; what failed is not, and the oldest go first when it is too much."""
        kept = self._kept.get(key)
        if kept is None or kept[1] is not making:
            return
        if making.cancelled() or making.exception() is not None:
            del self._kept[key]
            return
        self._bytes += len(making.result())
        while (self._bytes > LIMIT_BYTES and len(self._kept) > 1) or len(self._kept) > LIMIT_COUNT:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: Hashable) -> None:
        _, making = self._kept.pop(key, ("", None))
        if making is None or not making.done() or making.cancelled() or making.exception():
            return
        self._bytes -= len(making.result())
