"""`/api/report/series` and `/api/report/runs`: what the page of a tag is drawn from."""

from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import Response

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import SeriesDep
from orchestrator.services.dashboard.response_cache import Body

router = problems.router(prefix="/api/report", tags=["reports"])


@router.get("/series", response_model=schemas.SeriesAnswer)
async def series(
    query: Annotated[schemas.SeriesRequest, Query()], service: SeriesDep, request: Request
) -> Response:
    """Every decided run of a tag as columns, or those since a cursor."""
    return json_response(await service.series(query), request)


@router.get("/runs", response_model=schemas.RunsAnswer)
async def runs(
    query: Annotated[schemas.RunsRequest, Query()], service: SeriesDep, request: Request
) -> Response:
    """A page of a tag's runs, by filter and order."""
    return json_response(await service.runs(query), request)


def json_response(body: Body, request: Request) -> Response:
    """A kept body, compressed for those who read that."""
    headers = {"cache-control": "no-store", "vary": "accept-encoding"}
    if body.compressed is None or "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(body.plain, media_type="application/json", headers=headers)
    headers["content-encoding"] = "gzip"
    return Response(body.compressed, media_type="application/json", headers=headers)
