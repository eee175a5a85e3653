"""`/api/pool` and `/api/gpu`: the GPUs."""

from typing import Annotated

from fastapi import Path, Response

from orchestrator import schemas
from orchestrator.domain import State
from orchestrator.routes import problems
from orchestrator.routes.deps import ExperimentsDep, PoolDep, WaitSeconds, only

router = problems.router(tags=["pool"])

GpuPath = Annotated[schemas.GpuId, Path()]


@router.post("/api/pool/heartbeat")
async def heartbeat(body: schemas.HeartbeatRequest, service: PoolDep) -> schemas.Ok:
    return await service.heartbeat(body)


@router.post("/api/pool/register")
async def register(body: schemas.RegisterGpuRequest, service: PoolDep) -> schemas.RegisterGpuAnswer:
    return await service.register(body)


@router.get("/api/pool/list")
async def list_pool(service: PoolDep) -> schemas.PoolAnswer:
    return await service.list()


@router.post("/api/pool/acquire")
async def acquire(body: schemas.AcquireRequest, service: PoolDep) -> schemas.AcquireAnswer:
    return await service.acquire(body)


@router.post("/api/pool/release")
async def release(body: schemas.ReleaseRequest, service: PoolDep) -> schemas.ReleaseAnswer:
    return await service.release(body)


@router.post("/api/pool/deregister")
async def deregister(body: schemas.GpuRequest, service: PoolDep) -> schemas.DeregisterAnswer:
    return await service.deregister(body.gpu_id)


@router.post("/api/gpu/{gpu_id}/train", dependencies=[only("wait")])
async def train(
    gpu_id: GpuPath,
    body: schemas.TrainOnGpuRequest,
    pool: PoolDep,
    experiments: ExperimentsDep,
    response: Response,
    wait: WaitSeconds = 0,
) -> schemas.TrainOnGpuAnswer:
    await pool.train(gpu_id, body.experiment_id)
    run = await experiments.wait(body.experiment_id, wait)
    response.status_code = 200 if run.state is State.DECIDED else 202
    return pool.training(gpu_id, body.experiment_id, run)


@router.get("/api/gpu/{gpu_id}/health")
async def health(gpu_id: GpuPath, service: PoolDep) -> schemas.HealthAnswer:
    return await service.health(gpu_id)


@router.post("/api/gpu/{gpu_id}/health")
async def health_by_post(gpu_id: GpuPath, service: PoolDep) -> schemas.HealthAnswer:
    return await service.health(gpu_id)
