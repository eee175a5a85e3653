"""The event stream: server-sent events, resumable, and cheap to have many readers of."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

import anyio
from fastapi import Header, Query
from fastapi.responses import StreamingResponse

from orchestrator.errors import Unavailable
from orchestrator.routes import problems
from orchestrator.routes.deps import Services, ServicesDep, only
from orchestrator.store.events import Event, order

router = problems.router(tags=["ops"])

# A page calls itself stale after 15 s of silence.
HEARTBEAT_SECONDS = 10.0
# What happens within this time goes out in one piece: soon after some quiet, about once a second
# in a burst. Each reader draws its own: two hundred that all wrote at the moment of an event would
# hold up the claim that comes with it.
GATHER_SECONDS = (0.05, 0.35)
BUSY_GATHER_SECONDS = (0.5, 1.5)
QUIET_SECONDS = 2.0


@router.get("/api/events", response_class=StreamingResponse, dependencies=[only("tag", "since")])
async def events(
    services: ServicesDep,
    tag: str | None = None,
    last_event_id: Annotated[str | None, Header(pattern=r"^\d{1,20}-\d{1,20}$")] = None,
    since: Annotated[str | None, Query(pattern=r"^\d{1,20}-\d{1,20}$")] = None,
) -> StreamingResponse:
    """Server-sent events, resumed after `Last-Event-ID` (or `since`). A `heartbeat` opens the
    stream and comes every ten seconds; its data holds the service's time, its id the place.
    `missed` says that events after the one named may be gone."""
    stream = _stream(services, tag, last_event_id or since)
    return StreamingResponse(
        stream, media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


async def _stream(services: Services, tag: str | None, after: str | None) -> AsyncIterator[str]:
    with services.wakeups.subscription() as queue:
        # First the place from which the queue is complete, then what was missed before it.
        last = await services.wakeups.following()
        yield "retry: 1000\n\n"
        try:
            if after and await services.store.events.may_have_lost(after):
                yield "event: missed\ndata: {}\n\n"
            while after and (missed := await services.store.events.after(after, 0)):
                after = last = missed[-1].id
                yield "".join(_encoded(event) for event in missed if tag in (None, event.tag))
        except Unavailable:
            return  # the reader comes back with the same Last-Event-ID
        beat_at, wrote_at = 0.0, -math.inf
        while not services.wakeups.closed:
            if anyio.current_time() >= beat_at:  # what is filtered out is no sign of life
                yield _heartbeat(last)
                beat_at = anyio.current_time() + HEARTBEAT_SECONDS
            batch = await _gathered(queue, beat_at, wrote_at)
            if None in batch:
                return
            new = [event for event in batch if event and order(event.id) > order(last)]
            if new:
                last = new[-1].id
                yield "".join(_encoded(event) for event in new if tag in (None, event.tag))
                wrote_at = anyio.current_time()


async def _gathered(
    queue: "asyncio.Queue[Event | None]", until: float, wrote_at: float
) -> list[Event | None]:
    """The next event and those soon after it; nothing if none comes before the moment `until`."""
    batch: list[Event | None] = []
    with anyio.move_on_at(until):
        batch.append(await queue.get())
    if batch and batch[0] is not None:
        busy = anyio.current_time() - wrote_at < QUIET_SECONDS
        span = BUSY_GATHER_SECONDS if busy else GATHER_SECONDS
        await anyio.sleep(random.uniform(*span))  # noqa: S311 - to be apart, not secret
        with suppress(asyncio.QueueEmpty):
            while True:
                batch.append(queue.get_nowait())
    return batch


def _encoded(event: Event) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {event.json}\n\n"


def _heartbeat(last: str) -> str:
    """An event, since a comment never reaches a script. With the place in the stream: a reader that
    has had no event yet can resume all the same."""
    return f'id: {last}\nevent: heartbeat\ndata: {{"at": {time.time() * 1000:.0f}}}\n\n'
