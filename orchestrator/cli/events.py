"""The event stream as a command follows it: for ever, resumed after the last event that was seen.

What is told in between: that the stream is open, that it is not, that something was missed. No
state of the system is kept here; who follows asks for that.
"""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError

from orchestrator.cli.client import Client
from orchestrator.cli.errors import UnreachableError

# The orchestrator says something each 10 s; a stream that is silent for longer is dead.
SILENCE_SECONDS = 30.0
_PAUSES = (0.3, 0.5, 1.0, 2.0)


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
    """The stream is open: what happens from now on is told."""


@dataclass(frozen=True)
class Lost:
    """The stream is not open; it is tried again and again."""

    why: str


@dataclass(frozen=True)
class Missed:
    """Events after the one that was seen last may be gone: look at everything again."""


Sign = Event | Live | Lost | Missed


class Follower:
    """Iterate over it; `stop`, from another thread, ends the iteration at once."""

    def __init__(self, client: Client, tag: str | None = None, since: str | None = None) -> None:
        self._client = client
        self._tag = tag
        self.last_id = since
        self._stopped = False
        self._response: httpx.Response | None = None

    def __iter__(self) -> Iterator[Sign]:
        tries = 0
        while not self._stopped:
            try:
                for sign in self._connection():
                    tries = 0
                    yield sign
                why = "the orchestrator closed the event stream"
            except (UnreachableError, httpx.TransportError, SSEError) as error:
                why = str(error) or type(error).__name__
            if self._stopped:
                return
            # A stream that ends at once, time after time, is no better than none.
            yield Lost(why)
            time.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1

    def stop(self) -> None:
        self._stopped = True
        response = self._response
        if response is not None:
            line = response.extensions["network_stream"].get_extra_info("socket")
            with contextlib.suppress(OSError):  # it is over already
                line.shutdown(socket.SHUT_RDWR)

    def _connection(self) -> Iterator[Sign]:
        """One connection from its opening to its end."""
        headers = {"Accept": "text/event-stream"}
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        params = {"tag": self._tag} if self._tag else {}
        with self._client.stream(
            "/api/events", params=params, headers=headers, timeout=SILENCE_SECONDS
        ) as response:
            self._response = response
            try:
                messages = EventSource(response).iter_sse()
                next(messages)  # its first word is that all from here on will be told
                if self.last_id is None:  # the second, a heartbeat, is where that is
                    self._sign(next(messages))
                yield Live()
                yield from filter(None, map(self._sign, messages))
            except StopIteration:
                return
            finally:
                self._response = None

    def _sign(self, message: ServerSentEvent) -> Event | Missed | None:
        if message.event == "missed":
            return Missed()
        self.last_id = message.id or self.last_id
        if message.event == "heartbeat" or not message.id:
            return None
        data = json.loads(message.data)
        return Event(message.id, message.event, data.pop("tag", ""), data.pop("subject", ""), data)
