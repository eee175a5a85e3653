"""This GPU's membership in the pool: registered, alive, fit for a run or not, draining.

One task registers and then sends heartbeats with the GPU's health and problem. A hardware failure
is final: the GPU stays quarantined until a person restarts the worker; nothing here resets it.
"""

import logging
from functools import partial

import anyio
import anyio.to_thread

from gpu_worker import workspace
from gpu_worker.client import Client, Unknown
from gpu_worker.gpu import Gpu, boot_id, host_name
from gpu_worker.hostcheck import HostCheck
from gpu_worker.settings import WorkerSettings
from gpu_worker.shutdown import Shutdown
from orchestrator import schemas

logger = logging.getLogger(__name__)

# What a run leaves on the GPU may take so long to disappear before it counts as a problem.
_SETTLE_SECONDS = 2.0
_POLL_SECONDS = 0.01

# The driver may hang with a failing GPU, which must not keep the daemon from ending.
_in_thread = partial(anyio.to_thread.run_sync, abandon_on_cancel=True)


class PoolMembership:
    """`gpu_failed` is set once the hardware has failed. The daemon sets `host_problem` while runs
    cannot succeed here, `idle` while it waits for a run: heartbeats then also check whether one
    could begin; and `has_run` while a lease may depend on the interval of its claim."""

    def __init__(
        self,
        gpu_id: str,
        gpu: Gpu,
        client: Client,
        settings: WorkerSettings,
        shutdown: Shutdown,
    ) -> None:
        self._gpu_id = gpu_id
        self._gpu = gpu
        self._client = client
        self._folder = settings.folder(gpu_id)
        self._data_folder = str(settings.cache_folder)
        self._placement = settings.placement
        self._needed_bytes = settings.free_space_bytes
        self._shutdown = shutdown
        self._problem: str | None = None
        self._quarantine: str | None = None
        self._wake = anyio.Event()
        self._changes = self._changes_sent = 0
        self._health: schemas.Health | None = None
        self._health_at = self._renewed_at = float("-inf")
        self.check = HostCheck(ok=True)
        self.host_problem: str | None = None
        self.level: str | None = None  # the sandbox's
        self.registered = anyio.Event()
        self.gpu_failed = anyio.Event()
        self.idle = False
        self.has_run = True  # one that an earlier worker left, perhaps

    async def run(self) -> None:
        """Register and send heartbeats until cancelled. Raises Refused."""
        while True:
            await self._client.persist(self._update)
            with anyio.move_on_after(self._client.until_next_beat()):
                await self._wake.wait()
            self._wake = anyio.Event()

    def learn(self, check: HostCheck) -> None:
        """Take what a passed check found; the pool is told if that changed."""
        if self.registered.is_set() and check != self.check:
            self.registered = anyio.Event()
            self.heartbeat_now()
        self.check = check

    def heartbeat_now(self) -> None:
        """Report a change without waiting for the next heartbeat."""
        self._changes += 1
        self._wake.set()

    async def heartbeat(self) -> None:
        changes = self._changes
        answer = await self._client.heartbeat(
            schemas.HeartbeatRequest(
                gpu_id=self._gpu_id,
                health=self._health,
                problem=self._problem,
                quarantined=self._quarantine is not None,
                draining=self._shutdown.draining.is_set(),
            )
        )
        self._changes_sent = changes
        if answer.heartbeat_seconds is not None and not self.has_run:
            self._client.heartbeat_seconds = answer.heartbeat_seconds

    async def renew(self, lease: schemas.RenewRequest) -> schemas.LeaseAnswer:
        """Renew a lease; with the GPU's health the renewal is its heartbeat too. Old health, of a
        driver that hangs, is left out: it is no sign that the GPU lives."""
        fresh = self._is_recent(self._health_at)
        health = self._health if fresh else None
        answer = await self._client.renew(lease.model_copy(update={"health": health}))
        if not answer.gpu_known:
            self.heartbeat_now()
        elif fresh:
            self._renewed_at = anyio.current_time()
        return answer

    def _is_recent(self, moment: float) -> bool:
        """True if less than a heartbeat, and half of one for delays, has passed since `moment`."""
        return anyio.current_time() - moment < 1.5 * self._client.heartbeat_seconds

    async def _update(self) -> None:
        """Read the GPU's state, then register or send a heartbeat as needed."""
        await self.check_gpu()
        if self.idle:
            problem = await self._find_problem()
            if self.idle:  # still; else it may be our own run that was seen
                self._set_problem(problem)
        if not self.registered.is_set():
            await self._register()
        if self._is_recent(self._renewed_at) and self._changes_sent == self._changes:
            return  # a renewal has reported all that a heartbeat would
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
                data_sha256=check.data_sha256,
                data_folder=self._data_folder if check.data_sha256 else None,
                driver_version=device.driver_version,
                torch_version=check.torch_version,
                sandbox=self.level,
                problem=self._problem,
                placement=self._placement,
                lease_secrets=True,
            )
        )
        self._client.heartbeat_seconds = answer.timing.heartbeat_seconds
        self._changes += 1  # the next heartbeat says what a registration does not
        logger.info("registered with %s as %s", self._client.url, self._gpu_id)
        self.registered.set()

    async def is_fit(self, known_problem: str | None = None) -> bool:
        """True if a run may begin now; a problem is reported to the pool."""
        problem = known_problem or await self._find_problem()
        lasting = known_problem or self._lasting_problem()
        deadline = anyio.current_time() + _SETTLE_SECONDS
        while problem and not lasting and anyio.current_time() < deadline:
            await anyio.sleep(_POLL_SECONDS)  # NVML has no event for it
            problem = await self._find_problem()
        self._set_problem(problem)
        return problem is None

    async def check_gpu(self) -> str | None:
        """Read the health now; the reason for which the GPU cannot be trusted, if any."""
        self._health = await _in_thread(self._gpu.health)
        self._health_at = anyio.current_time()
        if self._gpu.failure is not None:
            self.quarantine(self._gpu.failure)
        return self._quarantine

    def quarantine(self, why: str) -> None:
        if self._quarantine is None:
            logger.error("this GPU is quarantined: %s", why)
            self._quarantine = why
            self._set_problem(why)
            self.gpu_failed.set()

    async def _find_problem(self) -> str | None:
        return self._lasting_problem() or await _in_thread(self._gpu.obstacle)

    def _lasting_problem(self) -> str | None:
        """A problem that does not go away by itself: a quarantine, damaged data, a full disk."""
        lasting = self._quarantine or self.host_problem
        return lasting or workspace.disk_problem(self._folder, self._needed_bytes)

    def _set_problem(self, problem: str | None) -> None:
        if (problem is None) != (self._problem is None):
            if problem is None:
                logger.info("fit for runs again")
            else:
                logger.warning("unfit for runs: %s", problem)
            self.heartbeat_now()
        self._problem = problem

    def environment(self) -> schemas.Environment:
        """Where this worker's runs run."""
        device = self._gpu.device
        found = {"torch_version", "python_version", "profile", "validation_sha256", "data_sha256"}
        return schemas.Environment(
            gpu_name=device.model,
            gpu_uuid=device.uuid,
            driver_version=device.driver_version,
            host=host_name(),
            **self.check.model_dump(include=found),
        )
