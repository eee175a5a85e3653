"""`/api/experiment`: tags and experiments, by hand and through the queue."""

from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import HTTPException, Query, Request, Response
from fastapi.responses import PlainTextResponse

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import ServicesDep, WaitSeconds, get_or_post, only, while_connected
from orchestrator.routes.ranges import log_response

router = problems.router(prefix="/api/experiment", tags=["experiments"])


@router.post("/setup")
async def setup(body: schemas.SetupRequest, services: ServicesDep) -> schemas.SetupAnswer:
    return await services.experiments.setup(body)


@router.post("/register")
async def register(body: schemas.RegisterRequest, services: ServicesDep) -> schemas.RegisterAnswer:
    return await services.experiments.register(body)


@router.post("/complete")
async def complete(body: schemas.CompleteRequest, services: ServicesDep) -> schemas.AnyVerdict:
    return await services.experiments.complete(body)


@router.post("/crash")
async def crash(body: schemas.CrashRequest, services: ServicesDep) -> schemas.AnyVerdict:
    return await services.experiments.crash(body)


@get_or_post(router, "/history")
async def history(body: schemas.HistoryRequest, services: ServicesDep) -> schemas.HistoryAnswer:
    return await services.experiments.history(body)


@get_or_post(router, "/best")
async def best(body: schemas.TagRequest, services: ServicesDep) -> schemas.BestAnswer:
    return await services.experiments.best(body.tag)


@get_or_post(router, "/near-misses")
async def near_misses(
    body: schemas.NearMissRequest, services: ServicesDep
) -> schemas.NearMissAnswer:
    return await services.experiments.near_misses(body)


@router.post("/submit", status_code=202, dependencies=[only("wait")])
async def submit(
    body: schemas.SubmitRequest,
    services: ServicesDep,
    response: Response,
    wait: WaitSeconds = 0,
) -> schemas.SubmitAnswer:
    answer = await services.experiments.submit(body)
    if wait:
        answer = await services.experiments.waited(answer.experiment_id, wait)
        response.status_code = 200 if answer.verdict else 202
    return answer


async def _post_only() -> Response:
    raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"allow": "POST"})


# Without these, `GET …/submit` would ask for an experiment of that name.
for _path in ("/setup", "/register", "/complete", "/crash", "/submit"):
    router.add_api_route(_path, _post_only, methods=["GET"], include_in_schema=False)


@router.get("/{experiment_id}")
async def detail(experiment_id: str, services: ServicesDep) -> schemas.ExperimentDetail:
    return await services.experiments.detail(experiment_id)


@router.get("/{experiment_id}/wait", dependencies=[only("timeout")])
async def wait_for(
    experiment_id: str, services: ServicesDep, response: Response, timeout: WaitSeconds = 30
) -> schemas.ExperimentDetail:
    detail = await services.experiments.waited_in_full(experiment_id, timeout)
    response.status_code = 200 if detail.verdict else 202
    return detail


@router.get("/{experiment_id}/digest", dependencies=[only()])
async def digest(experiment_id: str, services: ServicesDep) -> schemas.Digest:
    """The run in less than 2 KB; only `untrusted` holds what it printed."""
    return await services.digests.digest(experiment_id)


@router.get(
    "/{experiment_id}/log", response_class=PlainTextResponse, dependencies=[only("attempt")]
)
async def log(
    experiment_id: str,
    services: ServicesDep,
    request: Request,
    attempt: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    read = partial(services.experiments.log, experiment_id, attempt)
    return await log_response(request.headers.get("range"), read)


@router.get("/{experiment_id}/train.py", response_class=PlainTextResponse)
async def train_py(experiment_id: str, services: ServicesDep) -> PlainTextResponse:
    return PlainTextResponse(await services.experiments.source(experiment_id))


@router.get(
    "/{experiment_id}/diff", response_class=PlainTextResponse, dependencies=[only("against")]
)
async def diff(
    experiment_id: str, services: ServicesDep, request: Request, against: str | None = None
) -> PlainTextResponse:
    """The unified diff; the work ends with the connection of its caller."""
    work = services.experiments.diff(experiment_id, against)
    return PlainTextResponse(await while_connected(request, work) or "")


@router.get("/{experiment_id}/surroundings")
async def surroundings(experiment_id: str, services: ServicesDep) -> schemas.ExperimentComparison:
    return await services.comparisons.of(experiment_id)
