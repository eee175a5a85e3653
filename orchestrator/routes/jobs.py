"""`/api/job`: the workers' lease protocol, and the prepare.py that a tag pinned."""

from fastapi import BackgroundTasks, Request
from fastapi.responses import PlainTextResponse

from orchestrator import schemas
from orchestrator.routes import problems
from orchestrator.routes.deps import ServicesDep, WaitSeconds, only

router = problems.router(tags=["workers"])


@router.post("/api/job/claim", dependencies=[only("wait")])
async def claim(
    body: schemas.ClaimRequest, services: ServicesDep, request: Request, wait: WaitSeconds = 0
) -> schemas.ClaimAnswer:
    return await services.jobs.claim(body, wait, request.is_disconnected)


@router.post("/api/job/renew")
async def renew(body: schemas.RenewRequest, services: ServicesDep) -> schemas.LeaseAnswer:
    return await services.jobs.renew(body)


@router.post("/api/job/progress")
async def progress(body: schemas.ProgressRequest, services: ServicesDep) -> schemas.LeaseAnswer:
    return await services.jobs.progress(body)


@router.post("/api/job/finish")
async def finish(
    body: schemas.FinishRequest, services: ServicesDep, background: BackgroundTasks
) -> schemas.FinishAnswer:
    answer = await services.jobs.finish(body)
    background.add_task(services.jobs.close_log, body.attempt)
    return answer


@router.get("/api/prepare/{sha256}", response_class=PlainTextResponse)
async def prepare(sha256: schemas.Sha256, services: ServicesDep) -> PlainTextResponse:
    return PlainTextResponse(await services.experiments.prepare(sha256))
