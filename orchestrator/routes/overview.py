"""`/api/report/overview`: everything at a glance."""

from typing import Annotated

from fastapi import APIRouter, Query

from orchestrator import schemas
from orchestrator.routes.deps import OverviewsDep

router = APIRouter(prefix="/api/report", tags=["reports"])


@router.get("/overview")
async def overview(
    query: Annotated[schemas.OverviewRequest, Query()], service: OverviewsDep
) -> schemas.OverviewAnswer:
    return await service.overview(query.since)
