"""Liveness, readiness, Prometheus text and the event stream."""

import json
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import Header, Query
from fastapi.responses import PlainTextResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from orchestrator.errors import Unavailable
from orchestrator.routes import problems
from orchestrator.routes.deps import Services, ServicesDep, only
from orchestrator.store.events import Event, order

router = problems.router(tags=["ops"])

SSE_HEARTBEAT_SECONDS = 15.0


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok", "service": "autoresearch"}


@router.get("/readyz")
async def readyz(services: ServicesDep) -> dict[str, str]:
    await services.store.ping()
    return {"status": "ready", "redis": "ok"}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: ServicesDep) -> PlainTextResponse:
    """Gauges read at each scrape: the state is in Redis, so every orchestrator says the same."""
    registry = CollectorRegistry()
    gpus = Gauge("autoresearch_gpus", "GPUs by status.", ["status"], registry=registry)
    runs = Gauge(
        "autoresearch_runs", "Runs by tag and status.", ["tag", "status"], registry=registry
    )
    best = Gauge("autoresearch_best_val_bpb", "Best val_bpb of a tag.", ["tag"], registry=registry)
    for worker in (await services.pool.list()).workers:
        gpus.labels(worker.status).inc()
    for tag in (await services.experiments.tags()).tags:
        for status, count in (await services.reports.counts(tag.name)).items():
            runs.labels(tag.name, status).set(count)
        if tag.best_val_bpb is not None:
            best.labels(tag.name).set(tag.best_val_bpb)
    return PlainTextResponse(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/api/events", response_class=StreamingResponse, dependencies=[only("tag", "since")])
async def events(
    services: ServicesDep,
    tag: str | None = None,
    last_event_id: Annotated[str | None, Header(pattern=r"^\d{1,20}-\d{1,20}$")] = None,
    since: Annotated[str | None, Query(pattern=r"^\d{1,20}-\d{1,20}$")] = None,
) -> StreamingResponse:
    """Server-sent events, resumed after `Last-Event-ID` (or `since`); `missed` says that some may
    be gone."""
    stream = _stream(services, tag, last_event_id or since)
    return StreamingResponse(
        stream, media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


async def _stream(services: Services, tag: str | None, after: str | None) -> AsyncIterator[str]:
    with services.notices.subscription() as queue:
        sent = (0, 0)
        # First the place from which the queue is complete, then what was missed before it.
        await services.notices.following()
        yield "retry: 1000\n\n"
        try:
            if after and await services.store.events.may_have_lost(after):
                yield "event: missed\ndata: {}\n\n"
            while after and (missed := await services.store.events.after(after, 0)):
                after, sent = missed[-1].id, order(missed[-1].id)
                for event in missed:
                    if tag in (None, event.tag):
                        yield _encoded(event)
        except Unavailable:
            return  # the reader comes back with the same Last-Event-ID
        while True:
            next_event: Event | None = None
            with anyio.move_on_after(SSE_HEARTBEAT_SECONDS) as timer:
                next_event = await queue.get()
            if timer.cancelled_caught:
                yield "event: heartbeat\ndata: {}\n\n"
            elif next_event is None:
                return
            elif order(next_event.id) > sent and tag in (None, next_event.tag):
                yield _encoded(next_event)


def _encoded(event: Event) -> str:
    data = {"tag": event.tag, "subject": event.subject, **event.data}
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(data)}\n\n"
