"""How a worker comes into a GPU: its lock, and the attempts that an earlier worker left.

The lock is free, or the supervisor of a run that still goes on has it and hands it over with the
run. What to do with an attempt is attempt.py's.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import anyio
from pydantic import ValidationError

from gpu_worker import lock
from gpu_worker.folders import RunFolder, WorkerFolder
from gpu_worker.supervisor_client import SupervisorClient
from orchestrator import schemas

logger = logging.getLogger(__name__)

_TELL_SECONDS = 1.0
_LOOK_AGAIN_SECONDS = 0.05


@dataclass(frozen=True)
class UnreportedAttempt:
    """An attempt that nobody has reported. With a supervisor it still runs, else it has ended."""

    job: schemas.Job
    folder: RunFolder
    supervisor: SupervisorClient | None


async def take_over(
    folder: WorkerFolder, lock_path: Path, patience: float
) -> tuple[int, list[UnreportedAttempt]]:
    """The GPU's lock and what is left to report. Raises LockBusy, OSError.

    `patience` is how many seconds the lock may take to become free, or its run to be found.
    """
    began, told = anyio.current_time(), False
    while True:
        left = {each: job for each in folder.runs() if (job := _unreported(each))}
        for candidate in left:
            if adopted := SupervisorClient.adopt(candidate):
                supervisor, lock_fd = adopted
                return lock_fd, [
                    UnreportedAttempt(job, each, supervisor if each is candidate else None)
                    for each, job in left.items()
                ]
        try:
            return lock.take(lock_path), [
                UnreportedAttempt(job, each, None) for each, job in left.items()
            ]
        except lock.LockBusy as busy:
            waited = anyio.current_time() - began
            if waited > patience:
                raise
            if waited > _TELL_SECONDS and not told:
                logger.warning("%s; waiting for up to %g s", busy, patience)
                told = True
            await anyio.sleep(_LOOK_AGAIN_SECONDS)


def _unreported(folder: RunFolder) -> schemas.Job | None:
    """The job of an attempt that is still to be reported."""
    try:
        return schemas.Job.model_validate_json(folder.job.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:  # cut short by a kill: the run was never ordered
        logger.warning("%s: its job cannot be read, so it never began", folder.run)
        folder.settle()
        return None
