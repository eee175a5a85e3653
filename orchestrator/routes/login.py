"""`/api/login` and `/api/logout`: the session of a page, if a token is configured."""

import time

from fastapi import Request, Response

from orchestrator import schemas
from orchestrator.domain import rfc3339
from orchestrator.routes import problems
from orchestrator.routes.deps import ServicesDep
from orchestrator.sessions import CSRF_COOKIE, SESSION_COOKIE, SESSION_SECONDS

router = problems.router(tags=["login"])


@router.post("/api/login")
async def login(
    body: schemas.LoginRequest, services: ServicesDep, request: Request, response: Response
) -> schemas.LoginAnswer:
    """Without a configured token this does nothing: nobody has to log in."""
    if services.sessions is None:
        return schemas.LoginAnswer()
    address = request.client.host if request.client else ""
    session = services.sessions.login(body.token, address, time.time())
    _set(request, response, session.cookie, session.csrf, SESSION_SECONDS)
    return schemas.LoginAnswer(expires_at=rfc3339(session.expires * 1_000_000))


@router.post("/api/logout")
async def logout(request: Request, response: Response) -> schemas.Ok:
    _set(request, response, "", "", 0)
    return schemas.Ok()


def _set(request: Request, response: Response, session: str, csrf: str, seconds: int) -> None:
    for name, value in ((SESSION_COOKIE, session), (CSRF_COOKIE, csrf)):
        response.set_cookie(
            name,
            value,
            max_age=seconds,
            httponly=name == SESSION_COOKIE,
            secure=request.url.scheme == "https",
            samesite="strict",
        )
    response.headers["cache-control"] = "no-store"
