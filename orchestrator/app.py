"""Puts the application together: services, routes, middleware, side tasks."""

import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.routing import Route

from orchestrator import errors
from orchestrator.files import open_files
from orchestrator.guard import Guard, Idempotency
from orchestrator.latency import Measured
from orchestrator.mcp.asgi_app import MCP_PATH, McpApp
from orchestrator.routes import (
    access,
    events,
    experiments,
    jobs,
    login,
    ops,
    page,
    pool,
    problems,
    reports,
    search,
    steer,
    tokens,
)
from orchestrator.seals import Seals
from orchestrator.services.wiring import Services
from orchestrator.settings import Settings
from orchestrator.store.connection import Store

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 5.0
# Routes are tried in this order, so what every worker calls every few seconds comes first.
ROUTERS = (jobs, pool, experiments, search, reports, steer, login, tokens, ops, events, page)


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application. `settings.redis_url` must name a server; nothing connects before the
    application starts."""
    if settings.redis_url is None:
        raise errors.SetupError("No Redis: set REDIS_URL, or start with `autoresearch serve`.")
    files = open_files(settings)
    seals = Seals(files)
    url = settings.redis_url.get_secret_value()
    store = Store(url, settings.redis_timeout_seconds, seals)
    services = Services(store, settings, files)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            for side_task in (
                partial(_check_until_answered, app.state.check_redis),
                services.wakeups.run,
                services.reaper.run,
                services.jobs.close_open_logs,
                seals.run,
                services.similar.run,
                services.histories.warm_up,
                mcp.run,
            ):
                tasks.start_soon(_watched, side_task)
            yield
            tasks.cancel_scope.cancel()
        await store.close()

    app = FastAPI(
        title="n-autoresearch",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # Looking for a set-up of OpenTelemetry takes 3 % of a request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        middleware=[
            Middleware(Measured, latency=services.monitoring.latency),
            Middleware(
                Guard,
                settings=settings,
                credentials=services.credentials,
                sessions=services.sessions,
            ),
            Middleware(Idempotency, store=store.idempotency),
        ],
    )
    app.state.services = services
    # A server that runs this calls it first: what it raises needs no traceback.
    app.state.check_redis = partial(_check_redis, store, seals.files_id, files.place)
    # The server calls this before it waits for open requests, which include long polls.
    app.state.end_long_polls = services.wakeups.close
    for module in ROUTERS:  # include_router would look for each route twice
        app.routes.extend(module.router.routes)
    mcp = McpApp(app)
    # POST only: an answer comes with its request, and the server sends nothing else.
    app.routes.append(Route(MCP_PATH, mcp, methods=["POST"]))
    access.restrict(app.routes)
    problems.map_errors(app)
    return app


async def _watched(side_task: Callable[[], Awaitable[None]]) -> None:
    """End the process if a side task fails: without its reaper or its wake-ups an orchestrator
    would answer and do half of its work."""
    try:
        await side_task()
    except Exception:
        logger.critical("A side task died: this process ends", exc_info=True)
        signal.raise_signal(signal.SIGTERM)


async def _check_redis(store: Store, files_id: str, place: str) -> bool:
    """Refuse a Redis that is too old or has other files; False if it does not answer yet."""
    try:
        await store.check_version()
        await store.check_files(files_id, place)
    except errors.Unavailable as error:
        logger.warning("Serving 503 until Redis answers: %s", error)
        return False
    return True


async def _check_until_answered(check: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await check():
            return
        await anyio.sleep(_CHECK_SECONDS)
