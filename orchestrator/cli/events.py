"""The event stream as commands follow it: reconnected after a loss, resumed after the last event.

It keeps no state of the system; a command that needs it reads it from the API.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from orchestrator.cli.client import Client
from orchestrator.cli.errors import UnreachableError

# The orchestrator sends a heartbeat each 10 s; a stream that is silent for longer is dead.
_SILENCE_SECONDS = 30.0
_RECONNECT_SECONDS = (0.3, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Event:
    """Something happened to an experiment, a tag or a GPU (`subject`): see store/events.py."""

    id: str
    kind: str
    tag: str
    subject: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Live:
    """The stream is open: events from now on are delivered."""


@dataclass(frozen=True)
class Lost:
    """The stream is not open; the connection is tried again."""

    why: str


@dataclass(frozen=True)
class Missed:
    """Events after the last one seen may be gone: read everything again."""


Sign = Event | Live | Lost | Missed


class Follower:
    """Iterates over the events, reconnects, and resumes after the last event that was seen."""

    def __init__(self, client: Client, tag: str | None = None, since: str | None = None) -> None:
        self._client = client
        self._tag = tag
        self.last_id = since

    def __iter__(self) -> Iterator[Sign]:
        tries = 0
        while True:
            try:
                for sign in self._connection():
                    tries = 0
                    yield sign
                why = "the orchestrator closed the event stream"
            except (UnreachableError, httpx.TransportError, SSEError) as error:
                why = str(error) or type(error).__name__
            yield Lost(why)
            time.sleep(_RECONNECT_SECONDS[min(tries, len(_RECONNECT_SECONDS) - 1)])
            tries += 1

    def _connection(self) -> Iterator[Sign]:
        """One connection from its opening to its end."""
        headers = {"Accept": "text/event-stream"}
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        params = {"tag": self._tag} if self._tag else {}
        with self._client.stream(
            "/api/events", params=params, headers=headers, timeout=_SILENCE_SECONDS
        ) as response:
            messages = EventSource(response).iter_sse()
            try:
                next(messages)  # the first message says that all later events will be delivered
                if self.last_id is None:  # the second, a heartbeat, has the present position
                    self._sign(next(messages))
            except StopIteration:
                return
            yield Live()
            yield from filter(None, map(self._sign, messages))

    def _sign(self, message: ServerSentEvent) -> Event | Missed | None:
        if message.event == "missed":
            return Missed()
        self.last_id = message.id or self.last_id
        if message.event == "heartbeat" or not message.id:
            return None
        data = json.loads(message.data)
        return Event(message.id, message.event, data.pop("tag", ""), data.pop("subject", ""), data)
