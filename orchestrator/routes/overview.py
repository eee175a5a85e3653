"""`/api/report/overview`: everything at a glance."""

from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import Response

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import OverviewsDep
from orchestrator.routes.series import json_response

router = problems.router(prefix="/api/report", tags=["reports"])


@router.get("/overview", response_model=schemas.OverviewAnswer)
async def overview(
    query: Annotated[schemas.OverviewRequest, Query()], service: OverviewsDep, request: Request
) -> Response:
    return json_response(await service.overview(query.since), request)
