"""`/api/experiment`: tags and experiments, by hand and through the queue."""

from http import HTTPStatus
from typing import Annotated

from fastapi import HTTPException, Query, Request, Response
from fastapi.responses import PlainTextResponse

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import (
    ComparisonsDep,
    DigestsDep,
    ExperimentsDep,
    TagQuery,
    WaitSeconds,
    only,
)
from orchestrator.routes.ranges import log_response

router = problems.router(prefix="/api/experiment", tags=["experiments"])


@router.post("/setup")
async def setup(body: schemas.SetupRequest, service: ExperimentsDep) -> schemas.SetupAnswer:
    return await service.setup(body)


@router.post("/register")
async def register(
    body: schemas.RegisterRequest, service: ExperimentsDep
) -> schemas.RegisterAnswer:
    return await service.register(body)


@router.post("/complete")
async def complete(body: schemas.CompleteRequest, service: ExperimentsDep) -> schemas.AnyVerdict:
    return await service.complete(body)


@router.post("/crash")
async def crash(body: schemas.CrashRequest, service: ExperimentsDep) -> schemas.AnyVerdict:
    return await service.crash(body)


@router.post("/history")
async def history(body: schemas.HistoryRequest, service: ExperimentsDep) -> schemas.HistoryAnswer:
    return await service.history(body)


@router.get("/history")
async def history_by_query(
    query: Annotated[schemas.HistoryRequest, Query()], service: ExperimentsDep
) -> schemas.HistoryAnswer:
    return await service.history(query)


@router.post("/best")
async def best(body: schemas.TagRequest, service: ExperimentsDep) -> schemas.BestAnswer:
    return await service.best(body.tag)


@router.get("/best")
async def best_by_query(query: TagQuery, service: ExperimentsDep) -> schemas.BestAnswer:
    return await service.best(query.tag)


@router.post("/near-misses")
async def near_misses(
    body: schemas.NearMissRequest, service: ExperimentsDep
) -> schemas.NearMissAnswer:
    return await service.near_misses(body)


@router.get("/near-misses")
async def near_misses_by_query(
    query: Annotated[schemas.NearMissRequest, Query()], service: ExperimentsDep
) -> schemas.NearMissAnswer:
    return await service.near_misses(query)


@router.post("/submit", status_code=202, dependencies=[only("wait")])
async def submit(
    body: schemas.SubmitRequest,
    service: ExperimentsDep,
    response: Response,
    wait: WaitSeconds = 0,
) -> schemas.SubmitAnswer:
    answer = await service.submit(body)
    if wait:
        answer = await service.waited(answer.experiment_id, wait)
        response.status_code = 200 if answer.verdict else 202
    return answer


async def _post_only() -> Response:
    raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"allow": "POST"})


# Static paths win over ids: without these, `GET …/submit` would ask for an experiment of that name.
for _path in ("/setup", "/register", "/complete", "/crash", "/submit"):
    router.add_api_route(_path, _post_only, methods=["GET"], include_in_schema=False)


@router.get("/{experiment_id}")
async def detail(experiment_id: str, service: ExperimentsDep) -> schemas.ExperimentDetail:
    return await service.detail(experiment_id)


@router.get("/{experiment_id}/wait", dependencies=[only("timeout")])
async def wait_for(
    experiment_id: str, service: ExperimentsDep, response: Response, timeout: WaitSeconds = 30
) -> schemas.ExperimentDetail:
    detail = await service.waited_in_full(experiment_id, timeout)
    response.status_code = 200 if detail.verdict else 202
    return detail


@router.get("/{experiment_id}/digest", dependencies=[only()])
async def digest(experiment_id: str, service: DigestsDep) -> schemas.Digest:
    """The run in less than 2 KB; what it printed is below `untrusted` only."""
    return await service.digest(experiment_id)


@router.get(
    "/{experiment_id}/log", response_class=PlainTextResponse, dependencies=[only("attempt")]
)
async def log(
    experiment_id: str,
    service: ExperimentsDep,
    request: Request,
    attempt: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    async def read(start: int, length: int | None) -> tuple[bytes, int, int]:
        piece = await service.log(experiment_id, attempt, start, length)
        return piece.data, piece.start, piece.total

    return await log_response(request.headers.get("range"), read)


@router.get("/{experiment_id}/train.py", response_class=PlainTextResponse)
async def train_py(experiment_id: str, service: ExperimentsDep) -> PlainTextResponse:
    return PlainTextResponse(await service.source(experiment_id))


@router.get(
    "/{experiment_id}/diff", response_class=PlainTextResponse, dependencies=[only("against")]
)
async def diff(
    experiment_id: str, service: ExperimentsDep, against: str | None = None
) -> PlainTextResponse:
    return PlainTextResponse(await service.diff(experiment_id, against))


@router.get("/{experiment_id}/surroundings")
async def surroundings(experiment_id: str, service: ComparisonsDep) -> schemas.ExperimentComparison:
    return await service.of(experiment_id)
