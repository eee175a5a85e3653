"""Reads of the event stream, which every writing verb appends to."""

import json
from dataclasses import dataclass
from typing import Any

from orchestrator.store import keys
from orchestrator.store.client import TextRedis
from orchestrator.store.scripts import redis_errors


@dataclass(frozen=True)
class Event:
    """Something that happened: `setup`, `registered`, `queued`, `claimed`, `started`,
    `cancelling`, `decided`, `strategy`, or `gpu` (whose `subject` is a GPU)."""

    id: str
    kind: str
    tag: str
    subject: str
    data: dict[str, Any]


class EventStore:
    def __init__(self, redis: TextRedis) -> None:
        self._redis = redis

    async def last_id(self) -> str:
        """Where the stream ends now."""
        with redis_errors():
            last = await self._redis.xrevrange(keys.of_all("events"), count=1)
        return str(last[0][0]) if last else "0-0"

    async def after(self, event_id: str, wait_seconds: float) -> list[Event]:
        """At most 1 000 events after `event_id`, waiting up to `wait_seconds` for one (below the
        connection's time-out, or the wait reads as a fault; 0 does not wait)."""
        with redis_errors():
            reply = await self._redis.xread(
                {keys.of_all("events"): event_id},
                count=1000,
                block=int(wait_seconds * 1000) or None,
            )
        # RESP2 answers a list of pairs, RESP3 a map.
        streams = list(reply.items()) if isinstance(reply, dict) else reply or []
        return [_event_from(i, fields) for _, entries in streams for i, fields in _flat(entries)]


def _flat(entries: Any) -> Any:
    return entries[0] if entries and isinstance(entries[0], list) else entries


def _event_from(event_id: str, fields: dict[str, str]) -> Event:
    data = json.loads(fields["data"])
    return Event(
        id=event_id,
        kind=fields["type"],
        tag=fields["tag"],
        subject=fields["id"],
        data=data if isinstance(data, dict) else {},
    )
