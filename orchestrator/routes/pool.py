"""`/api/pool` and `/api/gpu`: the GPUs."""

from typing import Annotated

from fastapi import Path, Response

from orchestrator import schemas
from orchestrator.domain import State
from orchestrator.routes import problems
from orchestrator.routes.deps import ServicesDep, WaitSeconds, only

router = problems.router(tags=["pool"])

GpuPath = Annotated[schemas.GpuId, Path()]


@router.post("/api/pool/heartbeat")
async def heartbeat(
    body: schemas.HeartbeatRequest, services: ServicesDep
) -> schemas.HeartbeatAnswer:
    return await services.pool.heartbeat(body)


@router.post("/api/pool/register")
async def register(
    body: schemas.RegisterGpuRequest, services: ServicesDep
) -> schemas.RegisterGpuAnswer:
    return await services.pool.register(body)


@router.get("/api/pool/list")
async def list_pool(services: ServicesDep) -> schemas.PoolAnswer:
    return await services.pool.list()


@router.post("/api/pool/acquire")
async def acquire(body: schemas.ExperimentRequest, services: ServicesDep) -> schemas.AcquireAnswer:
    return await services.pool.acquire(body)


@router.post("/api/pool/release")
async def release(body: schemas.ReleaseRequest, services: ServicesDep) -> schemas.ReleaseAnswer:
    return await services.pool.release(body)


@router.post("/api/pool/deregister")
async def deregister(body: schemas.GpuRequest, services: ServicesDep) -> schemas.DeregisterAnswer:
    return await services.pool.deregister(body.gpu_id)


@router.post("/api/gpu/{gpu_id}/train", dependencies=[only("wait")])
async def train(
    gpu_id: GpuPath,
    body: schemas.ExperimentRequest,
    services: ServicesDep,
    response: Response,
    wait: WaitSeconds = 0,
) -> schemas.TrainOnGpuAnswer:
    await services.pool.train(gpu_id, body.experiment_id)
    run = await services.experiments.wait(body.experiment_id, wait)
    response.status_code = 200 if run.state is State.DECIDED else 202
    return services.pool.training(gpu_id, body.experiment_id, run)


@router.get("/api/gpu/{gpu_id}/health")
@router.post("/api/gpu/{gpu_id}/health")
async def health(gpu_id: GpuPath, services: ServicesDep) -> schemas.HealthAnswer:
    return await services.pool.health(gpu_id)
