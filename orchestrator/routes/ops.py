"""Liveness, readiness and Prometheus text."""

from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from orchestrator.routes import problems
from orchestrator.routes.deps import ServicesDep

router = problems.router(tags=["ops"])


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
    paused = Gauge(
        "autoresearch_tag_paused", "1 while a tag is paused.", ["tag"], registry=registry
    )
    for worker in (await services.pool.list()).workers:
        gpus.labels(worker.status).inc()
    for tag in (await services.experiments.tags()).tags:
        for status, count in (await services.reports.counts(tag.name)).items():
            runs.labels(tag.name, status).set(count)
        paused.labels(tag.name).set(tag.paused)
        if tag.best_val_bpb is not None:
            best.labels(tag.name).set(tag.best_val_bpb)
    return PlainTextResponse(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
