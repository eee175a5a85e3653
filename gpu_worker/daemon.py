"""The daemon of one GPU: take over, check, claim, run, drain.

It holds nothing in memory that its folder or the orchestrator does not know too, so it may be
killed at any moment and started again. What happens to one run is attempt.py's, what the pool is
told about the GPU pool_membership.py's.
"""

import logging
import sys
import uuid

import anyio
import anyio.to_thread

from gpu_worker import durable, hostcheck, isolation, lock, workspace
from gpu_worker.attempt import FAREWELL_SECONDS, Attempt, AttemptContext
from gpu_worker.channel import Order
from gpu_worker.client import Client, Refused
from gpu_worker.folders import RunFolder
from gpu_worker.gpu import DeviceError, Gpu, identity, open_gpu
from gpu_worker.hostcheck import HostCheck
from gpu_worker.pool_membership import PoolMembership
from gpu_worker.settings import WorkerSettings
from gpu_worker.shutdown import Shutdown
from gpu_worker.supervisor_client import SupervisorClient
from gpu_worker.takeover import UnreportedAttempt, take_over
from orchestrator import schemas

logger = logging.getLogger(__name__)

# One for the time between two renewals, the rest for the killing.
_ORPHAN_HEARTBEATS = 1.2

EXIT_DRAINED = 0
EXIT_CANNOT_SERVE = 2
EXIT_INTERRUPTED = 130
_LEAVING_SECONDS = 3.0  # what a drained worker needs for its last requests


def run(settings: WorkerSettings) -> int:
    """Serve one GPU until a signal ends it; the exit code of the process."""
    log_to_stderr()
    try:
        gpu = open_gpu(settings.gpu)
        walls, why = isolation.choose(settings.isolation)
    except (DeviceError, RuntimeError) as error:
        logger.critical("%s", error)
        return EXIT_CANNOT_SERVE
    gpu_id = settings.gpu_id or identity(gpu.device)
    logger.info("%s (%s) as %s; %s", gpu.device.label, gpu.device.model, gpu_id, why)
    return anyio.run(Daemon(settings, gpu, gpu_id, walls).serve)


def log_to_stderr() -> None:
    """One line for each thing that happens, unless the caller has set up logging itself."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)


def orphan_seconds(lease_seconds: float, heartbeat_seconds: float) -> float:
    """How long a run may go on without its worker. It must be dead when the lease ends, and that
    began with the last renewal: up to a heartbeat before the worker's last word to the supervisor.
    """
    return lease_seconds - _ORPHAN_HEARTBEATS * heartbeat_seconds


class Daemon:
    def __init__(
        self, settings: WorkerSettings, gpu: Gpu, gpu_id: str, walls: isolation.Isolation
    ) -> None:
        self._settings = settings
        self._gpu = gpu
        self._gpu_id = gpu_id
        self._walls = walls
        self._folder = settings.folder(gpu_id)
        self._lock_path = lock.lock_path(settings.lock_dir, gpu.device.uuid or gpu_id)
        self._environment = workspace.base_environment(settings, gpu.device.uuid or "")
        self._exit_code = EXIT_DRAINED
        self._in_pool = False
        self._spare: SupervisorClient | None = None

    async def serve(self) -> int:
        token = self._settings.token
        self._client = Client(
            self._settings.orchestrator, token.get_secret_value() if token else None
        )
        self._shutdown = Shutdown()
        self._membership = PoolMembership(
            self._gpu_id, self._gpu, self._client, self._settings, self._folder, self._shutdown
        )
        self._folder.create()
        durable.turn_over(self._folder.journal)
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            # Before anything is taken over: from here on a signal drains and never just kills.
            await tasks.start(self._shutdown.watch_signals)
            tasks.start_soon(self._announce_drain)
            if (unreported := await self._take_over()) is not None:
                await self._settle_unreported(unreported)
                await self._work()
                await self._leave()
            tasks.cancel_scope.cancel()
        await self._client.close()
        return EXIT_INTERRUPTED if self._shutdown.at_once.is_set() else self._exit_code

    async def _announce_drain(self) -> None:
        await self._shutdown.draining.wait()
        self._membership.tell_at_once()

    # ------------------------------------------------------------------------ at the start

    async def _take_over(self) -> list[UnreportedAttempt] | None:
        """The GPU's lock, and what an earlier worker left; None when there is nothing to serve."""
        settings = self._settings
        # A worker that is on its way out, as after the death of its `up`, may take this long.
        patience = settings.drain_timeout + settings.kill_after_seconds + _LEAVING_SECONDS
        with self._shutdown.limit(0):
            try:
                self._lock_fd, unreported = await take_over(self._folder, self._lock_path, patience)
            except (lock.LockBusy, OSError) as error:
                hint = "" if self._gpu.device.uuid else "; a second CPU worker needs a --gpu-id"
                logger.critical("no lock on this GPU: %s%s", error, hint)
                self._exit_code = EXIT_CANNOT_SERVE
                return None
            return unreported
        return None

    async def _settle_unreported(self, unreported: list[UnreportedAttempt]) -> None:
        """Go on with the run that still lives, and report those that ended meanwhile."""
        for folder in self._folder.runs():
            if not folder.job.exists():
                self._tasks.start_soon(anyio.to_thread.run_sync, folder.remove)
        if any(
            each.supervisor for each in unreported
        ):  # no time for a check; one was passed before
            self._enter_pool(hostcheck.recall(self._folder.check) or HostCheck(ok=True))
        async with anyio.create_task_group() as attempts:
            for each in unreported:
                found = "adopted" if each.supervisor else "left by an earlier worker"
                logger.info("%s: %s", each.folder.run, found)
                attempts.start_soon(self._see_through, each.job, each.folder, each.supervisor)

    async def _pass_check(self) -> HostCheck | None:
        """Wait until this host can train; None when a drain came first."""
        if not self._settings.check:
            return HostCheck(ok=True)
        needs_cuda = self._gpu.device.uuid is not None
        settings, told = self._settings, ""
        with self._shutdown.limit(0):
            while True:
                check = await hostcheck.check(
                    settings.command, settings.project, self._environment, self._walls
                )
                problems = "; ".join(hostcheck.judge(check, needs_cuda=needs_cuda))
                if not problems:
                    hostcheck.remember(self._folder.check, check)
                    return check
                if problems != told:
                    pause = settings.recheck_seconds
                    logger.error("not in the pool, looking again every %g s: %s", pause, problems)
                    told = problems
                await anyio.sleep(settings.recheck_seconds)
        return None

    def _enter_pool(self, check: HostCheck) -> None:
        self._in_pool = True
        self._membership.check = check
        self._tasks.start_soon(self._keep_membership)

    async def _keep_membership(self) -> None:
        try:
            await self._membership.keep()
        except Refused as error:
            logger.critical("the orchestrator does not take this worker: %s", error)
            self._exit_code = EXIT_CANNOT_SERVE
            self._shutdown.drain()

    # ------------------------------------------------------------------------ its life

    async def _work(self) -> None:
        if not self._in_pool:
            check = await self._pass_check()
            if check is None:
                return
            self._enter_pool(check)
        with self._shutdown.limit(0):
            await self._membership.registered.wait()
        while not self._shutdown.draining.is_set():
            if not await self._membership.fit(await self._supervisor_problem()):
                with self._shutdown.limit(0):
                    await anyio.sleep(self._client.heartbeat_seconds)
                continue
            job = await self._claim()
            if job is not None:
                await self._train(job)

    async def _claim(self) -> schemas.Job | None:
        """Wait for the next job. The same claim is sent until it is answered."""
        claim = schemas.ClaimRequest(gpu_id=self._gpu_id, claim_id=uuid.uuid4().hex)
        wait = self._settings.claim_wait_seconds
        self._membership.idle = True
        try:
            with self._shutdown.limit(0):
                return await self._client.persist(lambda: self._client.claim(claim, wait))
        except Refused as error:
            logger.warning("no claim: %s", error)
            self._membership.tell_at_once()  # a GPU that is not known registers again
            with self._shutdown.limit(0):
                await anyio.sleep(self._client.heartbeat_seconds)
            return None
        finally:
            self._membership.idle = False
        return await self._job_on_its_way(claim)

    async def _job_on_its_way(self, claim: schemas.ClaimRequest) -> schemas.Job | None:
        """The drain cut a claim short, which may have been granted: its answer, if it was.

        The pool hears of the drain first, so nothing new is granted by asking again.
        """
        with self._shutdown.limit(FAREWELL_SECONDS):
            try:
                await self._client.persist(self._membership.heartbeat)
                return await self._client.persist(lambda: self._client.claim(claim, 0))
            except Refused as error:
                logger.info("no claim to give back: %s", error)
        return None

    async def _train(self, job: schemas.Job) -> None:
        folder = self._folder.run(job.experiment_id, job.epoch)
        logger.info("%s: claimed, tag %s", folder.run, job.tag)
        if self._shutdown.draining.is_set():
            await self._return(job, "handed_back", "the worker is going away")
            return
        if not await self._membership.still_fit():
            await self._return(job, "handed_back", "the GPU is not free")
            return
        try:
            await workspace.build(job, folder, self._folder, self._client)
        except workspace.WorkspaceError as error:
            logger.warning("%s: cannot start: %s", folder.run, error)
            await self._return(job, "lost", str(error))
            await anyio.to_thread.run_sync(folder.remove)
            return
        supervisor = self._get_spare()
        supervisor.order(self._order(job, folder))
        self._spare = None
        self._get_spare()  # while this run goes on: its start is not to delay the next one
        await self._see_through(job, folder, supervisor)

    def _order(self, job: schemas.Job, folder: RunFolder) -> Order:
        settings = self._settings
        return Order(
            run=folder.run,
            folder=str(folder.path),
            workspace=str(folder.workspace),
            journal=str(self._folder.journal),
            lock=str(self._lock_path),
            argv=[*settings.command, "train.py"],
            env=workspace.run_environment(self._environment, job, folder),
            isolation=self._walls,
            deadline_seconds=job.time_budget_seconds + job.grace_seconds,
            kill_after_seconds=settings.kill_after_seconds,
            orphan_seconds=orphan_seconds(job.lease_seconds, self._client.heartbeat_seconds),
            log_limit_bytes=settings.log_limit_bytes,
        )

    def _get_spare(self) -> SupervisorClient:
        """A supervisor that waits for an order, started if there is none."""
        if self._spare is None or not self._spare.alive:
            self._spare = SupervisorClient.start(self._lock_fd, self._folder.supervisor_log)
        return self._spare

    async def _supervisor_problem(self) -> str | None:
        """Why no run could be started here: else each job would be claimed and lost in turn."""
        with self._shutdown.limit(0):
            if not await self._get_spare().ready():
                return f"no supervisor can be started; {self._folder.supervisor_log} says why"
        return None

    async def _see_through(
        self, job: schemas.Job, folder: RunFolder, supervisor: SupervisorClient | None
    ) -> None:
        context = AttemptContext(
            client=self._client,
            renew=self._membership.renew,
            settings=self._settings,
            shutdown=self._shutdown,
            folder=self._folder,
            lock=str(self._lock_path),
            environment=self._membership.environment(),
            gpu_failed=self._membership.gpu_failed,
            gpu_failure=self._membership.gpu_failure,
        )
        unkillable = await Attempt(job, folder, supervisor, context).see_through()
        if unkillable:
            self._membership.quarantine(f"processes {unkillable} of a run cannot be killed")
        self._tasks.start_soon(anyio.to_thread.run_sync, self._clean_up, folder, supervisor)

    @staticmethod
    def _clean_up(folder: RunFolder, supervisor: SupervisorClient | None) -> None:
        if supervisor is not None:
            supervisor.close()
        if not folder.job.exists():
            folder.remove()

    async def _return(self, job: schemas.Job, outcome: schemas.ReportedResult, why: str) -> None:
        """Give a run back that has not begun."""
        report = schemas.FinishRequest(
            experiment_id=job.experiment_id,
            gpu_id=job.gpu_id,
            epoch=job.epoch,
            outcome=outcome,
            error=why,
        )
        with self._shutdown.limit(FAREWELL_SECONDS):
            try:
                await self._client.persist(lambda: self._client.finish(report))
            except Refused as error:
                logger.warning("%s: could not be given back: %s", job.experiment_id, error)

    # ------------------------------------------------------------------------ its end

    async def _leave(self) -> None:
        if self._spare is not None:
            await anyio.to_thread.run_sync(self._spare.close)
        if self._in_pool:
            with self._shutdown.limit(FAREWELL_SECONDS):
                try:
                    await self._client.persist(lambda: self._client.deregister(self._gpu_id))
                except Refused as error:
                    logger.info("not deregistered: %s", error)
                else:
                    logger.info("deregistered")
        kept = [folder.run for folder in self._folder.runs() if folder.job.exists()]
        if kept:
            logger.warning("not reported yet, kept for the next start: %s", ", ".join(kept))
