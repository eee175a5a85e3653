"""`/api/login` and `/api/logout`: the session of a page, if a token is configured."""

import time

from fastapi import Request, Response

from orchestrator import schemas
from orchestrator.domain import rfc3339
from orchestrator.routes import problems
from orchestrator.routes.cookies import place_of
from orchestrator.routes.deps import ServicesDep
from orchestrator.services.core.sessions import SESSION_SECONDS

router = problems.router(tags=["login"])


@router.post("/api/login")
async def login(
    body: schemas.LoginRequest, services: ServicesDep, request: Request, response: Response
) -> schemas.LoginAnswer:
    """Without a configured token this does nothing: nobody has to log in."""
    if not services.credentials.required:
        return schemas.LoginAnswer()
    address = request.client.host if request.client else ""
    origin = place_of(request.scope).origin
    session = await services.sessions.start(body.token, origin, address)
    _set(request, response, session.cookie, session.csrf, SESSION_SECONDS)
    expires = int(time.time()) + SESSION_SECONDS
    return schemas.LoginAnswer(expires_at=rfc3339(expires * 1_000_000))


@router.post("/api/logout")
async def logout(services: ServicesDep, request: Request, response: Response) -> schemas.Ok:
    """End the session, also for who has a copy of its cookie."""
    if cookie := request.cookies.get(place_of(request.scope).session_cookie):
        await services.sessions.end(cookie)
    _set(request, response, "", "", 0)
    return schemas.Ok()


def _set(request: Request, response: Response, session: str, csrf: str, seconds: int) -> None:
    place = place_of(request.scope)
    for name, value in ((place.session_cookie, session), (place.csrf_cookie, csrf)):
        response.set_cookie(
            name,
            value,
            max_age=seconds,
            httponly=name == place.session_cookie,
            secure=place.secure,
            samesite="strict",
        )
    response.headers["cache-control"] = "no-store"
