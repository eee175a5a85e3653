"""One attempt: a leased run under a supervisor, followed from its start to its settled report.

The same code follows a run that this worker has started, one that it adopted from an earlier
worker, and one that ended while no worker was there. Side tasks renew the lease, tick the
supervisor, upload the log and pass on reasons to stop; they last until the report is settled.

A run owns its files and may leave anything in them. An attempt that cannot be settled for that is
reported lost and its folder kept; a run that failed because of its host is handed back.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from gpu_worker import durable, measures, metrics, tree
from gpu_worker.channel import Result, StopReason
from gpu_worker.client import Client, LeaseLost, Refused, Unknown
from gpu_worker.folders import RunFolder, WorkerFolder
from gpu_worker.isolation import Sandbox
from gpu_worker.pool_membership import PoolMembership
from gpu_worker.report import GOING_AWAY, EndedRun, build_report, not_started
from gpu_worker.settings import WorkerSettings
from gpu_worker.shutdown import Shutdown
from gpu_worker.supervisor_client import SupervisorClient
from gpu_worker.upload import Upload, read_measures, read_tail
from gpu_worker.workspace import MARKER
from orchestrator import schemas

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How long a report is still tried while the daemon drains; after that it waits on disk.
LAST_CALL_SECONDS = 5.0
# A supervisor that exceeds deadline, SIGTERM and SIGKILL by so much hangs.
_STUCK_SECONDS = 60.0
# SIGTERM to a whole service reaches a run up to so long before its worker.
_SAME_SIGNAL_SECONDS = 1.0
_TICKS_PER_LEASE = 6


@dataclass(frozen=True)
class AttemptContext:
    """What all attempts of one daemon share. `environment` is what runs and host checks get;
    `check_host` says why no run can succeed here, if so."""

    gpu_id: str
    client: Client
    membership: PoolMembership
    settings: WorkerSettings
    shutdown: Shutdown
    folder: WorkerFolder
    lock: Path
    sandbox: Sandbox | None  # None until a level works: no run begins before
    environment: dict[str, str]
    check_host: Callable[[], Awaitable[str | None]]

    async def last_call(self, call: Callable[[], Awaitable[T]], failure: str) -> T | None:
        """Call even during a drain, for LAST_CALL_SECONDS; None when it is refused or too late."""
        with self.shutdown.limit(LAST_CALL_SECONDS):
            try:
                return await self.client.persist(call)
            except Refused as error:
                logger.warning("%s: %s", failure, error)
        return None

    def measured_by(self, job: schemas.Job) -> measures.Way:
        """How the job's prepare.py reports what it measured; read where no run can write."""
        if job.prepare_sha256 is None:
            return "none"
        try:
            return measures.way_of(self.folder.prepare(job.prepare_sha256).read_bytes())
        except OSError:  # the strictest, so that nobody gains by its removal
            return "channel"

    @property
    def needed_sandbox(self) -> Sandbox:
        assert self.sandbox is not None  # noqa: S101 - the daemon has found it before it claims
        return self.sandbox


@dataclass
class UnreportedAttempt:
    """An attempt that is still to be reported. Without a supervisor its run has ended."""

    job: schemas.Job
    folder: RunFolder
    supervisor: SupervisorClient | None = None


async def settle(attempt: UnreportedAttempt, context: AttemptContext) -> list[int]:
    """Follow a run to its settled report; the pids of its processes that could not be killed,
    normally none."""
    following = Attempt(attempt, context)
    try:
        return await following.follow()
    except Exception:  # whatever a run left, it costs that attempt only and never the daemon
        problem = "its worker could not settle it"
        logger.exception("%s: %s", attempt.folder.run, problem)
    unkillable = await following.abandon()
    await give_up(attempt.folder, context, problem, attempt.job)
    return unkillable


async def give_up(
    folder: RunFolder, context: AttemptContext, why: str, job: schemas.Job | None = None
) -> None:
    """Report an attempt as lost, and set its folder aside. Without its job nobody would believe the
    report: its lease runs out."""
    if job is not None:
        report = not_started(job, "lost", why)
        failure = f"{folder.run}: its loss could not be reported"
        await context.last_call(lambda: context.client.finish(report), failure)
    try:
        where = f"kept in {folder.set_aside()}"
    except OSError as error:
        where = f"left where they are: {error}"
    logger.error("%s: %s; its files are %s", folder.run, why, where)


class Attempt:
    def __init__(self, attempt: UnreportedAttempt, context: AttemptContext) -> None:
        self._job = attempt.job
        self._folder = attempt.folder
        self._run = attempt.folder.run
        self._supervisor = attempt.supervisor
        self._context = context
        self._client = context.client
        self._started = anyio.Event()
        self._ended = anyio.Event()
        self._uploaded = anyio.Event()
        self._upload = Upload(
            context.client, self._job, self._folder, self._ended, context.settings.log_limit_bytes
        )
        self._lease_lost = False
        self._unkillable: list[int] = []
        if self._supervisor is None or self._supervisor.adopted:
            self._started.set()

    async def follow(self) -> list[int]:
        """Follow the run to its end and settle the report; the pids of its processes that could not
        be killed, normally none."""
        side_tasks = (
            self._tick, self._renew_lease, self._upload_log,
            self._stop_when_drained, self._stop_when_cancelled, self._stop_when_gpu_fails,
        )  # fmt: skip
        async with anyio.create_task_group() as tasks:
            for task in side_tasks:
                tasks.start_soon(task)
            result = await self._wait_for_end()
            if result is None:
                logger.warning("%s: its supervisor died", self._run)
            self._unkillable = list(result.unkillable) if result else await self._sweep()
            self._ended.set()
            tasks.start_soon(self._free_space)
            with self._context.shutdown.limit(LAST_CALL_SECONDS):
                await self._uploaded.wait()
                await self._settle(result)
            tasks.cancel_scope.cancel()
        return self._unkillable

    async def _free_space(self) -> None:
        # Not waited for: the next run need not.
        await anyio.to_thread.run_sync(self._folder.free_space, abandon_on_cancel=True)

    async def _tick(self) -> None:
        while self._supervisor is not None:
            self._supervisor.tick()
            await anyio.sleep(self._job.lease_seconds / _TICKS_PER_LEASE)

    async def _renew_lease(self) -> None:
        """Renew until the report is settled. An orchestrator that is away does not end the run."""
        await self._started.wait()
        job = self._job
        request = schemas.RenewRequest(
            experiment_id=job.experiment_id,
            gpu_id=job.gpu_id,
            epoch=job.epoch,
            lease_secret=job.lease_secret,
        )
        while True:
            try:
                answer = await self._client.persist(lambda: self._context.membership.renew(request))
            except Refused as error:
                if not self._ended.is_set():  # else the answer to the report decides
                    self._lose_lease(error)
                return
            self._upload.heed(answer)
            await anyio.sleep(self._client.until_next_beat())

    async def _upload_log(self) -> None:
        try:
            await self._upload.run()
        except Refused as error:
            self._lose_lease(error)
        self._uploaded.set()

    def _lose_lease(self, error: Refused) -> None:
        if not self._lease_lost:
            logger.warning("%s: the lease is lost, the run is dropped (%s)", self._run, error)
        self._lease_lost = True
        self._stop("lease_lost", now=True)

    async def _stop_when_drained(self) -> None:
        shutdown = self._context.shutdown
        await shutdown.leaving.wait()
        with shutdown.limit(self._context.settings.drain_timeout):
            await shutdown.at_once.wait()
        self._stop("handed_back", now=shutdown.at_once.is_set())
        await shutdown.at_once.wait()
        self._stop("handed_back", now=True)

    async def _stop_when_cancelled(self) -> None:
        await self._upload.cancel_requested.wait()
        logger.info("%s: %s", self._run, self._upload.cancel_why or "cancelled")
        self._stop("cancelled", now=False)

    async def _stop_when_gpu_fails(self) -> None:
        await self._context.membership.gpu_failed.wait()
        self._stop("gpu_lost", now=True)

    def _stop(self, reason: StopReason, *, now: bool) -> None:
        if self._supervisor is not None and not self._ended.is_set():
            self._supervisor.stop(reason, now=now)

    async def _wait_for_end(self) -> Result | None:
        """The result; None when the supervisor is gone without one."""
        if self._supervisor is not None:
            job, settings = self._job, self._context.settings
            limit = job.time_budget_seconds + job.grace_seconds + settings.kill_after_seconds
            limit += measures.VERIFY_SECONDS + tree.KILL_TIMEOUT_SECONDS + _STUCK_SECONDS
            with anyio.move_on_after(limit) as overdue:
                if result := await self._listen(self._supervisor):
                    return result
            if overdue.cancelled_caught:
                logger.error("%s: its supervisor is stuck and is killed", self._run)
                self._supervisor.kill()
        try:
            return Result.read(durable.read_file(self._folder.result))
        except FileNotFoundError:
            return None

    async def _listen(self, supervisor: SupervisorClient) -> Result | None:
        while message := await supervisor.next_message():
            if message.get("event") == "started":
                self._started.set()
            elif message.get("event") == "ended":
                return Result.read(message["result"].encode())
        return None

    async def abandon(self) -> list[int]:
        """End the run if it still goes on; the pids that could not be killed."""
        if self._ended.is_set():
            return self._unkillable
        if self._supervisor is not None:
            self._supervisor.kill()
        return await self._sweep()

    async def _sweep(self) -> list[int]:
        """Kill what is left of a run whose supervisor is dead."""
        sweep = partial(tree.sweep, MARKER, str(self._folder.workspace))
        unkillable = await anyio.to_thread.run_sync(sweep)
        journal, lock = self._context.folder.journal, str(self._context.lock)
        try:
            durable.append_to_journal(journal, "ended", self._run, lock)
        except OSError as error:
            logger.warning("the journal could not be written: %s", error)
        return unkillable

    async def _settle(self, result: Result | None) -> None:
        """Report, and drop the attempt whatever the orchestrator answers."""
        report = None if self._lease_lost else await self._build_report(result)
        if report is not None:
            try:
                answer = await self._client.persist(lambda: self._client.finish(report))
            except (LeaseLost, Unknown) as error:
                logger.warning(
                    "%s: its report (%s) is dropped: %s", self._run, report.outcome, error
                )
            else:
                detail = report.error.partition("\n")[0]
                if report.metrics:
                    detail = f"val_bpb {report.metrics.val_bpb:.6f}"
                outcome, status = report.outcome, answer.status
                logger.info("%s: %s, now %s (%s)", self._run, outcome, status, detail)
        self._folder.settle()
        if self._supervisor is not None:
            self._supervisor.settled()

    def _measures(self, result: Result | None) -> list[float]:
        """What evaluate_bpb measured: as its supervisor heard, or from the file of an older one."""
        by_channel = self._context.measured_by(self._job) == "channel"
        if by_channel and result is not None and result.measures is not None:
            return list(result.measures)
        return metrics.measured(read_measures(self._folder))

    async def _build_report(self, result: Result | None) -> schemas.FinishRequest | None:
        failed, membership = result is None or result.exit_code != 0, self._context.membership
        ended = EndedRun(
            job=self._job,
            result=result,
            tail=read_tail(self._folder) + (result.unwritten.encode() if result else b""),
            measures=self._measures(result),
            measured=self._context.measured_by(self._job) == "channel",
            curve=self._upload.curve.points(),
            environment=membership.environment(),
            log_problem=self._upload.refused,
            # A failing GPU may end a run before a heartbeat has seen the failure.
            gpu_failure=await membership.check_gpu() if failed else None,
            handed_back=GOING_AWAY if await self._left_with_its_worker(result) else None,
        )
        report = build_report(ended)
        if report is not None and (problem := await self._host_problem(result, report)):
            logger.warning("%s: handed back, the fault is the host's: %s", self._run, problem)
            return build_report(replace(ended, handed_back=problem))
        return report

    async def _left_with_its_worker(self, result: Result | None) -> bool:
        """True if SIGTERM ended the run because all processes of this worker got it: systemd and
        Slurm, as many are set up, ask a whole service to go."""
        if result is None or not result.ended_by_sigterm:
            return False
        with anyio.move_on_after(_SAME_SIGNAL_SECONDS):
            await self._context.shutdown.leaving.wait()
        return self._context.shutdown.leaving.is_set()

    async def _host_problem(
        self, result: Result | None, report: schemas.FinishRequest
    ) -> str | None:
        """Why this run could not succeed here. What the run printed has no say in it."""
        if result is None and not self._started.is_set():
            log = self._context.folder.supervisor_log
            problem = f"a supervisor could not start its run; {log} says why"
            self._context.membership.host_problem = problem
            return problem
        # A drain has no time for the check.
        if report.outcome in ("crash", "timeout") and not self._context.shutdown.leaving.is_set():
            return await self._context.check_host()
        return None
