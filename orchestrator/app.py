"""Puts the service together: services, routers, side tasks."""

import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.routing import Route

from orchestrator import errors
from orchestrator.files import Files
from orchestrator.guard import Guard, Idempotency
from orchestrator.latency import Measured
from orchestrator.mcp.asgi_app import MCP_PATH, McpApp
from orchestrator.routes import (
    events,
    experiments,
    jobs,
    login,
    ops,
    overview,
    page,
    pool,
    problems,
    reports,
    search,
    series,
    steer,
)
from orchestrator.routes.deps import Services
from orchestrator.services.agents.briefs import Briefs
from orchestrator.services.agents.digests import Digests
from orchestrator.services.agents.failures import Failures
from orchestrator.services.agents.search import Search
from orchestrator.services.agents.similar import SimilarIdeas
from orchestrator.services.core.experiments import Experiments
from orchestrator.services.core.jobs import Jobs
from orchestrator.services.core.judge import Judge
from orchestrator.services.core.pool import Pool
from orchestrator.services.core.reaper import Reaper
from orchestrator.services.core.sources import Sources
from orchestrator.services.core.steering import Steering
from orchestrator.services.core.wakeups import Wakeups
from orchestrator.services.dashboard.comparison import Comparisons
from orchestrator.services.dashboard.history import Histories
from orchestrator.services.dashboard.monitoring import Monitoring
from orchestrator.services.dashboard.overview import Overviews
from orchestrator.services.dashboard.reports import Reports
from orchestrator.services.dashboard.response_cache import ResponseCache
from orchestrator.services.dashboard.series import SeriesReports
from orchestrator.sessions import Sessions
from orchestrator.settings import Settings
from orchestrator.store.connection import Store

logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application. `settings.redis_url` must name a server; nothing connects before the
    application starts."""
    if settings.redis_url is None:
        raise errors.SetupError("No Redis: set REDIS_URL, or start with `autoresearch serve`.")
    store = Store.connect(settings.redis_url.get_secret_value(), settings.redis_timeout_seconds)
    sessions = Sessions(settings.token.get_secret_value()) if settings.token else None
    services, reaper = _services(store, settings, sessions)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await _check_server(store)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watched, services.wakeups.run)
            tasks.start_soon(_watched, reaper.run)
            tasks.start_soon(_watched, services.similar.run)
            tasks.start_soon(_watched, door.run)
            tasks.start_soon(_watched, services.histories.warm_up)
            yield
            tasks.cancel_scope.cancel()
        await store.close()

    app = FastAPI(
        title="n-autoresearch",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # Asking at each request whether somebody has set OpenTelemetry up costs 3 % of it.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        middleware=[
            Middleware(Measured, latency=services.monitoring.latency),
            Middleware(
                Guard, settings=settings, sessions=sessions, error_response=problems.response
            ),
            Middleware(
                Idempotency,
                store=lambda: store.idempotency,
                error_response=problems.response,
            ),
        ],
    )
    app.state.services = services
    # A server calls this when it is told to stop: it waits for its requests before the lifespan
    # ends, and long polls would make it wait for long.
    app.state.end_long_polls = services.wakeups.close
    # Routes are tried in this order: first what every worker calls every few seconds. Not by
    # include_router, which looks for the route twice: once among routers, and again within the one.
    for module in (
        jobs, pool, experiments, search, reports, series, overview, steer, login, ops, events,
        page,
    ):  # fmt: skip
        app.routes.extend(module.router.routes)
    door = McpApp(app, settings)
    # No GET: answers come with the request, nothing else is ever sent.
    app.routes.append(Route(MCP_PATH, door, methods=["POST"]))
    problems.map_errors(app)
    return app


async def _watched(side_task: Callable[[], Awaitable[None]]) -> None:
    """An orchestrator without its reaper or its wake-ups must not go on as if it were whole."""
    try:
        await side_task()
    except Exception:
        logger.critical("A side task died: this process ends", exc_info=True)
        signal.raise_signal(signal.SIGTERM)


async def _check_server(store: Store) -> None:
    """Refuse a Redis that is too old; one that is away may come."""
    try:
        await store.check_version()
    except errors.Unavailable as error:
        logger.warning("Serving 503 until Redis answers: %s", error)


def _services(
    store: Store, settings: Settings, sessions: Sessions | None
) -> tuple[Services, Reaper]:
    files = Files(settings.paths)
    judge = Judge(store)
    # A blocking read must end well before its connection times out.
    wakeups = Wakeups(store.events, min(2.0, settings.redis_timeout_seconds / 2))
    sources = Sources(files, settings.repo)
    digests = Digests(store, files)
    similar = SimilarIdeas(store, files, settings.paths)
    failures = Failures(store)
    jobs = Jobs(store, files, judge, wakeups, settings)
    response_cache = ResponseCache(store.events)
    histories = Histories(store)
    services = Services(
        store=store,
        experiments=Experiments(
            store, files, judge, wakeups, sources, digests.attached, _prepare_py(settings)
        ),
        digests=digests,
        jobs=jobs,
        pool=Pool(store, files, sources, settings),
        reports=Reports(store, settings),
        search=Search(store, similar, failures),
        similar=similar,
        briefs=Briefs(store, failures),
        overviews=Overviews(store, files, histories, settings),
        comparison=Comparisons(store, histories),
        series=SeriesReports(store, histories, response_cache),
        histories=histories,
        response_cache=response_cache,
        steering=Steering(store, judge),
        wakeups=wakeups,
        monitoring=Monitoring(store, settings),
        sessions=sessions,
    )
    return services, Reaper(store, judge, jobs, settings)


def _prepare_py(settings: Settings) -> Path | None:
    """The prepare.py that tags pin: as set, or the one of the checkout this runs from."""
    if settings.prepare_py is not None:
        return settings.prepare_py
    beside = Path(__file__).resolve().parent.parent / "prepare.py"
    return beside if beside.is_file() else None
