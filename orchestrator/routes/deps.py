"""What endpoints take beside their body: the services, and checked query parameters."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import APIRouter, Depends, Query, Request

from orchestrator import schemas
from orchestrator.errors import Invalid
from orchestrator.services.wiring import Services

MAX_WAIT_SECONDS = 300

T = TypeVar("T")
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
WaitSeconds = Annotated[
    float, Query(ge=0, le=MAX_WAIT_SECONDS, allow_inf_nan=False, description="long poll, seconds")
]
# A model whose fields are query parameters.
FromQuery = Annotated[T, Query()]
TagQuery = FromQuery[schemas.TagRequest]


def only(*names: str) -> Any:
    """A dependency that refuses other query parameters than `names`, so that a misspelled `wait`
    is an error."""
    known = ", ".join(names) or "none"

    async def check(request: Request) -> None:
        for name in request.query_params:
            if name not in names:
                raise Invalid(f"No such query parameter: {name}; known here: {known}.")

    return Depends(check)


async def while_connected(request: Request, work: Awaitable[T]) -> T | None:
    """The result of `work`; None if its caller disconnected, which cancels it."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    with anyio.CancelScope() as scope:
        watcher = asyncio.create_task(watch())
        try:
            return await work
        finally:
            watcher.cancel()
    return None


def get_or_post(router: APIRouter, path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
    """Registers a reading endpoint twice: the fields of its `body` come as a POST's JSON or as a
    GET's query parameters."""

    def register(endpoint: Endpoint) -> Endpoint:
        async def by_query(**arguments: Any) -> Any:
            return await endpoint(**arguments)

        signature = inspect.signature(endpoint)
        parameters = dict(signature.parameters)
        body = parameters["body"]
        parameters["body"] = body.replace(annotation=Annotated[body.annotation, Query()])
        by_query.__name__ = f"{endpoint.__name__}_by_query"
        by_query.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=list(parameters.values())
        )
        router.add_api_route(path, endpoint, methods=["POST"], **options)
        router.add_api_route(path, by_query, methods=["GET"], **options)
        return endpoint

    return register
