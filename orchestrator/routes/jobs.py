"""`/api/job`: the workers' lease protocol, and the prepare.py that a tag pinned."""

from fastapi import BackgroundTasks, Request
from fastapi.responses import PlainTextResponse

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import ExperimentsDep, JobsDep, WaitSeconds, only

router = problems.router(tags=["workers"])


@router.post("/api/job/claim", dependencies=[only("wait")])
async def claim(
    body: schemas.ClaimRequest, service: JobsDep, request: Request, wait: WaitSeconds = 0
) -> schemas.ClaimAnswer:
    return await service.claim(body, wait, request.is_disconnected)


@router.post("/api/job/renew")
async def renew(body: schemas.RenewRequest, service: JobsDep) -> schemas.LeaseAnswer:
    return await service.renew(body)


@router.post("/api/job/progress")
async def progress(body: schemas.ProgressRequest, service: JobsDep) -> schemas.LeaseAnswer:
    return await service.progress(body)


@router.post("/api/job/finish")
async def finish(
    body: schemas.FinishRequest, service: JobsDep, background: BackgroundTasks
) -> schemas.FinishAnswer:
    answer = await service.finish(body)
    background.add_task(service.close_log, body.attempt)
    return answer


@router.get("/api/prepare/{sha256}", response_class=PlainTextResponse)
async def prepare(sha256: schemas.Sha256, service: ExperimentsDep) -> PlainTextResponse:
    return PlainTextResponse(await service.prepare(sha256))
