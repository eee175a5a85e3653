"""Training data for the demo: is there any, and if not, prepare.py brings it."""

import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from orchestrator.cli.checks import check_training, training_environment
from orchestrator.cli.errors import CommandError
from orchestrator.cli.output import note

if TYPE_CHECKING:
    from gpu_worker.settings import WorkerSettings


def with_launcher(settings: "WorkerSettings") -> "WorkerSettings":
    """The settings; without uv on this machine, this Python stands in for it if it has torch."""
    if settings.launcher or shutil.which("uv") or find_spec("torch") is None:
        return settings
    # Validated anew, so that it counts as set and reaches the worker.
    return type(settings)(**settings.model_dump(exclude_unset=True), launcher=(sys.executable,))


def ensure_data(settings: "WorkerSettings") -> None:
    """Run prepare.py if its check says so. CommandError when training is impossible after that."""
    if not settings.check:
        return
    if check_training(settings).ok:
        return
    note("preparing the training data (once; later runs find it)")
    _prepare(settings)
    answer = check_training(settings)
    if not answer.ok:
        raise CommandError("; ".join(answer.problems) or "prepare.py --check fails")


def _prepare(settings: "WorkerSettings") -> None:
    # A session of its own, so that whatever ends this command ends all of it.
    process = subprocess.Popen(
        [*settings.command, "prepare.py"],
        cwd=settings.project,
        env=training_environment(settings),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        start_new_session=True,
    )
    try:
        code = process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    if code != 0:
        raise CommandError(f"prepare.py ended with exit code {code}; what it said is above")
