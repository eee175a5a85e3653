"""`/api/report/overview`: everything at a glance."""

from typing import Annotated

from fastapi import Query

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import OverviewsDep

router = problems.router(prefix="/api/report", tags=["reports"])


@router.get("/overview")
async def overview(
    query: Annotated[schemas.OverviewRequest, Query()], service: OverviewsDep
) -> schemas.OverviewAnswer:
    return await service.overview(query.since)
