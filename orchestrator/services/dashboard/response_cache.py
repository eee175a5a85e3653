"""Keeps an answer until the next event, so that two hundred open pages cost one reading.

Every change of state appends to the event stream. An answer is valid while the stream ends where it
ended before the answer was made; finding out where it ends is one small read.
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
        """Compressed in a thread, so that other requests do not wait."""
        if len(plain) < SMALL_BYTES:
            return cls(plain, None)
        return cls(plain, await asyncio.to_thread(gzip.compress, plain, 4, mtime=0))

    def __len__(self) -> int:
        return len(self.plain) + len(self.compressed or b"")


class ResponseCache:
    def __init__(self, events: EventStore) -> None:
        self._events = events
        self._kept: OrderedDict[Hashable, tuple[str, asyncio.Future[Body]]] = OrderedDict()

    async def body(self, key: Hashable, make: Callable[[], Awaitable[bytes]]) -> Body:
        """What `make()` answers, made once for each last id of the event stream."""
        last_id = await self._events.last_id()
        kept_id, making = self._kept.get(key, ("", None))
        if making is None or kept_id != last_id:
            making = asyncio.ensure_future(self._made(make))
            self._kept[key] = last_id, making
            making.add_done_callback(lambda done: self._done(key, done))
        self._kept.move_to_end(key)
        # A caller that goes away must not cancel what others wait for.
        return await asyncio.shield(making)

    @staticmethod
    async def _made(make: Callable[[], Awaitable[bytes]]) -> Body:
        return await Body.of(await make())

    def _done(self, key: Hashable, making: "asyncio.Future[Body]") -> None:
        """Forget a failure, and the answers asked for longest ago when they are too many."""
        if making.cancelled() or making.exception() is not None:
            if self._kept.get(key, ("", None))[1] is making:
                del self._kept[key]
            return
        while len(self._kept) > LIMIT_COUNT or (self._size() > LIMIT_BYTES and len(self._kept) > 1):
            self._kept.popitem(last=False)

    def _size(self) -> int:
        done = (making for _, making in self._kept.values() if making.done())
        return sum(len(m.result()) for m in done if not m.cancelled() and not m.exception())
