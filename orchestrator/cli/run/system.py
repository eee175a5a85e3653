"""The whole system on one machine: orchestrator and workers as children of `up` and `demo`.

The listening socket belongs to this process and is handed to the orchestrator, so that callers wait
instead of failing while the orchestrator is started again.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from gpu_worker import devices
from gpu_worker.gpu import DeviceError
from gpu_worker.settings import WorkerSettings
from orchestrator.cli.client import Client
from orchestrator.cli.errors import CommandError, ConfigError
from orchestrator.cli.options import secret, variable
from orchestrator.cli.run.process import listen, url_of
from orchestrator.cli.run.supervisor import Program, Say, Supervisor, autoresearch
from orchestrator.settings import Settings

ORCHESTRATOR = "orchestrator"
_START_SECONDS = 90.0
_SERVE_STOP_SECONDS = 15.0
_PROBLEMS_SECONDS, _FIRST_LOOKS_SECONDS = 5.0, 0.5
_CALL_SECONDS = 2.0
# A worker hands its run back after its own drain time-out; this much later it is taken for hung.
_DRAIN_MARGIN_SECONDS = 15.0


@dataclass(frozen=True)
class Workers:
    """The worker processes to start, by name.

    `gpus` is the flag `--gpu` of each, `described` the same in words; `environment` is what their
    common settings add to that of this process.
    """

    gpus: dict[str, str]
    described: dict[str, str]
    environment: dict[str, str]
    drain_seconds: float

    @property
    def on_cpu(self) -> bool:
        return list(self.gpus.values()) == ["cpu"]


def plan_workers(settings: WorkerSettings) -> Workers:
    """One worker for each GPU that the settings name and this process may use, or for the CPU."""
    wanted = [settings.gpu]
    try:
        if settings.gpu in ("auto", "all"):
            wanted = [each.flag for each in devices.usable()]
            if not wanted and settings.gpu == "all":
                raise ConfigError(
                    "--gpu all: this process may use no NVIDIA GPU; --cpu goes without"
                )
        found = {gpu: devices.open_gpu(gpu).device for gpu in wanted or ["cpu"]}
    except DeviceError as error:
        raise ConfigError(
            f"{error}. `autoresearch doctor` looks into it; --cpu goes without"
        ) from error
    if settings.gpu_id and len(found) > 1:
        raise ConfigError("--gpu-id names one worker, and this machine gets several")
    own = settings.environment()
    # These differ from worker to worker, or come from the orchestrator's settings.
    for name in ("GPU", "ORCHESTRATOR", "TOKEN", "HOME"):
        own.pop(f"AUTORESEARCH_{name}", None)
    return Workers(
        gpus={f"worker-{device.label}": gpu for gpu, device in found.items()},
        described={f"worker-{d.label}": f"{d.label}: {d.model}" for d in found.values()},
        environment=own,
        drain_seconds=settings.drain_timeout,
    )


class System:
    """Use as a context manager: leaving it stops everything; `stop` gives runs time to end.

    `logs_as` begins the names of the children's logs, for systems that may share a home.
    """

    def __init__(
        self, settings: Settings, workers: Workers, say: Say, hear: Say, *, logs_as: str = ""
    ) -> None:
        settings.paths.make_private()
        settings.paths.require()
        self.settings = settings
        self.logs = settings.paths.logs_dir
        self._logs_as = logs_as
        self.workers = workers
        self._say = say
        self._listener = listen(settings.host, settings.port)
        self.url = url_of(self._listener, settings.scheme)
        self.client = Client(self.url, secret(settings), ca=settings.ca, timeout=_CALL_SECONDS)
        self._supervisor = Supervisor(say, hear, _environment(settings, self.url, workers))
        self._problems: dict[str, str | None] = {}
        self.served = False  # a worker takes runs
        self._next_look = 0.0

    def __enter__(self) -> "System":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._listener, self.client, contextlib.closing(self._supervisor):
            self.stop(hurry=lambda: kind is not None)

    def start(
        self,
        interrupted: Callable[[], bool] = lambda: False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the orchestrator, and the workers once it answers. CommandError if it does not, or
        what `check` raises before the workers start."""
        fd, log = self._listener.fileno(), self._log_of(ORCHESTRATOR)
        command = autoresearch("serve", "--listen-fd", str(fd))
        self._supervisor.start(Program(ORCHESTRATOR, command, log, pass_fds=(fd,)))
        deadline = time.monotonic() + _START_SECONDS
        while not self.client.alive(timeout=0.5):
            if interrupted():
                return
            # No restart here: a first start that fails will fail again.
            running = ORCHESTRATOR in self._supervisor.running()
            self._supervisor.pass_on()
            if not running or time.monotonic() > deadline:
                what = "does not answer" if running else "could not start"
                raise CommandError(f"the orchestrator {what}; its log is {log}")
        check()
        self._start_workers(list(self.workers.gpus))

    def _start_workers(self, names: Sequence[str]) -> None:
        for name in names:
            command = autoresearch("worker", "--gpu", self.workers.gpus[name])
            self._supervisor.start(Program(name, command, self._log_of(name)))

    def poll(self) -> None:
        """Look after the children; call a few times a second."""
        self._supervisor.poll()
        now = time.monotonic()
        if now >= self._next_look:
            self._tell_problems()
            self._next_look = now + (_PROBLEMS_SECONDS if self.served else _FIRST_LOOKS_SECONDS)

    def lost(self) -> str | None:
        """Why the system cannot go on; None if it can."""
        gone = self._supervisor.hopeless()
        if ORCHESTRATOR in gone:
            return f"the orchestrator ended; its log is {self._log_of(ORCHESTRATOR)}"
        # Other workers may serve the same Redis, and have the GPUs that ours could not get.
        if not self.served and all(name in gone for name in self.workers.gpus):
            return f"no worker is left; their logs are in {self.logs}"
        return None

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Workers first, so that they can hand their runs back; then the orchestrator."""
        seconds = self.workers.drain_seconds + _DRAIN_MARGIN_SECONDS
        self._supervisor.stop(list(self.workers.gpus), seconds, hurry)
        # Not hurried: it needs a moment to stop its Redis server.
        self._supervisor.stop([ORCHESTRATOR], _SERVE_STOP_SECONDS)

    def _log_of(self, name: str) -> Path:
        return self.logs / f"{self._logs_as}{name}.log"

    def _tell_problems(self) -> None:
        """Say why a worker takes no runs, each reason once."""
        try:
            workers = self.client.pool().workers
        except CommandError:
            return  # the orchestrator is being started again; `poll` says so
        served = any(worker.status in ("idle", "training") for worker in workers)
        if self.served and not served:
            # Those of another system that had our GPUs are gone, as when one of two demos ends.
            gone = self._supervisor.hopeless()
            self._start_workers([name for name in self.workers.gpus if name in gone])
        self.served = served
        for worker in workers:
            new = worker.problem != self._problems.get(worker.id)
            if worker.problem and new and worker.status != "offline":
                self._say(worker.id, f"takes no runs: {worker.problem}")
            self._problems[worker.id] = worker.problem


def _environment(settings: Settings, url: str, workers: Workers) -> dict[str, str]:
    """This process's environment with the settings in it, for children."""
    own = {variable(name): _text(value) for name, value in settings if value is not None}
    more = {"AUTORESEARCH_ORCHESTRATOR": url, "PYTHONUNBUFFERED": "1"}
    return os.environ | workers.environment | own | more


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, tuple) else str(value)
