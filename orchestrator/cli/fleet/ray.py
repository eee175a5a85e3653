"""`autoresearch fleet ray`: a worker daemon on each GPU of a Ray cluster.

Each daemon has a detached actor, which Ray places on a free GPU and starts again after faults. The
actor starts the daemon as a process of its own; gpu_worker/placed.py says how the two part.
"""

import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from gpu_worker.gpu import host_name
from gpu_worker.placed import Placed
from gpu_worker.settings import WorkerSettings
from orchestrator.cli.client import is_loopback
from orchestrator.cli.errors import FAILED, CommandError, ConfigError, needs
from orchestrator.cli.options import FleetFlags, add_command, load
from orchestrator.cli.output import note, respond
from orchestrator.cli.run.process import Stops
from orchestrator.cli.tables import coloured, plain

_START_SECONDS, _ANSWER_SECONDS, _LOOK_SECONDS, _POLL_SECONDS = 10.0, 5.0, 5.0, 0.2

Address = Annotated[
    str,
    typer.Option(metavar="ADDRESS", help="Ray's head, HOST:PORT; auto on a node of the cluster."),
]
OnCpu = Annotated[
    bool, typer.Option("--cpu", help="Workers on the CPU, each for one of Ray's CPUs.")
]
Gpus = Annotated[
    str, typer.Option(metavar="N", help="So many daemons, or `all`: one for each GPU of today.")
]
Label = Annotated[str, typer.Option(metavar="NAME", help="Of the fleet; its actors' namespace.")]
States = dict[str, dict[str, Any]]


class Worker(Placed):
    """What Ray runs on a node: an actor with a GPU that Ray gave it, or with one of its CPUs."""

    def __init__(self, name: str, settings: Mapping[str, str]) -> None:
        import ray

        os.environ.update(settings)
        gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        flags = ["--gpu", gpus[0]] if gpus else ["--cpu", "--gpu-id", f"{host_name()}:{name}"]
        os.environ["AUTORESEARCH_PLACEMENT"] = f"ray {name}"
        super().__init__(name, flags, _environment(), engine=os.getppid())


def _environment() -> dict[str, str]:
    """This process's environment, without Ray's token and what Ray sets for its own processes, such
    as one thread for those that asked for no CPU."""
    before = {
        each.partition(b"=")[0] for each in Path("/proc/self/environ").read_bytes().split(b"\0")
    }
    of_ray = {"OMP_NUM_THREADS", "PYTHONBREAKPOINT"} - {os.fsdecode(name) for name in before}
    return {n: v for n, v in os.environ.items() if n not in of_ray and not n.startswith("RAY_")}


class Fleet:
    """The actors of the cluster that this process is connected to, by name."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def names(self) -> list[str]:
        found: list[str] = self._ray.util.list_named_actors()
        return sorted(found, key=lambda name: (len(name), name))

    def capacity(self, resource: str) -> int:
        """How much of it the nodes that are alive have."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return int(sum(resources.get(resource, 0) for resources in nodes))

    def place(self, name: str, settings: dict[str, str], *, cpu: bool) -> None:
        """Create the actor, unless there is one of that name."""
        share = {"num_cpus": 1} if cpu else {"num_cpus": 0, "num_gpus": 1}
        self._ray.remote(Worker).options(
            name=name,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            # Else Ray kills the daemon when a node of Ray dies on a host that lives.
            runtime_env={"env_vars": {"RAY_kill_child_processes_on_worker_exit": "0"}},
            **share,
        ).remote(name, settings)

    def ask(self, method: str, names: list[str], seconds: float) -> States:
        """What each actor answers to `start`, `drain` or `state`. Those without a GPU do not."""
        ray, calls, answers = self._ray, {}, {}
        for name in names:
            with suppress(ValueError):  # it is gone
                calls[name] = getattr(ray.get_actor(name), method).remote()
        if calls:
            ray.wait(list(calls.values()), num_returns=len(calls), timeout=seconds)
        for name, call in calls.items():
            try:
                answers[name] = ray.get(call, timeout=0)
            except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnavailableError):
                answers[name] = {
                    "state": "waiting",
                    "said": "for a free GPU, or for Ray to start it",
                }
            except ray.exceptions.RayError as error:
                answers[name] = {"state": "failed", "said": str(error).strip().splitlines()[-1]}
        return answers

    def remove(self, name: str) -> None:
        with suppress(ValueError):
            self._ray.kill(self._ray.get_actor(name), no_restart=True)


@contextmanager
def _cluster(address: str, label: str) -> Iterator[Fleet]:
    if not re.fullmatch(r"[\w.-]+", label):
        raise ConfigError(f"--label {label}: letters, digits, dots and dashes")
    # Under `uv run` Ray would copy the current folder to each node and make an environment there.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    needs("ray", "a fleet on Ray needs it", "ray")
    import ray

    try:
        ray.init(
            address,
            namespace=f"autoresearch-{label}",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise CommandError(
            f"no Ray cluster at {address}: {error}. Run this on a node of the cluster, and with "
            "Ray's token where it wants one"
        ) from error
    with redirect_stdout(sys.stderr):  # Ray tells of nodes that died, at the latest at its end
        try:
            yield Fleet(ray)
        finally:
            ray.shutdown()


@dataclass(frozen=True)
class Plan:
    """How many daemons (None: as many as there are GPUs), and with which settings."""

    count: int | None
    settings: WorkerSettings
    cpu: bool

    def fill(self, fleet: Fleet) -> list[str]:
        """Create the actors that are missing; their names."""
        resource, kind = ("CPU", "cpu") if self.cpu else ("GPU", "worker")
        wanted = self.count or fleet.capacity(resource)
        settings = self.settings.environment()
        for name in ("AUTORESEARCH_GPU", "AUTORESEARCH_GPU_ID"):  # of one daemon
            settings.pop(name, None)
        there = fleet.names()
        new = [name for n in range(wanted) if (name := f"{kind}-{n}") not in there]
        for name in new:
            fleet.place(name, settings, cpu=self.cpu)
        return new


def _plan(flags: dict[str, Any], gpus: str, *, cpu: bool) -> Plan:
    if gpus != "all" and not re.fullmatch("[1-9][0-9]{0,4}", gpus):
        raise ConfigError(f"--gpus {gpus}: a number from 1, or all")
    settings = load(WorkerSettings, **flags)
    if is_loopback(urlsplit(settings.orchestrator).hostname):
        note(f"the nodes must reach {settings.orchestrator}; --orchestrator names another address")
    return Plan(None if gpus == "all" else int(gpus), settings, cpu=cpu)


def up(
    *,
    flags: FleetFlags,
    cpu: OnCpu = False,
    address: Address = "auto",
    gpus: Gpus = "all",
    label: Label = "default",
    json: bool,
) -> None:
    """Daemons that are there already stay as they are; one that has ended is started again."""
    plan = _plan(flags, gpus, cpu=cpu)
    with _cluster(address, label) as fleet:
        plan.fill(fleet)
        if not (names := fleet.names()):
            raise CommandError(
                "no node of this Ray cluster has a GPU: --cpu goes without, `watch` waits for nodes"
            )
        states = fleet.ask("start", names, _START_SECONDS)
    _show(states, json=json)
    if any(each["state"] == "failed" for each in states.values()):
        raise typer.Exit(FAILED)


def watch(
    *,
    flags: FleetFlags,
    cpu: OnCpu = False,
    address: Address = "auto",
    gpus: Gpus = "all",
    label: Label = "default",
    json: bool,
) -> None:
    """Stop it with Ctrl-C, and before `down`."""
    plan, stops, stdout = _plan(flags, gpus, cpu=cpu), Stops(), sys.stdout
    # Again inside, since Ray takes SIGTERM for itself; and outside, for a Ctrl-C's repetition.
    with stops.counted(), _cluster(address, label) as fleet, stops.counted():
        looked_at = -math.inf
        while not stops.asked():
            if time.monotonic() > looked_at + _LOOK_SECONDS:
                looked_at = time.monotonic()
                for name in plan.fill(fleet):
                    with redirect_stdout(stdout):
                        respond(json, {"name": name}, f"{name} placed")
            time.sleep(_POLL_SECONDS)


def status(*, address: Address = "auto", label: Label = "default", json: bool) -> None:
    with _cluster(address, label) as fleet:
        states = fleet.ask("state", fleet.names(), _ANSWER_SECONDS)
    _show(states, json=json)


def down(*, address: Address = "auto", label: Label = "default", json: bool) -> None:
    """Runs have the time of --drain-timeout to end, then they go back to the queue."""
    with _cluster(address, label) as fleet:
        names = left = fleet.names()
        while left:
            states = fleet.ask("drain", left, _ANSWER_SECONDS)
            left = [name for name, each in states.items() if each["state"] == "draining"]
            for name in states.keys() - left:
                fleet.remove(name)
            time.sleep(_POLL_SECONDS)
    respond(json, {"removed": names}, f"{len(names)} daemons removed")


def _show(states: States, *, json: bool) -> None:
    table = plain("name", "state", "host", "flags", "pid", "what it said last")
    for name, each in states.items():
        row = [str(each.get(key) or "") for key in ("host", "flags", "pid", "said")]
        table.add_row(name, coloured(each["state"]), *row)
    respond(json, [{"name": name} | each for name, each in states.items()], table)
    if not states and not json:
        note("no daemons here; `autoresearch fleet ray up` places them")


ray = typer.Typer(
    name="ray", help="A worker daemon on each GPU of a Ray cluster.", no_args_is_help=True
)
add_command(ray, up, "Place a daemon on each GPU, or on so many.")
add_command(ray, status, "Where the daemons are, and what those said that have ended.")
add_command(ray, watch, "As `up`, and again when nodes join the cluster, until stopped.")
add_command(ray, down, "Drain the daemons, then remove them.")
