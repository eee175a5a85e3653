"""What a supervisor is told about a run: the order, from the job and the worker's settings."""

from functools import partial

from gpu_worker import cgroup, measures, tree
from gpu_worker.attempt import AttemptContext
from gpu_worker.channel import Order
from gpu_worker.folders import RunFolder
from gpu_worker.workspace import run_environment
from orchestrator import schemas

# Heartbeats: one for the time between two renewals, the rest for the killing.
_ORPHAN_HEARTBEATS = 1.2


def orphan_seconds(lease_seconds: float, heartbeat_seconds: float) -> float:
    """How long a run may go on without its worker. It must be dead when the lease ends, and the
    lease began with the last renewal: up to a heartbeat before the worker's last tick."""
    return lease_seconds - _ORPHAN_HEARTBEATS * heartbeat_seconds


def make_order(job: schemas.Job, folder: RunFolder, context: AttemptContext) -> Order:
    settings, sandbox = context.settings, context.needed_sandbox
    way = context.measured_by(job)
    entry = [str(folder.entry)] if way == "channel" else []
    parent = sandbox.cgroups
    launch = partial(sandbox.wrap, info_fd=tree.INFO_FD, seccomp_fd=tree.SECCOMP_FD)
    python = [*sandbox.command(settings.command), *entry]
    argv = launch(
        [*python, "train.py"],
        folder.workspace,
        compiled=folder.compiled,
        read_only=(folder.entry, folder.workspace / "prepare.py"),
    )
    verify_argv = launch(
        [*python, str(folder.verify / "verify.py"), str(folder.checkpoint)],
        read_only=(folder.entry, folder.verify, folder.checkpoint),
    )
    # Without walls between the run and the second measurement, that one would prove nothing.
    verifies = sandbox.level == "strict" and way == "channel"
    best = float("inf") if job.best_val_bpb is None else job.best_val_bpb
    saves = {
        "AUTORESEARCH_CHECKPOINT": str(folder.checkpoint),
        "AUTORESEARCH_CHECKPOINT_BELOW": repr(best),  # other models need not be written
    }
    return Order(
        run=folder.run,
        folder=str(folder.path),
        workspace=str(folder.workspace),
        journal=str(context.folder.journal),
        lock=str(context.lock),
        argv=argv,
        env=run_environment(context.environment, job, folder, way) | (saves if verifies else {}),
        level=sandbox.level,
        cgroup=str(cgroup.of_worker(parent, context.folder.path)) if parent else "",
        deadline_seconds=job.time_budget_seconds + job.grace_seconds,
        kill_after_seconds=settings.kill_after_seconds,
        orphan_seconds=orphan_seconds(job.lease_seconds, context.client.heartbeat_seconds),
        log_limit_bytes=settings.log_limit_bytes,
        verify_argv=verify_argv if verifies else [],
        verify_below=best,
        verify_seconds=measures.VERIFY_SECONDS,
    )
