"""How a worker takes over a GPU: its lock, and the runs that an earlier worker has not reported.

The lock is free, or the supervisor of a run that still goes on has it and hands it over with the
run. attempt.py follows and reports the runs.
"""

import logging
from pathlib import Path

import anyio
from pydantic import ValidationError

from gpu_worker import durable, lock
from gpu_worker.attempt import UnreportedAttempt
from gpu_worker.folders import RunFolder, WorkerFolder
from gpu_worker.supervisor_client import SupervisorClient
from orchestrator import schemas

logger = logging.getLogger(__name__)

_LOG_AFTER_SECONDS = 1.0
_POLL_SECONDS = 0.05


async def take_over(
    folder: WorkerFolder, lock_path: Path, wait_seconds: float
) -> tuple[int, list[UnreportedAttempt]]:
    """The GPU's lock and the unreported runs. Raises LockBusy, OSError.

    `wait_seconds` is how long the lock may take to become free, or its run to be found.
    """
    started, logged = anyio.current_time(), False
    while True:
        unreported = [UnreportedAttempt(job, r) for r in folder.runs() if (job := _load_job(r))]
        for attempt in unreported:
            if adopted := SupervisorClient.adopt(attempt.folder):
                attempt.supervisor, lock_fd = adopted
                return lock_fd, unreported
        try:
            return lock.take(lock_path), unreported
        except lock.LockBusy as busy:
            waited = anyio.current_time() - started
            if waited > wait_seconds:
                raise
            if waited > _LOG_AFTER_SECONDS and not logged:
                logger.warning("%s; waiting for up to %g s", busy, wait_seconds)
                logged = True
            await anyio.sleep(_POLL_SECONDS)


def _load_job(folder: RunFolder) -> schemas.Job | None:
    """The job of a run that is still to be reported; None where it cannot be read."""
    try:
        return schemas.Job.model_validate_json(durable.read_file(folder.job))
    except (OSError, ValidationError):
        return None
