"""The GPU pool: register, heartbeat, list, acquire by hand, train on one GPU."""

from dataclasses import asdict
from typing import Literal

from orchestrator import callers, schemas
from orchestrator.domain import Run, State, Status, Tag, platform_of
from orchestrator.errors import Conflict
from orchestrator.files import Files
from orchestrator.gpus import TAKING
from orchestrator.ids import tag_of
from orchestrator.rules import machines
from orchestrator.services import views
from orchestrator.services.core.sources import Sources
from orchestrator.services.core.timing import PoolTiming
from orchestrator.settings import Settings
from orchestrator.store.connection import Store
from orchestrator.store.pool import NotAcquired

DEFAULT_SEED = 42


class Pool:
    def __init__(
        self,
        store: Store,
        files: Files,
        sources: Sources,
        timing: PoolTiming,
        settings: Settings,
    ) -> None:
        self._store = store
        self._files = files
        self._sources = sources
        self._timing = timing
        self._settings = settings

    async def register(self, request: schemas.RegisterGpuRequest) -> schemas.RegisterGpuAnswer:
        facts = request.model_dump(exclude={"gpu_id", "data_sha256"}, exclude_none=True)
        if platform := platform_of(request.profile, request.data_sha256):
            facts["profile"] = platform
        view = await self._store.pool.register(request.gpu_id, facts, callers.current().worker)
        # As set, whatever the size of the pool: a worker of an older version keeps it for good.
        base = self._timing.base
        timing = schemas.Timing(
            lease_seconds=base.lease_seconds, heartbeat_seconds=base.heartbeat_seconds
        )
        worker = views.worker(view.gpus[0], view.now_us, base.offline_seconds)
        return schemas.RegisterGpuAnswer(worker=worker, timing=timing)

    async def heartbeat(self, request: schemas.HeartbeatRequest) -> schemas.HeartbeatAnswer:
        health = request.health.model_dump(exclude_none=True) if request.health else None
        await self._store.pool.heartbeat(
            request.gpu_id,
            health,
            request.problem,
            quarantined=request.quarantined,
            draining=request.draining,
            worker=callers.current().worker,
        )
        return schemas.HeartbeatAnswer(heartbeat_seconds=self._timing.now.heartbeat_seconds)

    async def list(self) -> schemas.PoolAnswer:
        view = await self._store.pool.list()
        offline = self._timing.now.offline_seconds
        queued: list[Tag] = []
        if any(gpu.status(view.now_us, offline) == "idle" for gpu in view.gpus):
            may_use = callers.current().may_use
            states = await self._store.reads.tags()
            queued = [s.tag for s in states if s.waits and may_use(s.tag.name)]
        waiting = machines.Waiting(queued, view.gpus)
        workers = [views.worker(gpu, view.now_us, offline, waiting) for gpu in view.gpus]
        return schemas.PoolAnswer(
            workers=workers,
            total=len(workers),
            idle=sum(w.status == "idle" for w in workers),
            training=sum(w.status == "training" for w in workers),
            offline=sum(w.status == "offline" for w in workers),
        )

    async def blocked(self, tag: Tag, target_gpu: str | None = None) -> str | None:
        """Why no GPU takes the queued runs of a tag, or one that was sent to `target_gpu`; None if
        one does, or if the tag is paused."""
        view, offline = await self._store.pool.list(), self._timing.now.offline_seconds
        statuses = {gpu.id: gpu.status(view.now_us, offline) for gpu in view.gpus}
        if tag.pause:
            return None
        if target_gpu is not None:
            status = statuses.get(target_gpu, "not there")
            return (
                None
                if status in TAKING
                else (
                    f"it was sent to GPU {target_gpu}, which is {status}: take that GPU out with"
                    " POST /api/pool/deregister, and others get the run"
                )
            )
        takers = [gpu for gpu in view.gpus if statuses[gpu.id] in TAKING]
        return machines.blocked(tag, takers, machines.folders(view.gpus))

    async def acquire(self, request: schemas.ExperimentRequest) -> schemas.AcquireAnswer:
        taken = await self._store.pool.acquire(
            request.experiment_id,
            self._timing.now.offline_seconds,
            self._settings.grace_seconds,
        )
        if isinstance(taken, NotAcquired):
            return schemas.AcquireAnswer(acquired=False, gpu_id=None, reason=taken.reason)
        return schemas.AcquireAnswer(acquired=True, gpu_id=taken.gpu_id, gpu_index=taken.gpu_index)

    async def release(self, request: schemas.ReleaseRequest) -> schemas.ReleaseAnswer:
        await self._store.pool.release(request.gpu_id, request.experiment_id)
        return schemas.ReleaseAnswer()

    async def deregister(self, gpu_id: str) -> schemas.DeregisterAnswer:
        await self._store.pool.deregister(gpu_id, callers.current().worker)
        return schemas.DeregisterAnswer()

    async def health(self, gpu_id: str) -> schemas.HealthAnswer:
        view = await self._store.pool.get(gpu_id)
        gpu = view.gpus[0]
        age = None if gpu.health_us is None else (view.now_us - gpu.health_us) / 1e6
        return schemas.HealthAnswer(gpu_id=gpu_id, age_seconds=age, **gpu.health)

    async def train(self, gpu_id: str, experiment_id: str) -> None:
        """Send a registered or queued experiment to this GPU; one that is over stays so."""
        entry = await self._store.reads.entry(experiment_id)
        experiment = entry.experiment
        source = None
        if experiment.source_sha256 is None and entry.run.state is State.HAND:
            await self._store.pool.get(gpu_id)
            source = (await self._sources.keep(None, experiment.commit_sha)).sha256
        await self._store.jobs.direct(experiment_id, gpu_id, source, DEFAULT_SEED)

    def training(self, gpu_id: str, experiment_id: str, run: Run) -> schemas.TrainOnGpuAnswer:
        """How far a run is, in the words of upstream's worker function."""
        if run.state is State.DECIDED and run.gpu_id not in (None, gpu_id):
            raise Conflict(f"{experiment_id} ran on {run.gpu_id} already.")
        place = self._files.log_place(tag_of(experiment_id), experiment_id, run.epoch)
        return schemas.TrainOnGpuAnswer(
            status=_train_status(run),
            experiment_id=experiment_id,
            gpu_id=gpu_id,
            log_path=place if run.epoch else None,
            **(asdict(run.metrics) if run.metrics else {}),
        )


def _train_status(run: Run) -> Literal["success"] | schemas.PublicStatus:
    return "success" if run.status in (Status.KEEP, Status.DISCARD) else run.status.value
