"""`/api/report`: summary, results table, export, brief, and what the dashboard is drawn from."""

from fastapi import Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import FromQuery, ServicesDep, TagQuery, get_or_post
from orchestrator.services.dashboard.response_cache import Body

router = problems.router(prefix="/api/report", tags=["reports"])

TSV_TYPE = "text/tab-separated-values"
MARKDOWN_TYPE = "text/markdown"
JSON_LINES_TYPE = "application/x-ndjson"


@get_or_post(router, "/summary")
async def summary(body: schemas.TagRequest, services: ServicesDep) -> schemas.SummaryAnswer:
    return await services.reports.summary(body.tag)


@get_or_post(router, "/tsv", response_model=schemas.TsvAnswer)
async def tsv(
    body: schemas.TagRequest, services: ServicesDep, request: Request
) -> schemas.TsvAnswer | Response:
    answer = await services.reports.tsv(body.tag)
    if TSV_TYPE in request.headers.get("accept", ""):
        return PlainTextResponse(answer.tsv, media_type=TSV_TYPE)
    return answer


@router.get("/export")
async def export(
    query: FromQuery[schemas.ExportRequest], services: ServicesDep
) -> schemas.ExportPage:
    """All that is known of a tag's experiments, page by page in order of creation."""
    return await services.reports.export(query)


@router.get("/brief", response_model=schemas.BriefAnswer)
async def brief(
    query: TagQuery, services: ServicesDep, request: Request
) -> schemas.BriefAnswer | Response:
    """All that an agent needs to go on after its context was lost, in less than 8 KB."""
    answer = await services.briefs.brief(query.tag)
    if MARKDOWN_TYPE in request.headers.get("accept", ""):
        return PlainTextResponse(answer.text, media_type=MARKDOWN_TYPE)
    return answer


@router.get("/journal", response_class=StreamingResponse)
async def journal(query: TagQuery, services: ServicesDep) -> StreamingResponse:
    """Every decision with what it was based on, as JSON lines."""
    lines = await services.reports.journal(query.tag)
    return StreamingResponse(lines, media_type=JSON_LINES_TYPE)


@get_or_post(router, "/diff")
async def diff(body: schemas.DiffRequest, services: ServicesDep) -> schemas.DiffAnswer:
    return await services.reports.diff(body)


@router.get("/tags")
async def tags(services: ServicesDep) -> schemas.TagsAnswer:
    return await services.experiments.tags()


@router.get("/overview", response_model=schemas.OverviewAnswer)
async def overview(
    query: FromQuery[schemas.OverviewRequest], services: ServicesDep, request: Request
) -> Response:
    """All tags, GPUs and alerts, and what happened since a moment."""
    return _cached(await services.overviews.overview(query.since), request)


@router.get("/series", response_model=schemas.SeriesAnswer)
async def series(
    query: FromQuery[schemas.SeriesRequest], services: ServicesDep, request: Request
) -> Response:
    """Every decided run of a tag as columns, or those since a cursor."""
    return _cached(await services.series.series(query), request)


@router.get("/runs", response_model=schemas.RunsAnswer)
async def runs(
    query: FromQuery[schemas.RunsRequest], services: ServicesDep, request: Request
) -> Response:
    """A page of a tag's runs, by filter and order."""
    return _cached(await services.series.runs(query), request)


def _cached(body: Body, request: Request) -> Response:
    """A body of the response cache, compressed for clients that accept gzip."""
    headers = {"cache-control": "no-store", "vary": "accept-encoding"}
    if body.compressed is None or "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(body.plain, media_type="application/json", headers=headers)
    headers["content-encoding"] = "gzip"
    return Response(body.compressed, media_type="application/json", headers=headers)
