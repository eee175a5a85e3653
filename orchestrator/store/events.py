"""Reads of the event stream, which every writing verb appends to."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from orchestrator.store import keys
from orchestrator.store.scripts import redis_errors
from orchestrator.store.shared import SharedConnection


@dataclass(frozen=True)
class Event:
    """Something that happened: `setup`, `registered`, `queued`, `claimed`, `started`,
    `cancelling`, `condemned` (by the early stop), `decided`, `strategy`, `steered` (an operator
    action), or `gpu` (its `subject` is a GPU)."""

    id: str
    kind: str
    tag: str
    subject: str
    data: dict[str, Any]

    @cached_property
    def json(self) -> str:
        """The event as JSON, encoded once for all its readers."""
        return json.dumps({"tag": self.tag, "subject": self.subject, **self.data})


def order(event_id: str) -> tuple[int, int]:
    """The sort key of a stream id: milliseconds and a count."""
    milliseconds, _, count = event_id.partition("-")
    return int(milliseconds), int(count)


class EventStore:
    def __init__(self, shared: SharedConnection, tail: SharedConnection) -> None:
        """`tail` must be used by this store alone, since reads that wait block a connection."""
        self._shared = shared
        self._tail = tail

    async def last_id(self) -> str:
        """Where the stream ends now."""
        with redis_errors():
            last = await self._shared.ask("XREVRANGE", keys.of_all("events"), "+", "-", "COUNT", 1)
        return str(last[0][0]) if last else "0-0"

    async def may_have_lost(self, event_id: str) -> bool:
        """True if events after `event_id` may be gone: the stream is capped, and a restored Redis
        starts a new one."""
        with redis_errors():
            first = await self._shared.ask("XRANGE", keys.of_all("events"), "-", "+", "COUNT", 1)
        oldest = str(first[0][0]) if first else "0-0"
        return not order(oldest) <= order(event_id) <= order(await self.last_id())

    async def after(self, event_id: str, wait_seconds: float) -> list[Event]:
        """At most 1 000 events after `event_id`, waiting up to `wait_seconds` for the first; 0 does
        not wait. A wait beyond the connection's time-out would read as a fault."""
        block = ("BLOCK", int(wait_seconds * 1000)) if wait_seconds else ()
        with redis_errors():
            streams = await (self._tail if block else self._shared).ask(
                "XREAD", "COUNT", 1000, *block, "STREAMS", keys.of_all("events"), event_id
            )
        entries = streams[0][1] if streams else []
        return [_event_from(i, dict(zip(f[::2], f[1::2], strict=True))) for i, f in entries]


def _event_from(event_id: str, fields: dict[str, str]) -> Event:
    data = json.loads(fields["data"])
    return Event(event_id, fields["type"], fields["tag"], fields["id"], data)
