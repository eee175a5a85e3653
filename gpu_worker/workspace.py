"""A run's workspace: train.py from the agent, prepare.py of the hash that its tag pinned.

No other file gets here. A file whose hash differs from the promised one stops the run before it
starts. Also the environment of runs and host checks.
"""

import hashlib
import os
from pathlib import Path

import anyio
import anyio.to_thread

from gpu_worker import compiled, durable, measures, tree
from gpu_worker.client import Client, Refused
from gpu_worker.folders import RunFolder, WorkerFolder
from gpu_worker.settings import MIB, WorkerSettings
from orchestrator import schemas

# `tree.sweep` finds a run's processes by this variable: the folder is unique to the attempt.
MARKER = "AUTORESEARCH_WORKSPACE"

_NEEDED_INODES = 100  # a run's folder has ten files before train.py writes its own
_TRIAL_BYTES = 64 * 1024  # about what a workspace begins with

_SECRETS = ("AUTORESEARCH_TOKEN", "REDIS_URL")


class WorkspaceError(Exception):
    """The run cannot start here, through no fault of its train.py."""


async def build(
    job: schemas.Job, run: RunFolder, folder: WorkerFolder, client: Client, project: Path
) -> None:
    """Write everything that the run needs. Raises WorkspaceError, and OSError if this host's disk
    does not take it."""
    source = job.train_py.encode()
    if sha256(source) != job.source_sha256:
        raise WorkspaceError("train.py arrived with another hash than it was submitted with")
    run.delete()
    run.workspace.mkdir(parents=True)
    await anyio.to_thread.run_sync(compiled.provide, job, run, folder, project)
    run.verify.mkdir()
    folders = (run.workspace, run.verify)
    for path in folders:
        (path / "train.py").write_bytes(source)
    if job.prepare_sha256 is not None:
        prepare = await _prepare_py(job, job.prepare_sha256, folder, client)
        for path in folders:
            (path / "prepare.py").write_bytes(prepare)
    # A copy, because the checkout that it is in must not be importable.
    run.entry.write_bytes(measures.ENTRY.read_bytes())
    (run.verify / "verify.py").write_bytes(measures.VERIFY.read_bytes())
    run.job.write_text(job.model_dump_json())


def disk_problem(folder: WorkerFolder, needed_bytes: int) -> str | None:
    """Why no workspace can be written now: the disk is full or read-only, a quota is used up."""
    try:
        folder.create()  # a person may have deleted it
        disk = os.statvfs(folder.path)
        free, inodes = disk.f_bavail * disk.f_frsize, disk.f_favail
        if free < needed_bytes:
            return f"{free // MIB} MiB free at {folder.path}; a run needs {needed_bytes // MIB} MiB"
        if disk.f_files and inodes < _NEEDED_INODES:  # some file systems do not count them
            return f"{inodes} inodes free at {folder.path}; a run needs {_NEEDED_INODES}"
        try:
            folder.trial.write_bytes(bytes(_TRIAL_BYTES))
        finally:
            folder.trial.unlink(missing_ok=True)
    except OSError as error:
        return f"{folder.path} cannot be written to: {error}"
    return None


async def _prepare_py(job: schemas.Job, pinned: str, folder: WorkerFolder, client: Client) -> bytes:
    """The pinned prepare.py, from the cache or the orchestrator, its hash checked either way."""
    cached = folder.prepare(pinned)
    if cached.exists() and sha256(content := cached.read_bytes()) == pinned:
        return content
    # The lease is not renewed during the download, so it gets only a part of the lease.
    with anyio.move_on_after(job.lease_seconds / 2):
        try:
            content = await client.persist(lambda: client.prepare_py(pinned))
        except Refused as error:
            raise WorkspaceError(f"the tag's prepare.py cannot be had: {error}") from error
        if (received := sha256(content)) != pinned:
            raise WorkspaceError(
                f"the tag pinned prepare.py {pinned[:12]}, the download is {received[:12]}"
            )
        durable.write_durably(cached, content)
        return content
    raise WorkspaceError("the tag's prepare.py could not be fetched in time")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def base_environment(settings: WorkerSettings, visible_device: str) -> dict[str, str]:
    """The environment of host checks and runs: the worker's own, without secrets, with one device.

    `visible_device` is a GPU's UUID, or empty for none.
    """
    env = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    env["CUDA_VISIBLE_DEVICES"] = visible_device
    env |= _without_checkout(settings, env.get("PYTHONPATH"))
    env["PYTHONUNBUFFERED"] = "1"
    # With it, each run would compile torch's 2,600 files again, which takes ten seconds.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    if settings.cache is not None:
        env["AUTORESEARCH_CACHE"] = str(settings.cache)
    return env


def _without_checkout(settings: WorkerSettings, python_path: str | None) -> dict[str, str]:
    """What hides the checkouts from imports: that of the environment, and that of this package.

    An installed package is in neither, but in site-packages.
    """
    package = Path(__file__).resolve().parent
    folders = (settings.project, package.parent)
    checkouts = [str(folder) for folder in folders if (folder / "pyproject.toml").is_file()]
    paths = [str(package / "run_path"), *([python_path] if python_path else [])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "AUTORESEARCH_NOT_IMPORTABLE": os.pathsep.join(checkouts),
    }


def run_environment(
    base: dict[str, str], job: schemas.Job, run: RunFolder, way: measures.Way
) -> dict[str, str]:
    reported = {
        "channel": {"AUTORESEARCH_MEASURES_FD": str(tree.MEASURES_FD)},
        "file": {"AUTORESEARCH_MEASURES": str(run.measures)},
        "none": {},
    }
    return (
        base
        | reported[way]
        | {
            "AUTORESEARCH_TIME_BUDGET": f"{job.time_budget_seconds:g}",
            "AUTORESEARCH_SEED": str(job.seed),
            "AUTORESEARCH_RUN": run.run,
            MARKER: str(run.workspace),
        }
    )
