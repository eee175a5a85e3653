"""Puts the service together: services, routers, and the one map from errors to HTTP."""

import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response

from orchestrator import errors
from orchestrator.files import Files
from orchestrator.guard import Guard, Idempotency
from orchestrator.routes import (
    events,
    experiments,
    jobs,
    ops,
    overview,
    page,
    pool,
    reports,
    search,
    series,
    steer,
)
from orchestrator.routes.deps import Services
from orchestrator.schemas import Answer, Problem
from orchestrator.services.experiments import Experiments
from orchestrator.services.jobs import Jobs
from orchestrator.services.judge import Judge
from orchestrator.services.memo import Memo
from orchestrator.services.notices import Notices
from orchestrator.services.overview import Overviews
from orchestrator.services.pool import Pool
from orchestrator.services.reaper import Reaper
from orchestrator.services.reports import Reports
from orchestrator.services.search import Search
from orchestrator.services.series import SeriesReports
from orchestrator.services.sources import Sources
from orchestrator.services.steering import Steering
from orchestrator.services.surroundings import Surroundings
from orchestrator.settings import Settings
from orchestrator.store.connection import Store

logger = logging.getLogger(__name__)

# The most specific class first: a LeaseLost is a Conflict too.
STATUS_OF: Mapping[type[errors.AutoresearchError], int] = {
    errors.NotFound: 404,
    errors.LeaseLost: 409,
    errors.Conflict: 409,
    errors.Invalid: 422,
    errors.TooLarge: 413,
    errors.Forbidden: 403,
    errors.Unauthorized: 401,
    errors.Unavailable: 503,
    errors.StoreBroken: 500,
    errors.SetupError: 500,
}
RETRY_AFTER_SECONDS = "2"


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application. `settings.redis_url` must name a server; nothing connects before the
    application starts."""
    if settings.redis_url is None:
        raise errors.SetupError("No Redis: set REDIS_URL, or start with `autoresearch serve`.")
    store = Store.connect(settings.redis_url.get_secret_value(), settings.redis_timeout_seconds)
    services, reaper = _services(store, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await _check_server(store)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watched, services.notices.run)
            tasks.start_soon(_watched, reaper.run)
            tasks.start_soon(_watched, services.series.warm_up)
            yield
            tasks.cancel_scope.cancel()
        await store.close()

    app = FastAPI(
        title="n-autoresearch",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(Guard, settings=settings, error_response=problem_response),
            Middleware(
                Idempotency,
                store=lambda: store.idempotency,
                error_response=problem_response,
            ),
        ],
        responses=_described_problems(),
    )
    app.state.services = services
    # A server calls this when it is told to stop: it waits for its requests before the lifespan
    # ends, and long polls would make it wait for long.
    app.state.end_long_polls = services.notices.close
    # Routes are tried in this order: first what every worker calls every few seconds.
    for module in (
        jobs, pool, experiments, search, reports, series, overview, steer, ops, events, page,
    ):  # fmt: skip
        app.include_router(module.router)
    _map_errors(app)
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


def _services(store: Store, settings: Settings) -> tuple[Services, Reaper]:
    files = Files(settings.paths)
    judge = Judge(store)
    # A blocking read must end well before its connection times out.
    notices = Notices(store.events, min(2.0, settings.redis_timeout_seconds / 2))
    sources = Sources(files, settings.repo)
    jobs = Jobs(store, files, judge, notices, settings)
    memo = Memo(store.events)
    services = Services(
        store=store,
        experiments=Experiments(store, files, judge, notices, sources, _prepare_py(settings)),
        jobs=jobs,
        pool=Pool(store, files, sources, settings),
        reports=Reports(store, settings),
        overviews=Overviews(store, files, settings),
        surroundings=Surroundings(store),
        search=Search(store),
        series=SeriesReports(store, memo),
        memo=memo,
        steering=Steering(store, judge),
        notices=notices,
    )
    return services, Reaper(store, judge, jobs, settings)


def _prepare_py(settings: Settings) -> Path | None:
    """The prepare.py that tags pin: as set, or the one of the checkout this runs from."""
    if settings.prepare_py is not None:
        return settings.prepare_py
    beside = Path(__file__).resolve().parent.parent / "prepare.py"
    return beside if beside.is_file() else None


# ---------------------------------------------------------------------------- errors


def _described_problems() -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI description says of errors: any endpoint may answer with these."""
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    codes = sorted(set(STATUS_OF.values()))
    return {
        int(code): {"description": HTTPStatus(code).phrase, "content": content} for code in codes
    }


def problem_response(error: errors.AutoresearchError, path: str) -> Response:
    """RFC 9457, with the one-line `error` that existing callers read."""
    status = next(code for kind, code in STATUS_OF.items() if isinstance(error, kind))
    extra = {
        name: value.model_dump() if isinstance(value, Answer) else value
        for name, value in error.extra.items()
    }
    headers = {}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = RETRY_AFTER_SECONDS
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return _problem(status, error.message, path, headers, **extra)


def _problem(
    status: int, detail: str, path: str, headers: Mapping[str, str] | None = None, **extra: Any
) -> Response:
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": path,
        "error": detail,
        **extra,
    }
    return JSONResponse(content, status, headers=headers, media_type="application/problem+json")


def _map_errors(app: FastAPI) -> None:
    @app.exception_handler(errors.AutoresearchError)
    async def _ours(request: Request, error: errors.AutoresearchError) -> Response:
        if isinstance(error, errors.StoreBroken):
            logger.error("%s %s: %s", request.method, request.url.path, error)
        return problem_response(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        found = [_field_error(item) for item in error.errors()]
        detail = "; ".join(f"{item['field']}: {item['message']}" for item in found)
        return _problem(422, detail, request.url.path, errors=found)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.BAD_REQUEST:  # FastAPI's word for a body it cannot read
            message = "the body is not JSON in UTF-8"
            found = [{"field": "body", "message": message}]
            return _problem(422, message, request.url.path, errors=found)
        return _problem(error.status_code, str(error.detail), request.url.path, error.headers)

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _problem(
            500, "A bug in the orchestrator; its log has the traceback.", request.url.path
        )


def _field_error(item: Mapping[str, Any]) -> dict[str, str]:
    """A field's path and what is wrong with it; never the input, which may be large or NaN."""
    path = [str(part) for part in item["loc"] if part not in ("body", "query", "path", "header")]
    message = str(item["msg"])
    if item["type"] == "json_invalid":  # its location is an offset, no field
        return {"field": "body", "message": message}
    if item["type"] == "extra_forbidden":
        message = "no such field; check the spelling"
    return {"field": ".".join(path) or "body", "message": message}
