"""`autoresearch fleet slurm`: a job array, each task of which serves the GPUs that Slurm gave it.

- A task is `autoresearch worker --gpu all` in place of a batch script, so it gets Slurm's signals.
- Long before the end of its time it gets SIGUSR1: it takes no new run and leaves after its present
  one. What ends it sooner (preemption, `scontrol requeue`, `scancel`) sends SIGTERM, and SIGKILL
  KillWait later: it hands its run back at once.
- Settings travel in the environment, the token too: other users see neither.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from gpu_worker.settings import WorkerSettings
from orchestrator import schemas
from orchestrator.cli.client import Client, is_loopback
from orchestrator.cli.errors import CommandError, ConfigError
from orchestrator.cli.options import Cpu, FleetFlags, add_command, load
from orchestrator.cli.output import note, respond
from orchestrator.cli.tables import coloured, plain

_SCRIPT = """#!/bin/sh
task="${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
export AUTORESEARCH_PLACEMENT="slurm $task"
exec {python} -m orchestrator.cli worker {device}
"""
_CPU = '--cpu --gpu-id "$SLURMD_NODENAME:slurm-$task"'

# The longest notice before the end of a task's time: a run's usual budget and grace.
_NOTICE_SECONDS = 600
# Slurm ends a cancelled job within its KillWait, 30 seconds by default, if its node answers.
_CANCEL_SECONDS = 120.0
_POLL_SECONDS = 1.0
_FORMAT = "%i|%T|%N|%L|%r"

Label = Annotated[str, typer.Option(metavar="NAME", help="Of the fleet; part of its jobs' name.")]


@dataclass(frozen=True)
class Task:
    """One task of an array, as squeue shows it. A pending one has no node, but a reason."""

    task: str
    state: str
    node: str
    time_left: str
    reason: str


def up(
    sbatch_options: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- SBATCH OPTION...]", help="As --account, --mem, --exclude."),
    ] = None,
    *,
    flags: FleetFlags,
    limit: Annotated[
        str, typer.Option("--time", metavar="TIME", help="Of each task, as sbatch takes it.")
    ],
    partition: Annotated[
        str | None, typer.Option(metavar="NAME", help="The cluster's default if not given.")
    ] = None,
    gpus_per_node: Annotated[
        str | None, typer.Option(metavar="N", help="GPUs of a task; each gets a daemon.")
    ] = None,
    array: Annotated[
        str, typer.Option(metavar="N[%M]", help="N tasks, of which at most M run at once.")
    ] = "1",
    label: Label = "default",
    cpu: Cpu = False,
    json: bool,
) -> None:
    """Run it where sbatch works, in the checkout, which the nodes must see under the same path."""
    size = re.fullmatch(r"([1-9]\d{0,5})(%[1-9]\d*)?", array)
    if size is None:
        raise ConfigError(f"--array {array}: a number of tasks, as 8, or 8%2 for two at once")
    if not re.fullmatch(r"[\w.-]+", label):
        raise ConfigError(f"--label {label}: letters, digits, dots and dashes")
    if gpus_per_node is None and not cpu:
        raise ConfigError("say how many GPUs a task gets with --gpus-per-node N, or --cpu for none")
    settings = load(WorkerSettings, **flags)
    command = [
        "sbatch", "--parsable", f"--job-name={_name(label)}", f"--time={limit}",
        f"--array=0-{int(size[1]) - 1}{size[2] or ''}", "--nodes=1", "--export=ALL",
        "--requeue", "--open-mode=append", f"--signal=B:USR1@{_notice_seconds(limit)}",
        *([f"--partition={partition}"] if partition else []),
        *([f"--gpus-per-node={gpus_per_node}"] if gpus_per_node else []),
        *(sbatch_options or []),
    ]  # fmt: skip
    script = _SCRIPT.format(python=shlex.quote(sys.executable), device=_CPU if cpu else "--gpu all")
    job = _call(command, script, settings).partition(";")[0].strip()
    if is_loopback(urlsplit(settings.orchestrator).hostname):
        note(f"the nodes must reach {settings.orchestrator}; --orchestrator names another address")
    text = f"job {job} queued, {size[1]} tasks; `autoresearch fleet slurm status` shows them"
    respond(json, {"job": job, "tasks": int(size[1]), "label": label}, text)


def status(client: Client, *, label: Label = "default", json: bool) -> None:
    tasks, pool = _tasks(label), client.pool().workers
    rows = [(task, [w for w in pool if w.placement == f"slurm {task.task}"]) for task in tasks]
    table = plain("task", "state", "node", ">time left", "GPU", "status", "experiment", "problem")
    for task, workers in rows:
        where = (task.task, task.state.lower(), task.node, task.time_left)
        for worker in workers:
            experiment, problem = worker.current_experiment_id or "", worker.problem or ""
            table.add_row(*where, worker.id, coloured(worker.status), experiment, problem)
        if not workers:
            table.add_row(*where, "", "", "", "" if task.reason == "None" else task.reason)
    data = [vars(task) | {"gpus": [_json(w) for w in workers]} for task, workers in rows]
    respond(json, data, table)
    if not tasks and not json:
        note("no tasks; `autoresearch fleet slurm up` queues them")


def down(
    *,
    label: Label = "default",
    drain_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="That runs have to end; then handed back.")
    ] = 30,
    json: bool,
) -> None:
    """What is in Slurm's queue is cancelled at once."""
    seen: set[str] = set()
    asked: set[str] = set()
    deadline = time.monotonic() + drain_timeout
    while tasks := _tasks(label):
        late = time.monotonic() - deadline
        if late > _CANCEL_SECONDS:
            left = ", ".join(f"{t.task} ({t.state.lower()} on {t.node})" for t in tasks)
            raise CommandError(f"cancelled, but not ended by Slurm: {left}. Do their nodes answer?")
        draining = {t.task for t in tasks if t.state == "RUNNING" and late < 0}
        _signal(draining - asked, "--batch", "--signal=USR1")
        # Each time, because a task that Slurm was taking away may be in its queue again.
        _signal({t.task for t in tasks} - draining)
        seen |= {t.task for t in tasks}
        asked |= draining
        time.sleep(_POLL_SECONDS)
    respond(json, {"ended": sorted(seen)}, f"{len(seen)} tasks ended")


def _signal(tasks: set[str], *options: str) -> None:
    """Cancel tasks, or send them a signal. Of those that have just ended --quiet says nothing."""
    if tasks:
        _call(["scancel", "--quiet", "--ctld", *options, *sorted(tasks)])


def _tasks(label: str) -> list[Task]:
    found = _call(
        ["squeue", "--me", "--array", "--noheader", f"--name={_name(label)}", f"--format={_FORMAT}"]
    )
    return [Task(*line.split("|", 4)) for line in found.splitlines()]


def _name(label: str) -> str:
    return f"autoresearch-{label}"


def _notice_seconds(limit: str) -> int:
    """How long before the end of its time a task learns of it, for Slurm's ways to write a time:
    M, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit)
    if found is None:
        raise ConfigError(f"--time {limit}: minutes, H:MM:SS or D-HH:MM:SS")
    days, *clock = (int(part or 0) for part in found.groups())
    if found[1] is None and found[4] is None:
        clock = [0, *clock[:2]]
    seconds = days * 86_400 + clock[0] * 3600 + clock[1] * 60 + clock[2]
    return min(_NOTICE_SECONDS, seconds // 2)


def _call(command: list[str], script: str = "", settings: WorkerSettings | None = None) -> str:
    """What one of Slurm's commands prints, run with these settings of workers."""
    environment = dict(os.environ)
    if settings is not None:
        # A run of minutes would not end within KillWait.
        environment |= {"AUTORESEARCH_DRAIN_TIMEOUT": "0"} | settings.environment()
        for name in ("AUTORESEARCH_GPU", "AUTORESEARCH_GPU_ID"):  # of one daemon
            environment.pop(name, None)
    try:
        done = subprocess.run(
            command, input=script, env=environment, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no {command[0]} here: run this on a machine of the Slurm cluster"
        ) from error
    if done.returncode != 0 and (done.stderr or command[0] != "scancel"):
        raise CommandError(f"{command[0]} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _json(worker: schemas.Worker) -> dict[str, Any]:
    return worker.model_dump(mode="json", include={"id", "status", "current_experiment_id"})


slurm = typer.Typer(
    name="slurm", help="A job array of workers on a Slurm cluster.", no_args_is_help=True
)
add_command(slurm, up, "Queue a job array whose tasks serve the GPUs that they get.")
add_command(slurm, status, "The tasks, with what the pool says of their GPUs.")
add_command(slurm, down, "Drain the tasks, then cancel what is left.")
