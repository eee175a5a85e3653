"""One attempt: a leased run under a supervisor, followed from its start to its settled report.

The same for a run that this worker has started, for one that it adopted from the worker before it,
and for one that ended while nobody was there. Side tasks renew the lease, tick the supervisor,
upload the log and pass on whatever asks the run to end; they go on until the report is settled.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from gpu_worker import durable, tree
from gpu_worker.channel import Result, StopReason
from gpu_worker.client import Client, Refused, until_next
from gpu_worker.folders import RunFolder, WorkerFolder
from gpu_worker.report import End, report
from gpu_worker.settings import WorkerSettings
from gpu_worker.shutdown import Shutdown
from gpu_worker.supervisor_client import SupervisorClient
from gpu_worker.upload import Upload, read_measures, read_tail
from gpu_worker.workspace import MARKER
from orchestrator import schemas

logger = logging.getLogger(__name__)

# How long a report is still tried while the daemon is on its way out; then it waits on disk.
FAREWELL_SECONDS = 5.0
# A supervisor that overstays deadline, SIGTERM, SIGKILL and patience by this much is stuck.
_STUCK_SECONDS = 60.0
_TICKS_PER_LEASE = 6


@dataclass(frozen=True)
class AttemptContext:
    """What all attempts of one daemon share. `gpu_failure` asks the device, it may take a while."""

    client: Client
    renew: Callable[[schemas.RenewRequest], Awaitable[schemas.LeaseAnswer]]
    settings: WorkerSettings
    shutdown: Shutdown
    folder: WorkerFolder
    lock: str
    environment: schemas.Environment
    gpu_failed: anyio.Event
    gpu_failure: Callable[[], Awaitable[str | None]]


class Attempt:
    def __init__(
        self,
        job: schemas.Job,
        folder: RunFolder,
        supervisor: SupervisorClient | None,
        context: AttemptContext,
    ) -> None:
        self._job = job
        self._folder = folder
        self._supervisor = supervisor
        self._context = context
        self._client = context.client
        self._upload = Upload(context.client, job, folder)
        self._started = anyio.Event()
        self._ended = anyio.Event()
        self._uploaded = anyio.Event()
        self._lease_lost = False
        if supervisor is None or supervisor.adopted:
            self._started.set()

    async def see_through(self) -> list[int]:
        """Follow the run to its end and settle the report.

        Returns the pids of its processes that could not be killed, normally none.
        """
        async with anyio.create_task_group() as side_tasks:
            for task in (self._tick, self._renew, self._follow_log, *self._reasons_to_stop()):
                side_tasks.start_soon(task)
            result = await self._end_of_run()
            unkillable = list(result.unkillable) if result else await self._sweep()
            self._ended.set()
            with self._context.shutdown.limit(FAREWELL_SECONDS):
                await self._uploaded.wait()
                await self._settle(result)
            side_tasks.cancel_scope.cancel()
        return unkillable

    # ------------------------------------------------------------------------ while it runs

    async def _tick(self) -> None:
        while self._supervisor is not None:
            self._supervisor.tick()
            await anyio.sleep(self._job.lease_seconds / _TICKS_PER_LEASE)

    async def _renew(self) -> None:
        """Keep the lease, until the report is settled. Being unreachable ends nothing."""
        await self._started.wait()
        job, start = self._job, anyio.current_time()
        request = schemas.RenewRequest(
            experiment_id=job.experiment_id, gpu_id=job.gpu_id, epoch=job.epoch
        )
        while True:
            try:
                answer = await self._client.persist(lambda: self._context.renew(request))
            except Refused as error:
                if not self._ended.is_set():  # else the report is on its way and tells all
                    self._lose_lease(error)
                return
            if answer.cancel:
                self._upload.cancel_asked.set()
            await anyio.sleep(until_next(self._client.heartbeat_seconds, start))

    async def _follow_log(self) -> None:
        try:
            await self._upload.follow(self._ended)
        except Refused as error:
            self._lose_lease(error)
        self._uploaded.set()

    def _lose_lease(self, error: Refused) -> None:
        if not self._lease_lost:
            logger.warning("%s: the lease is lost, the run is dropped (%s)", self._run, error)
        self._lease_lost = True
        self._stop("lease_lost", now=True)

    def _reasons_to_stop(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        return [self._stop_when_drained, self._stop_when_cancelled, self._stop_when_gpu_fails]

    async def _stop_when_drained(self) -> None:
        shutdown = self._context.shutdown
        await shutdown.draining.wait()
        with anyio.move_on_after(self._context.settings.drain_timeout):
            await shutdown.at_once.wait()
        self._stop("handed_back", now=shutdown.at_once.is_set())
        await shutdown.at_once.wait()
        self._stop("handed_back", now=True)

    async def _stop_when_cancelled(self) -> None:
        await self._upload.cancel_asked.wait()
        logger.info("%s: cancelled", self._run)
        self._stop("cancelled", now=False)

    async def _stop_when_gpu_fails(self) -> None:
        await self._context.gpu_failed.wait()
        self._stop("gpu_lost", now=True)

    def _stop(self, reason: StopReason, *, now: bool) -> None:
        if self._supervisor is not None and not self._ended.is_set():
            self._supervisor.stop(reason, now=now)

    # ------------------------------------------------------------------------ its end

    async def _end_of_run(self) -> Result | None:
        """How it ended; None when its supervisor is gone without having said."""
        if self._supervisor is not None:
            job, settings = self._job, self._context.settings
            limit = job.time_budget_seconds + job.grace_seconds + settings.kill_after_seconds
            with anyio.move_on_after(limit + tree.PATIENCE + _STUCK_SECONDS) as overdue:
                result = await self._listen(self._supervisor)
            if not overdue.cancelled_caught:
                return result or self._read_result()
            logger.error("%s: its supervisor is stuck and is killed", self._run)
            self._supervisor.kill()
        return self._read_result()

    async def _listen(self, supervisor: SupervisorClient) -> Result | None:
        while message := await supervisor.hear():
            if message.get("event") == "started":
                self._started.set()
            elif message.get("event") == "ended":
                return Result.from_json(message["result"].encode())
        return None

    def _read_result(self) -> Result | None:
        try:
            return Result.from_json(self._folder.result.read_bytes())
        except FileNotFoundError:
            return None

    async def _sweep(self) -> list[int]:
        """Make sure that nothing is left of a run whose supervisor cannot do so any more."""
        logger.warning("%s: its supervisor died", self._run)
        sweep = partial(tree.sweep, MARKER, str(self._folder.workspace))
        unkillable = await anyio.to_thread.run_sync(sweep)
        try:
            durable.note(self._context.folder.journal, "ended", self._run, self._context.lock)
        except OSError as error:
            logger.warning("the journal could not be written: %s", error)
        return unkillable

    async def _settle(self, result: Result | None) -> None:
        """Report, and drop the attempt whatever the orchestrator says to it."""
        message = None if self._lease_lost else await self._report(result)
        if message is not None:
            try:
                answer = await self._client.persist(lambda: self._client.finish(message))
            except Refused as error:
                logger.warning(
                    "%s: its report (%s) is dropped: %s", self._run, message.outcome, error
                )
            else:
                self._log_verdict(message, answer)
        self._folder.settle()
        if self._supervisor is not None:
            self._supervisor.settled()

    async def _report(self, result: Result | None) -> schemas.FinishRequest | None:
        failed = result is None or result.exit_code != 0
        return report(
            End(
                job=self._job,
                result=result,
                tail=read_tail(self._folder) + (result.unwritten.encode() if result else b""),
                measures=read_measures(self._folder),
                curve=self._upload.curve.points(),
                environment=self._context.environment,
                log_problem=self._upload.refused,
                # A run fails for the GPU's sake before anybody has looked at the GPU again.
                gpu_failure=await self._context.gpu_failure() if failed else None,
            )
        )

    def _log_verdict(self, sent: schemas.FinishRequest, answer: schemas.FinishAnswer) -> None:
        told = (
            f"val_bpb {sent.metrics.val_bpb:.6f}" if sent.metrics else sent.error.partition("\n")[0]
        )
        logger.info("%s: %s, now %s (%s)", self._run, sent.outcome, answer.status, told)

    @property
    def _run(self) -> str:
        return self._folder.run
