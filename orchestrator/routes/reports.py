"""`/api/report`: summary, results table, difference, tags."""

from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import BriefsDep, ExperimentsDep, ReportsDep, TagQuery
from orchestrator.services.dashboard.reports import Reports

router = problems.router(prefix="/api/report", tags=["reports"])

TSV_TYPE = "text/tab-separated-values"
MARKDOWN_TYPE = "text/markdown"
JSON_LINES_TYPE = "application/x-ndjson"


@router.post("/summary")
async def summary(body: schemas.TagRequest, service: ReportsDep) -> schemas.SummaryAnswer:
    return await service.summary(body.tag)


@router.get("/summary")
async def summary_by_query(query: TagQuery, service: ReportsDep) -> schemas.SummaryAnswer:
    return await service.summary(query.tag)


@router.post("/tsv", response_model=schemas.TsvAnswer)
async def tsv(
    body: schemas.TagRequest, service: ReportsDep, request: Request
) -> schemas.TsvAnswer | Response:
    return await _tsv(body.tag, service, request)


@router.get("/tsv", response_model=schemas.TsvAnswer)
async def tsv_by_query(
    query: TagQuery, service: ReportsDep, request: Request
) -> schemas.TsvAnswer | Response:
    return await _tsv(query.tag, service, request)


async def _tsv(tag: str, service: Reports, request: Request) -> schemas.TsvAnswer | Response:
    answer = await service.tsv(tag)
    if TSV_TYPE in request.headers.get("accept", ""):
        return PlainTextResponse(answer.tsv, media_type=TSV_TYPE)
    return answer


@router.get("/export")
async def export(
    query: Annotated[schemas.ExportRequest, Query()], service: ReportsDep
) -> schemas.ExportPage:
    """All that is known of a tag's experiments, page by page in order of creation."""
    return await service.export(query)


@router.get("/brief", response_model=schemas.BriefAnswer)
async def brief(
    query: TagQuery, service: BriefsDep, request: Request
) -> schemas.BriefAnswer | Response:
    """All that an agent needs to go on after its context was lost, in less than 8 KB."""
    answer = await service.brief(query.tag)
    if MARKDOWN_TYPE in request.headers.get("accept", ""):
        return PlainTextResponse(answer.text, media_type=MARKDOWN_TYPE)
    return answer


@router.get("/journal", response_class=StreamingResponse)
async def journal(query: TagQuery, service: ReportsDep) -> StreamingResponse:
    """Every decision with what it was based on, as JSON lines."""
    return StreamingResponse(await service.journal(query.tag), media_type=JSON_LINES_TYPE)


@router.post("/diff")
async def diff(body: schemas.DiffRequest, service: ReportsDep) -> schemas.DiffAnswer:
    return await service.diff(body)


@router.get("/diff")
async def diff_by_query(
    query: Annotated[schemas.DiffRequest, Query()], service: ReportsDep
) -> schemas.DiffAnswer:
    return await service.diff(query)


@router.get("/tags")
async def tags(service: ExperimentsDep) -> schemas.TagsAnswer:
    return await service.tags()
