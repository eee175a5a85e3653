"""What endpoints take beside their body: the services, and checked query parameters."""

from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request

from orchestrator import schemas
from orchestrator.errors import Invalid
from orchestrator.services.wiring import Services

MAX_WAIT_SECONDS = 300

T = TypeVar("T")


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
