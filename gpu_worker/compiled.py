"""The compile caches of runs in `strict`: each its own, so that no run executes another's code.

The caches of torch and Triton are code, and pickles that run code. So a run's cache goes with the
run. Only what the operator's own train.py made, the one in the worker's checkout, is kept: its
cache is copied to each later run of the same prepare.py, which then compiles only what differs.
"""

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path

from gpu_worker.folders import RunFolder, WorkerFolder
from orchestrator import schemas


def provide(job: schemas.Job, run: RunFolder, folder: WorkerFolder, project: Path) -> None:
    """Make the run's cache: a copy of the operator's, if there is one. Raises OSError."""
    kept = _kept(job, folder, project)
    if kept is not None and kept.is_dir():
        try:
            shutil.copytree(kept, run.compiled, symlinks=True)
        except shutil.Error:  # a full disk, or no plain files: the run compiles by itself
            shutil.rmtree(kept)
            shutil.rmtree(run.compiled)
        else:
            return
    run.compiled.mkdir()


def keep(job: schemas.Job, run: RunFolder, folder: WorkerFolder, project: Path) -> None:
    """Keep the ended run's cache if the operator wrote its train.py and none is kept yet.

    Never called while `provide` copies: the worker calls both one after the other.
    """
    kept = _kept(job, folder, project)
    if kept is None or kept.name.rpartition("-")[2] != job.source_sha256[:16] or kept.is_dir():
        return
    with suppress(OSError):  # a full disk: the next runs compile by themselves
        if any(run.compiled.iterdir()):
            shutil.rmtree(folder.compiled, ignore_errors=True)  # those of older files
            folder.compiled.mkdir()
            run.compiled.rename(kept)


def _kept(job: schemas.Job, folder: WorkerFolder, project: Path) -> Path | None:
    """Where the operator's is, for this prepare.py; None in a checkout without a train.py."""
    try:
        source = hashlib.sha256((project / "train.py").read_bytes()).hexdigest()
    except OSError:
        return None
    return folder.compiled / f"{(job.prepare_sha256 or 'none')[:16]}-{source[:16]}"
