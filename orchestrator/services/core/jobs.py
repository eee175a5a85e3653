"""The lease protocol of the workers: claim, renew, progress, finish."""

import base64
import binascii
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal

import anyio

from orchestrator import callers, schemas
from orchestrator.decisions import RunResult
from orchestrator.domain import Environment, Metrics, ResultKind, State
from orchestrator.errors import (
    AutoresearchError,
    Invalid,
    NotFound,
    TooLarge,
    Unavailable,
    bucket_away,
)
from orchestrator.files import Files
from orchestrator.ids import AttemptId, tag_of
from orchestrator.rules import early_stop
from orchestrator.rules.pace import slow_part
from orchestrator.services.core.judge import Judge
from orchestrator.services.core.timing import PoolTiming
from orchestrator.services.core.wakeups import BUSY_LOOK_SECONDS, LOOK_SECONDS, Wakeups
from orchestrator.settings import Settings
from orchestrator.store.connection import Store
from orchestrator.store.experiments import by_lease
from orchestrator.store.jobs import Claimed

logger = logging.getLogger(__name__)

# A log is capped by its worker at 64 MiB; this only keeps a wrong offset from filling the disk.
LOG_LIMIT_BYTES = 128 * 1024 * 1024

Disconnected = Callable[[], Awaitable[bool]]


class Jobs:
    def __init__(
        self,
        store: Store,
        files: Files,
        judge: Judge,
        wakeups: Wakeups,
        timing: PoolTiming,
        settings: Settings,
    ) -> None:
        self._store = store
        self._files = files
        self._judge = judge
        self._wakeups = wakeups
        self._timing = timing
        self._settings = settings

    async def claim(
        self, request: schemas.ClaimRequest, wait_seconds: float, disconnected: Disconnected
    ) -> schemas.ClaimAnswer:
        """Lease the next job, waiting for one; a caller who has disconnected gets none."""
        deadline = anyio.current_time() + wait_seconds
        worker = callers.current().worker
        with self._wakeups.waiting_for_jobs(request.gpu_id) as waiter:
            while not await disconnected():
                job = waiter.look()  # first, so that a job queued during the claim is noticed
                found = await self._store.jobs.claim(
                    request.gpu_id, request.claim_id, self._timing.now, worker
                )
                if isinstance(found, Claimed):
                    return schemas.ClaimAnswer(job=await self._job(request.gpu_id, found))
                remaining = deadline - anyio.current_time()
                if remaining <= 0 or self._wakeups.closed:
                    break
                waiter.last, waiter.busy = found, found.busy and waiter.busy
                if found.busy and job is not None:
                    self._wakeups.pass_on(job, waiter)
                pause = BUSY_LOOK_SECONDS if found.busy else LOOK_SECONDS
                with anyio.move_on_after(min(remaining, pause)):
                    await waiter.woken.wait()
        return schemas.ClaimAnswer(job=None)

    async def _job(self, gpu_id: str, claimed: Claimed) -> schemas.Job:
        try:
            train_py = await anyio.to_thread.run_sync(self._files.source, claimed.source_sha256)
        except AutoresearchError as error:
            # Not the run's fault, nor the worker's: the lease ends. A damaged source counts as a
            # loss, or it would be tried without end; a bucket that is away comes back.
            if bucket_away(error):
                await self._judge.attempt_handed_back(claimed.attempt)
            else:
                await self._judge.attempt_lost(claimed.attempt, error.message)
            raise
        return schemas.Job(
            **vars(claimed),
            experiment_id=claimed.attempt.experiment_id,
            tag=claimed.attempt.tag,
            gpu_id=gpu_id,
            epoch=claimed.attempt.epoch,
            lease_secret=claimed.attempt.secret,
            grace_seconds=self._settings.grace_seconds,
            train_py=train_py,
        )

    async def renew(self, request: schemas.RenewRequest) -> schemas.LeaseAnswer:
        health = request.health
        renewed = await self._store.jobs.renew(
            request.attempt,
            started=request.started,
            health=health.model_dump(exclude_none=True) if health else None,
        )
        return schemas.LeaseAnswer(
            cancel=renewed.cancel, why=_why(early=renewed.early), gpu_known=renewed.gpu_known
        )

    async def progress(self, request: schemas.ProgressRequest) -> schemas.LeaseAnswer:
        """Keep a log chunk and the curve; it renews the lease, and so is fenced by its epoch."""
        attempt = request.attempt
        renewed = await self._store.jobs.renew(attempt, started=True)
        if request.log is not None:
            offset, data = request.log.offset, _decoded(request.log.data)
            if offset + len(data) > LOG_LIMIT_BYTES:
                raise TooLarge(f"A log holds at most {LOG_LIMIT_BYTES} bytes.")
            await anyio.to_thread.run_sync(
                self._files.append_log,
                attempt.tag,
                attempt.experiment_id,
                attempt.epoch,
                offset,
                data,
            )
        curve = _drawable(request.curve)
        await self._keep_curve(attempt.experiment_id, curve)
        early = renewed.early
        if renewed.open:
            early = await self._judge.stops_early(attempt, early_stop.losses(curve))
        return schemas.LeaseAnswer(cancel=renewed.cancel or early, why=_why(early=early))

    async def finish(self, request: schemas.FinishRequest) -> schemas.FinishAnswer:
        """End an attempt: with a verdict, or back in the queue."""
        experiment_id = request.experiment_id
        verdict = await self._end(request)
        if verdict is not None:
            # After the epoch was checked; a report sent again comes here too.
            try:
                await self._keep_curve(experiment_id, _drawable(request.curve), final=True)
            except Unavailable as error:
                if bucket_away(error):
                    raise  # the report comes again, and finds its verdict
                logger.warning("%s is decided without its last curve: %s", experiment_id, error)
        return schemas.FinishAnswer(
            experiment_id=experiment_id,
            status=verdict.status if verdict else "queued",
            verdict=verdict,
        )

    async def _end(self, request: schemas.FinishRequest) -> schemas.AnyVerdict | None:
        attempt, reported = request.attempt, request.outcome
        if reported == "lost":
            return await self._judge.attempt_lost(attempt, request.error)
        if reported == "handed_back":
            return await self._judge.attempt_handed_back(attempt)
        result = _result(request, reported)
        if reported == "cancelled":
            percent = request.curve[-1].percent if request.curve else 0.0
            return await self._judge.attempt_stopped(attempt, result, percent)
        reporter = by_lease(attempt.epoch, secret=attempt.secret)
        return await self._judge.settle(attempt.experiment_id, result, reporter)

    async def close_log(self, attempt: AttemptId) -> None:
        """Compress the log of an attempt that is over; nobody waits for it."""
        try:
            await anyio.to_thread.run_sync(
                self._files.close_log, attempt.tag, attempt.experiment_id, attempt.epoch
            )
        except (OSError, Unavailable) as error:
            # The log stays as it is, readable and larger.
            logger.warning("Cannot compress the log of %s: %s", attempt, error)

    async def close_open_logs(self) -> None:
        """Close the logs of attempts whose orchestrator was killed before it could; now, and then
        once a lease until cancelled."""
        while True:
            try:
                for attempt in await anyio.to_thread.run_sync(self._files.open_logs):
                    if await self._is_over(attempt):
                        await self.close_log(attempt)
            except AutoresearchError as error:  # the next pass looks again
                logger.warning("Looking for open logs: %s", error)
            await anyio.sleep(self._settings.lease_seconds)

    async def _is_over(self, attempt: AttemptId) -> bool:
        try:
            run = (await self._store.reads.entry(attempt.experiment_id)).run
        except NotFound:  # what Redis forgot has no worker
            return True
        return run.epoch != attempt.epoch or run.state not in (State.LEASED, State.RUNNING)

    async def _keep_curve(
        self, experiment_id: str, curve: list[schemas.CurvePoint], *, final: bool = False
    ) -> None:
        if curve:
            points = [point.model_dump() for point in curve]
            tag = tag_of(experiment_id)
            put = partial(self._files.put_curve, tag, experiment_id, points, final=final)
            await anyio.to_thread.run_sync(put)


def _drawable(curve: list[schemas.CurvePoint] | None) -> list[schemas.CurvePoint]:
    """Without values near the largest float, whose differences are infinite."""
    return [point for point in curve or () if abs(point.loss) <= schemas.MAX_VAL_BPB]


def _why(*, early: bool) -> Literal["early_stop"] | None:
    return "early_stop" if early else None


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise Invalid(f"log.data is not base64: {error}.") from error


def _result(request: schemas.FinishRequest, kind: ResultKind) -> RunResult:
    completed = kind == "completed"
    return RunResult(
        kind=kind,
        metrics=Metrics(**request.metrics.model_dump()) if completed and request.metrics else None,
        verified_bpb=request.verified_bpb if completed else None,
        error="" if completed else request.error or f"exit code {request.exit_code}",
        warnings=tuple(request.warnings),
        environment=Environment(**request.environment.model_dump()),
        slow_part=slow_part((point.percent, point.step) for point in request.curve or ()),
        losses=early_stop.losses(_drawable(request.curve)) if completed else (),
    )
