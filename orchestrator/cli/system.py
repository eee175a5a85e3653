"""The whole system on one machine: orchestrator and workers as children, brought up and down.

What `up` and `demo` share. The listening socket belongs to this process and is handed to the
orchestrator, so that callers wait instead of failing while that is started again.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator.cli.client import Client
from orchestrator.cli.errors import CommandError, UnreachableError
from orchestrator.cli.ports import listen, url_of
from orchestrator.cli.supervisor import Program, Say, Supervisor, autoresearch
from orchestrator.cli.workers import Workers
from orchestrator.settings import Settings

ORCHESTRATOR = "orchestrator"
_START_SECONDS = 90.0
_SERVE_STOP_SECONDS = 15.0
_PROBLEMS_SECONDS = 5.0
_CALL_SECONDS = 2.0
# The worker hands a run back after its own drain time-out; this much later it is taken for hung.
_DRAIN_MARGIN_SECONDS = 15.0


class System:
    """Use as a context manager; leaving it in any way stops everything, `stop` does so politely.

    `logs_as` begins the names of the children's logs, for systems that may share a home.
    """

    def __init__(
        self, settings: Settings, workers: Workers, say: Say, hear: Say, *, logs_as: str = ""
    ) -> None:
        self.settings = settings
        self.logs = settings.paths.logs_dir
        self._logs_as = logs_as
        self.workers = workers
        self._say = say
        self._listener = listen(settings.host, settings.port)
        self.url = url_of(self._listener)
        token = settings.token.get_secret_value() if settings.token else None
        self.client = Client(self.url, token, timeout=_CALL_SECONDS)
        self._supervisor = Supervisor(say, hear, environment(settings, self.url, workers))
        self._problems: dict[str, str | None] = {}
        self._served = False
        self._look_at = 0.0

    def __enter__(self) -> "System":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            self.stop(hurry=lambda: kind is not None)
        finally:
            self._supervisor.close()
            self.client.__exit__(kind, error, tb)
            self._listener.close()

    def start(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Start the orchestrator, and the workers once it answers. CommandError if it does not."""
        fd = self._listener.fileno()
        command = autoresearch("serve", "--listen-fd", str(fd))
        log = self.log_of(ORCHESTRATOR)
        self._supervisor.start(Program(ORCHESTRATOR, command, log, pass_fds=(fd,)))
        deadline = time.monotonic() + _START_SECONDS
        while not self.client.alive(patience=0.5):
            if interrupted():
                return
            # Its words are shown by `poll`; a first start that fails will fail again.
            running = ORCHESTRATOR in self._supervisor.running()
            self._supervisor.pass_on()
            if not running or time.monotonic() > deadline:
                what = "does not answer" if running else "could not start"
                raise CommandError(f"the orchestrator {what}; its log is {log}")
        for name, gpu in self.workers.gpus.items():
            self._supervisor.start(
                Program(name, autoresearch("worker", "--gpu", gpu), self.log_of(name))
            )

    def poll(self) -> None:
        """Look after the children; call a few times a second."""
        self._supervisor.poll()
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _PROBLEMS_SECONDS
            self._tell_problems()

    def lost(self) -> str | None:
        """Why going on makes no sense, if so."""
        gone = self._supervisor.hopeless()
        if ORCHESTRATOR in gone:
            return f"the orchestrator ended; its log is {self.log_of(ORCHESTRATOR)}"
        ours = self.workers.gpus
        # Others may serve the same Redis, and have the GPUs that ours could not get.
        if ours and all(name in gone for name in ours) and not self._served:
            return f"no worker is left; their logs are in {self.logs}"
        return None

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Workers first, so that they can hand their runs back; then the orchestrator."""
        patience = self.workers.drain_seconds + _DRAIN_MARGIN_SECONDS
        self._supervisor.stop(list(self.workers.gpus), patience, hurry)
        # It needs but a moment, and is not to be hurried out of stopping its Redis server.
        self._supervisor.stop([ORCHESTRATOR], _SERVE_STOP_SECONDS)

    def log_of(self, name: str) -> Path:
        return self.logs / f"{self._logs_as}{name}.log"

    def _tell_problems(self) -> None:
        """Say why a worker takes no runs, each reason once."""
        try:
            workers = self.client.pool().workers
        except (UnreachableError, CommandError):
            return  # it is being started again; `poll` says so
        self._served = any(worker.status in ("idle", "training") for worker in workers)
        for worker in workers:
            new = worker.problem != self._problems.get(worker.id)
            if worker.problem and new and worker.status != "offline":
                self._say(worker.id, f"takes no runs: {worker.problem}")
            self._problems[worker.id] = worker.problem


def environment(settings: Settings, url: str, workers: Workers) -> dict[str, str]:
    """This process' environment with the settings in it, for children."""
    made = dict(os.environ) | workers.environment
    for name in type(settings).model_fields:
        text = _text(getattr(settings, name))
        if text is not None:
            made["REDIS_URL" if name == "redis_url" else f"AUTORESEARCH_{name.upper()}"] = text
    return made | {"AUTORESEARCH_ORCHESTRATOR": url, "PYTHONUNBUFFERED": "1"}


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, tuple):
        return ",".join(value)
    reveal = getattr(value, "get_secret_value", None)
    return str(reveal() if reveal else value)
