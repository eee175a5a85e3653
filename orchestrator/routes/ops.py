"""Liveness, readiness and Prometheus text."""

import anyio.to_thread
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from orchestrator.routes import problems
from orchestrator.routes.deps import ServicesDep

router = problems.router(tags=["ops"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok", "service": "autoresearch"}


@router.get("/readyz")
async def readyz(services: ServicesDep) -> dict[str, str]:
    await services.store.ping()
    await anyio.to_thread.run_sync(services.files.check)
    return {"status": "ready", "redis": "ok"}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: ServicesDep) -> PlainTextResponse:
    """The state of the system, read at each scrape, and the latencies of this process."""
    registry = await services.monitoring.registry()
    return PlainTextResponse(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
