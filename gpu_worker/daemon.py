"""The daemon of one GPU: take over, check, claim, run, drain.

Its folder or the orchestrator knows everything that it keeps in memory, so it may be killed at any
moment and started again. attempt.py follows one run; pool_membership.py reports to the pool.
"""

import logging
import uuid
from contextlib import suppress
from dataclasses import replace

import anyio
import anyio.to_thread

from gpu_worker import compiled, dataset, durable, hostcheck, isolation, lock, spot, workspace
from gpu_worker.attempt import LAST_CALL_SECONDS, AttemptContext, UnreportedAttempt, give_up, settle
from gpu_worker.client import Client, Refused
from gpu_worker.devices import open_gpu
from gpu_worker.gpu import DeviceError, Gpu, identity
from gpu_worker.hostcheck import HostCheck
from gpu_worker.order import make_order
from gpu_worker.pool_membership import PoolMembership
from gpu_worker.report import GOING_AWAY, not_started
from gpu_worker.settings import WorkerSettings
from gpu_worker.shutdown import Shutdown
from gpu_worker.streams import log_to_stderr
from gpu_worker.supervisor_client import SupervisorClient
from gpu_worker.takeover import take_over
from orchestrator import schemas
from orchestrator.errors import SetupError

logger = logging.getLogger(__name__)

EXIT_DRAINED = 0
EXIT_CANNOT_SERVE = 2
EXIT_INTERRUPTED = 130

_LEAVE_SECONDS = 3.0  # what a drained worker needs for its last requests


def run(settings: WorkerSettings) -> int:
    """Serve one GPU until a signal ends it; the exit code of the process."""
    log_to_stderr()
    try:
        gpu = open_gpu(settings.gpu)
    except DeviceError as error:
        logger.critical("%s", error)
        return EXIT_CANNOT_SERVE
    gpu_id = settings.gpu_id or identity(gpu.device)
    logger.info("%s (%s) as %s", gpu.device.label, gpu.device.model, gpu_id)

    async def serve() -> int:
        return await Daemon(settings, gpu, gpu_id).serve()

    try:
        return anyio.run(serve)
    except SetupError as error:  # a proxy that cannot be used
        logger.critical("%s", error)
        return EXIT_CANNOT_SERVE


class Daemon:
    """Needs a running event loop from the start."""

    def __init__(self, settings: WorkerSettings, gpu: Gpu, gpu_id: str) -> None:
        self._settings = settings
        self._gpu = gpu
        self._gpu_id = gpu_id
        self._folder = settings.folder(gpu_id)
        self._lock_path = lock.lock_path(settings.lock_dir, gpu.device.uuid or gpu_id)
        self._exit_code = EXIT_DRAINED
        self._in_pool = False
        self._spare: SupervisorClient | None = None
        self._shutdown = Shutdown()
        token = settings.token
        secret = token.get_secret_value() if token else None
        self._client = Client(settings.orchestrator, secret, settings.ca)
        self._membership = PoolMembership(gpu_id, gpu, self._client, settings, self._shutdown)
        self._context = AttemptContext(
            gpu_id=gpu_id,
            client=self._client,
            membership=self._membership,
            settings=settings,
            shutdown=self._shutdown,
            folder=self._folder,
            lock=self._lock_path,
            sandbox=None,
            environment=workspace.base_environment(settings, gpu.device.uuid or ""),
            check_host=self._check_host,
        )

    async def serve(self) -> int:
        try:
            self._folder.create()
            durable.rotate_journal(self._folder.journal)
        except OSError as error:
            logger.critical("no folder for this worker: %s; AUTORESEARCH_HOME moves it", error)
            return EXIT_CANNOT_SERVE
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            # Before the takeover, so that a signal drains and never just kills.
            await tasks.start(self._shutdown.watch_signals)
            tasks.start_soon(self._report_drain)
            if (notice := self._settings.spot_notice) is not None:
                reserve = self._settings.kill_after_seconds + LAST_CALL_SECONDS
                await tasks.start(spot.watch, notice, self._shutdown, reserve)
            if (unreported := await self._take_over()) is not None:
                await self._settle_unreported(unreported)
                await self._work()
                await self._leave()
            tasks.cancel_scope.cancel()
        await self._client.close()
        return EXIT_INTERRUPTED if self._shutdown.at_once.is_set() else self._exit_code

    async def _report_drain(self) -> None:
        await self._shutdown.draining.wait()
        self._membership.heartbeat_now()

    async def _take_over(self) -> list[UnreportedAttempt] | None:
        """Take the lock; the unreported runs, or None when this worker cannot serve."""
        settings = self._settings
        # A worker that is draining, as after the death of its `up`, may take this long.
        timeout = settings.drain_timeout + settings.kill_after_seconds + _LEAVE_SECONDS
        with self._shutdown.limit(0):
            try:
                self._lock_fd, unreported = await take_over(self._folder, self._lock_path, timeout)
            except (lock.LockBusy, OSError) as error:
                hint = "" if self._gpu.device.uuid else "; a second CPU worker needs a --gpu-id"
                logger.critical("no lock on this GPU: %s%s", error, hint)
                self._exit_code = EXIT_CANNOT_SERVE
            else:
                return unreported
        return None

    async def _settle_unreported(self, unreported: list[UnreportedAttempt]) -> None:
        """Follow the run that still goes on, and report those that have ended."""
        known = {each.folder.run for each in unreported}
        for folder in self._folder.runs():
            if folder.settled:
                self._tasks.start_soon(anyio.to_thread.run_sync, folder.remove)
            elif folder.run not in known:
                await give_up(folder, self._context, "its job.json cannot be read")
        if any(each.supervisor for each in unreported):  # its host has passed a check before
            self._enter_pool(hostcheck.load(self._folder.check))
        async with anyio.create_task_group() as tasks:
            for each in unreported:
                found = "adopted" if each.supervisor else "left by an earlier worker"
                logger.info("%s: %s", each.folder.run, found)
                tasks.start_soon(self._follow, each)

    async def _pass_check(self) -> HostCheck:
        """Repeat the check until this host can train."""
        logged, pause = "", self._settings.recheck_seconds
        while problem := await self._check_host():
            if problem != logged:
                logger.error("not in the pool, next check in %g s: %s", pause, problem)
                logged = problem
            await dataset.mend(problem, self._settings)
        return self._membership.check

    async def _check_host(self) -> str | None:
        """What keeps this host from training, which the pool learns too; None if nothing does."""
        problem, settings = await self._find_sandbox(), self._settings
        if problem is None and settings.check:
            walls, environment = self._context.needed_sandbox, self._context.environment
            command, project = settings.command, settings.project
            check = await hostcheck.check(command, project, environment, walls)
            needs_cuda = self._gpu.device.uuid is not None
            problem = "; ".join(hostcheck.judge(check, needs_cuda=needs_cuda)) or None
            if problem is None:
                data = dataset.digest(settings.cache_folder)
                self._membership.learn(check.model_copy(update={"data_sha256": data}))
                hostcheck.save(self._folder.check, self._membership.check)
        self._membership.host_problem = problem
        return problem

    def _enter_pool(self, check: HostCheck) -> None:
        self._in_pool = True
        self._membership.check = check
        self._tasks.start_soon(self._run_membership)

    async def _run_membership(self) -> None:
        try:
            await self._membership.run()
        except Refused as error:
            logger.critical("the orchestrator does not take this worker: %s", error)
            self._exit_code = EXIT_CANNOT_SERVE
            self._shutdown.drain()

    async def _work(self) -> None:
        with self._shutdown.limit(0):
            if not self._in_pool:
                self._enter_pool(await self._pass_check())
            await self._membership.registered.wait()
        self._membership.has_run = False
        if self._context.sandbox is None:  # after an adopted run, which had one already
            self._membership.host_problem = await self._find_sandbox()
        while not self._shutdown.draining.is_set():
            if self._membership.host_problem is not None:
                await self._recover()
            elif not await self._membership.is_fit(await self._start_problem()):
                await self._pause()
            elif job := await self._claim():
                self._membership.has_run = True
                await self._train(job)
                self._membership.has_run = False

    async def _recover(self) -> None:
        """Tell the pool what keeps runs from succeeding here, and check it again after a while."""
        await self._membership.is_fit()
        with self._shutdown.limit(0):
            await dataset.mend(self._membership.host_problem or "", self._settings)
            await self._check_host()

    async def _pause(self) -> None:
        with self._shutdown.limit(0):
            await anyio.sleep(self._client.heartbeat_seconds)

    async def _claim(self) -> schemas.Job | None:
        """Wait for the next job. The same claim is sent until it is answered."""
        claim = schemas.ClaimRequest(gpu_id=self._gpu_id, claim_id=uuid.uuid4().hex)
        wait = self._settings.claim_wait_seconds
        self._membership.idle = True
        try:
            with self._shutdown.limit(0):
                await self._membership.registered.wait()  # with the data that were found last
                return await self._client.persist(lambda: self._client.claim(claim, wait))
        except Refused as error:
            logger.warning("no claim: %s", error)
            self._membership.heartbeat_now()  # an unknown GPU registers again
            await self._pause()
            return None
        finally:
            self._membership.idle = False

        async def ask_again() -> schemas.Job | None:
            # The heartbeat reports the drain first, so that asking again grants nothing new.
            await self._membership.heartbeat()
            return await self._client.claim(claim, 0)

        # The claim that the drain cut short may have been granted.
        return await self._context.last_call(ask_again, "no claim to give back")

    async def _train(self, job: schemas.Job) -> None:
        folder = self._folder.run(job.experiment_id, job.epoch)
        logger.info("%s: claimed, tag %s", folder.run, job.tag)
        if self._shutdown.draining.is_set():
            await self._give_back(job, "handed_back", GOING_AWAY)
            return
        if self._data_changed() or not await self._membership.is_fit():
            why = self._membership.host_problem or "the GPU is not free"
            await self._give_back(job, "handed_back", why)
            return
        try:
            project = self._settings.project
            await workspace.build(job, folder, self._folder, self._client, project)
            supervisor = self._get_spare()
        except (workspace.WorkspaceError, OSError) as error:
            logger.warning("%s: cannot start: %s", folder.run, error)
            outcome: schemas.ReportedResult = "lost"
            if isinstance(error, OSError):
                self._membership.host_problem = f"a run could not be started: {error}"
                outcome = "handed_back"
            await self._give_back(job, outcome, str(error))
            await anyio.to_thread.run_sync(folder.remove)
            return
        self._spare = None
        supervisor.order(make_order(job, folder, self._context))
        with suppress(OSError):  # _start_problem will meet it again and name it
            self._get_spare()  # started during this run, so that it does not delay the next one
        await self._follow(UnreportedAttempt(job, folder, supervisor))

    async def _find_sandbox(self) -> str | None:
        """Find the sandbox, once; why there is none."""
        if self._context.sandbox is not None:
            return None
        device = self._gpu.device
        try:
            found = await anyio.to_thread.run_sync(
                isolation.prepare_for, self._settings, device, abandon_on_cancel=True
            )
        except (isolation.SandboxError, OSError) as error:
            return str(error)
        if found.level == "strict" and device.minor is not None:
            self._tasks.start_soon(hostcheck.compile_packages, self._settings.command)
        logger.info("sandbox %s", found.described)
        self._membership.level = found.level
        seen = found.environment(self._context.environment)
        self._context = replace(self._context, sandbox=found, environment=seen)
        return None

    def _get_spare(self) -> SupervisorClient:
        """A supervisor that waits for an order, started if there is none."""
        if self._spare is None or not self._spare.alive:
            self._spare = SupervisorClient.start(self._lock_fd, self._folder.supervisor_log)
        return self._spare

    def _data_changed(self) -> bool:
        """True if runs would read other data than those that the pool knows of."""
        checked = self._membership.check.data_sha256
        if changed := checked not in (None, dataset.digest(self._settings.cache_folder)):
            self._membership.host_problem = "the training data changed since its check"
        return changed

    async def _start_problem(self) -> str | None:
        """Why no run could be started here. Without this, each job would be claimed and lost."""
        if problem := hostcheck.launcher_problem(self._settings.command):
            return problem
        if self._data_changed():
            return self._membership.host_problem
        with self._shutdown.limit(0):
            try:
                if not await self._get_spare().ready():
                    return f"no supervisor can be started; {self._folder.supervisor_log} says why"
            except OSError as error:
                return f"no supervisor can be started: {error}"
        return None

    async def _follow(self, attempt: UnreportedAttempt) -> None:
        unkillable = await settle(attempt, self._context)
        if unkillable:
            self._membership.quarantine(f"processes {unkillable} of a run cannot be killed")
        if attempt.folder.settled:  # before the next run, which gets a copy
            cache = (attempt.job, attempt.folder, self._folder, self._settings.project)
            await anyio.to_thread.run_sync(compiled.keep, *cache)
        self._tasks.start_soon(anyio.to_thread.run_sync, _clean_up, attempt)

    async def _give_back(self, job: schemas.Job, outcome: schemas.ReportedResult, why: str) -> None:
        """Report a run that has not begun."""
        report = not_started(job, outcome, why)
        failure = f"{job.experiment_id}: could not be given back"
        await self._context.last_call(lambda: self._client.finish(report), failure)

    async def _leave(self) -> None:
        if self._spare is not None:
            await anyio.to_thread.run_sync(self._spare.close)
        if self._in_pool:
            await self._context.last_call(
                lambda: self._client.deregister(self._gpu_id), "not deregistered"
            )
        kept = [folder.run for folder in self._folder.runs() if not folder.settled]
        if kept:
            logger.warning("not reported yet, kept for the next start: %s", ", ".join(kept))


def _clean_up(attempt: UnreportedAttempt) -> None:
    if attempt.supervisor is not None:
        attempt.supervisor.close()
    if attempt.folder.settled:
        attempt.folder.remove()
