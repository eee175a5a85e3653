"""The one map from errors to HTTP (RFC 9457), also for the OpenAPI description."""

import logging
from collections.abc import Mapping
from enum import Enum
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response

from orchestrator import errors
from orchestrator.routes.fast_route import FastRoute
from orchestrator.schemas import Answer, Problem
from orchestrator.services.core.credentials import TRIES_SECONDS

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
    errors.TooManyTries: 429,
    errors.Unavailable: 503,
    errors.StoreBroken: 500,
    errors.SetupError: 500,
}
HEADERS_OF = {
    401: {"www-authenticate": "Bearer"},
    429: {"retry-after": f"{TRIES_SECONDS:.0f}"},
    503: {"retry-after": "2"},
}


def router(*, tags: list[str | Enum], prefix: str = "") -> APIRouter:
    """A router whose OpenAPI description says that any endpoint may answer with these problems."""
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    responses: dict[int | str, dict[str, Any]] = {
        code: {"description": HTTPStatus(code).phrase, "content": content}
        for code in sorted(set(STATUS_OF.values()))
    }
    return APIRouter(prefix=prefix, tags=tags, responses=responses, route_class=FastRoute)


def response(error: errors.AutoresearchError, path: str) -> Response:
    """A problem (RFC 9457), with the one-line `error` that existing callers read."""
    status = next(code for kind, code in STATUS_OF.items() if isinstance(error, kind))
    extra = {
        name: value.model_dump() if isinstance(value, Answer) else value
        for name, value in error.extra.items()
    }
    return _problem(status, error.message, path, HEADERS_OF.get(status), **extra)


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


def map_errors(app: FastAPI) -> None:
    @app.exception_handler(errors.AutoresearchError)
    async def _ours(request: Request, error: errors.AutoresearchError) -> Response:
        if isinstance(error, errors.StoreBroken):
            logger.error("%s %s: %s", request.method, request.url.path, error)
        return response(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        found = [_field_error(item) for item in error.errors()]
        detail = "; ".join(f"{item['field']}: {item['message']}" for item in found)
        return _problem(422, detail, request.url.path, errors=found)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.BAD_REQUEST:  # FastAPI could not read the body
            message = "the body is not JSON in UTF-8"
            found = [{"field": "body", "message": message}]
            return _problem(422, message, request.url.path, errors=found)
        message = str(error.detail)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = Headers(error.headers).get("allow", "another method")
            message = f"{request.method} is not for this path: use {allowed}"
        elif error.status_code == HTTPStatus.NOT_FOUND:
            message = f"there is no {request.url.path}"
        return _problem(error.status_code, message, request.url.path, error.headers)

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        message = "A bug in the orchestrator; its log has the traceback."
        return _problem(500, message, request.url.path)


def _field_error(item: Mapping[str, Any]) -> dict[str, str]:
    """A field's path and what is wrong with it, without the input, which may be large or NaN."""
    path = [str(part) for part in item["loc"] if part not in ("body", "query", "path", "header")]
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "json_invalid":  # FastAPI's location is an offset, pydantic says it in words
        where = f" at character {item['loc'][-1]}" if item["loc"] else ""
        return {"field": "body", "message": f"not JSON: {item['ctx']['error']}{where}"}
    if item["type"] == "extra_forbidden":
        message = "no such field; check the spelling"
    return {"field": ".".join(path) or "body", "message": message}
