"""`/api/events`: the event stream as server-sent events, which a reader can resume."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import Header, Query
from fastapi.responses import StreamingResponse

from orchestrator.errors import Invalid, Unavailable
from orchestrator.routes import problems
from orchestrator.routes.deps import ServicesDep, only
from orchestrator.services.wiring import Services
from orchestrator.store.events import Event, order

router = problems.router(tags=["ops"])

# A page calls itself stale after 15 s of silence.
HEARTBEAT_SECONDS = 10.0
# A reader gets at most one write in this time; events that come meanwhile go out together.
WRITE_SECONDS = 0.5


@router.get("/api/events", response_class=StreamingResponse, dependencies=[only("tag", "since")])
async def events(
    services: ServicesDep,
    tag: str | None = None,
    last_event_id: Annotated[str | None, Header(pattern=r"^\d{1,20}-\d{1,20}$")] = None,
    since: Annotated[str | None, Query(pattern=r"^\d{1,20}-\d{1,20}$")] = None,
) -> StreamingResponse:
    """Server-sent events, resumed after `Last-Event-ID` (or `since`). A `heartbeat` opens the
    stream and comes every ten seconds; its data holds the service's time, its id the place in the
    stream. `missed` says that events after the given id may be gone."""
    after = last_event_id or since
    if after and max(order(after)) >= 2**64:
        raise Invalid(f"No event has the id {after}: send that of an event which came, or none.")
    stream = _stream(services, tag, after)
    return StreamingResponse(
        stream, media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


async def _stream(services: Services, tag: str | None, after: str | None) -> AsyncIterator[str]:
    with services.wakeups.subscription() as queue:
        await services.wakeups.following()  # from here on the queue misses nothing
        yield "retry: 1000\n\n"
        try:
            last = await services.store.events.last_id()
            if after and await services.store.events.may_have_lost(after):
                yield "event: missed\ndata: {}\n\n"
            while after and (missed := await services.store.events.after(after, 0)):
                after = last = missed[-1].id
                yield _encoded(missed, tag)
        except Unavailable:
            return  # the reader reconnects with the same Last-Event-ID
        beat_at = 0.0
        while not services.wakeups.closed:
            if anyio.current_time() >= beat_at:  # also while a tag's filter leaves nothing to send
                yield _heartbeat(last)
                beat_at = anyio.current_time() + HEARTBEAT_SECONDS
            batch = await _next_batch(queue, beat_at)
            if None in batch:
                return
            new = [event for event in batch if event and order(event.id) > order(last)]
            if new:
                last = new[-1].id
                yield _encoded(new, tag)
                await anyio.sleep(WRITE_SECONDS)


async def _next_batch(queue: "asyncio.Queue[Event | None]", until: float) -> list[Event | None]:
    """The next event and all that wait behind it; empty if none comes before the moment `until`."""
    batch: list[Event | None] = []
    with anyio.move_on_at(until):
        batch.append(await queue.get())
        while not queue.empty():
            batch.append(queue.get_nowait())
    return batch


def _encoded(events: list[Event], tag: str | None) -> str:
    return "".join(
        f"id: {event.id}\nevent: {event.kind}\ndata: {event.json}\n\n"
        for event in events
        if tag in (None, event.tag)
    )


def _heartbeat(last: str) -> str:
    """An event, since a script never sees a comment. With the last id, so that a reader that got no
    event yet can resume."""
    return f'id: {last}\nevent: heartbeat\ndata: {{"at": {time.time() * 1000:.0f}}}\n\n'
