"""This GPU's standing in the pool: registered, alive, fit for a run or not, on its way out.

One task keeps it: it registers, and says at every heartbeat how the GPU is and what is wrong, if
anything. A hardware failure is for good: the GPU is quarantined until a person restarts the worker,
and is never reset by us.
"""

import logging
import shutil
from functools import partial

import anyio
import anyio.to_thread

from gpu_worker.client import Client, Unknown, until_next
from gpu_worker.folders import WorkerFolder
from gpu_worker.gpu import Gpu, boot_id, host_name
from gpu_worker.hostcheck import HostCheck
from gpu_worker.settings import MIB, WorkerSettings
from gpu_worker.shutdown import Shutdown
from orchestrator import schemas

logger = logging.getLogger(__name__)

# How long what a run has just left on the GPU may take to go before it is called a problem.
_SETTLE_SECONDS = 2.0
_LOOK_AGAIN_SECONDS = 0.01
_FRESH_SECONDS = 1.0


class PoolMembership:
    def __init__(
        self,
        gpu_id: str,
        gpu: Gpu,
        client: Client,
        settings: WorkerSettings,
        folder: WorkerFolder,
        shutdown: Shutdown,
    ) -> None:
        self._gpu_id = gpu_id
        self._gpu = gpu
        self._client = client
        self._settings = settings
        self._folder = folder
        self._shutdown = shutdown
        self._problem: str | None = None
        self._quarantine: str | None = None
        self._news = anyio.Event()
        # How often there was news, and how much of it the last heartbeat told.
        self._happened = self._told = 0
        self._health: schemas.Health | None = None
        self._health_at = self._renewed = self._looked = float("-inf")
        self.check = HostCheck(ok=True)
        self.registered = anyio.Event()
        self.gpu_failed = anyio.Event()
        # While no run is under way, heartbeats also look whether one could begin.
        self.idle = False

    async def keep(self) -> None:
        """Register and heartbeat for ever. Raises Refused when the registration is refused."""
        start = anyio.current_time()
        while True:
            await self._client.persist(self._beat)
            with anyio.move_on_after(until_next(self._client.heartbeat_seconds, start)):
                await self._news.wait()
            self._news = anyio.Event()

    def tell_at_once(self) -> None:
        """The next heartbeat is now."""
        self._happened += 1
        self._news.set()

    async def heartbeat(self) -> None:
        told = self._happened
        await self._client.heartbeat(
            schemas.HeartbeatRequest(
                gpu_id=self._gpu_id,
                health=self._health,
                problem=self._problem,
                quarantined=self._quarantine is not None,
                draining=self._shutdown.draining.is_set(),
            )
        )
        self._told = told

    async def renew(self, lease: schemas.RenewRequest) -> schemas.LeaseAnswer:
        """Renew a lease, and let that be the heartbeat: half of what a busy GPU would send.

        It tells what the last look at the GPU found. Where that is long ago, since the driver
        hangs, it is no sign of the GPU's life.
        """
        fresh = anyio.current_time() - self._health_at < self._patience()
        health = self._health if fresh else None
        answer = await self._client.renew(lease.model_copy(update={"health": health}))
        if not answer.gpu_known:
            self.tell_at_once()
        elif fresh:
            self._renewed = anyio.current_time()
        return answer

    def _spoken_for(self) -> bool:
        """Whether a renewal has told all that a heartbeat would."""
        recent = anyio.current_time() - self._renewed < self._patience()
        return recent and self._told == self._happened

    def _patience(self) -> float:
        """Seconds: a heartbeat, and half of one for what may delay it."""
        return 1.5 * self._client.heartbeat_seconds

    async def _beat(self) -> None:
        self._health = await _in_thread(self._gpu.health)
        self._health_at = anyio.current_time()
        self._note_failure()
        if self.idle:
            problem = await self._find_problem()
            if self.idle:  # still: else it may be our own run that was seen
                self._set_problem(problem)
        if not self.registered.is_set():
            await self._register()
        if self._spoken_for():
            return
        try:
            await self.heartbeat()
        except Unknown:
            await self._register()

    async def _register(self) -> None:
        device, check = self._gpu.device, self.check
        answer = await self._client.register(
            schemas.RegisterGpuRequest(
                gpu_id=self._gpu_id,
                gpu_index=device.index,
                gpu_name=device.model,
                vram_mb=device.vram_mb,
                name=device.label,
                host=host_name(),
                gpu_uuid=device.uuid,
                boot_id=boot_id(),
                profile=check.profile,
                driver_version=device.driver_version,
                torch_version=check.torch_version,
                problem=self._problem,
            )
        )
        self._client.heartbeat_seconds = answer.timing.heartbeat_seconds
        self._happened += 1  # the next heartbeat says what a registration does not
        logger.info("registered with %s as %s", self._client.url, self._gpu_id)
        self.registered.set()

    # ------------------------------------------------------------------------ fitness

    async def fit(self, known_problem: str | None = None) -> bool:
        """Whether a run may begin now; if not, the pool is told why."""
        problem = known_problem or await self._find_problem()
        lasting = known_problem or self._lasting_problem()
        patience = anyio.current_time() + _SETTLE_SECONDS
        while problem and not lasting and anyio.current_time() < patience:
            await anyio.sleep(_LOOK_AGAIN_SECONDS)  # NVML has no event for it
            problem = await self._find_problem()
        self._set_problem(problem)
        self._looked = anyio.current_time()
        return problem is None

    async def still_fit(self) -> bool:
        """`fit`, unless that was asked a moment ago."""
        if anyio.current_time() - self._looked < _FRESH_SECONDS:
            return self._problem is None
        return await self.fit()

    async def gpu_failure(self) -> str | None:
        """Look at the hardware now; why it cannot be trusted, if so."""
        await _in_thread(self._gpu.health)
        self._note_failure()
        return self._quarantine

    def quarantine(self, why: str) -> None:
        if self._quarantine is None:
            logger.error("this GPU is quarantined: %s", why)
            self._quarantine = why
            self._set_problem(why)
            self.gpu_failed.set()

    def _note_failure(self) -> None:
        if self._gpu.failure is not None:
            self.quarantine(self._gpu.failure)

    async def _find_problem(self) -> str | None:
        return self._lasting_problem() or await _in_thread(self._gpu.obstacle)

    def _lasting_problem(self) -> str | None:
        return self._quarantine or self._disk_problem()

    def _disk_problem(self) -> str | None:
        free = shutil.disk_usage(self._folder.path).free
        if free >= self._settings.free_space_bytes:
            return None
        floor = self._settings.free_space_bytes
        return f"{free // MIB} MiB free at {self._folder.path}; a run needs {floor // MIB} MiB"

    def _set_problem(self, problem: str | None) -> None:
        if (problem is None) != (self._problem is None):
            if problem is None:
                logger.info("fit for runs again")
            else:
                logger.warning("no runs for now: %s", problem)
            self.tell_at_once()
        self._problem = problem

    def environment(self) -> schemas.Environment:
        """Where this worker's runs run."""
        device, check = self._gpu.device, self.check
        return schemas.Environment(
            gpu_name=device.model,
            gpu_uuid=device.uuid,
            driver_version=device.driver_version,
            torch_version=check.torch_version,
            python_version=check.python_version,
            profile=check.profile,
            validation_sha256=check.validation_sha256,
            host=host_name(),
        )


# The driver may hang with a dying GPU; the daemon must still be able to go.
_in_thread = partial(anyio.to_thread.run_sync, abandon_on_cancel=True)
