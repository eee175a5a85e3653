"""`autoresearch up`: the whole system in the foreground until Ctrl-C."""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.cli.errors import INTERRUPTED, CommandError
from orchestrator.cli.options import SERVE_FLAGS, UP_FLAGS, Json, takes_settings
from orchestrator.cli.output import answer, note, write_json
from orchestrator.cli.serve import ECHO_SECONDS
from orchestrator.cli.worker import Cpu, with_cpu

if TYPE_CHECKING:
    from gpu_worker.settings import WorkerSettings
    from orchestrator.cli.system import System
    from orchestrator.settings import Settings

_POLL_SECONDS = 0.2


class Stops:
    """How often this process was told to stop. The first asks, the second presses."""

    def __init__(self) -> None:
        self.count = 0
        self._told_at = -math.inf

    def asked(self) -> bool:
        return self.count > 0

    def pressed(self) -> bool:
        return self.count > 1

    @contextmanager
    def counted(self) -> Iterator["Stops"]:
        """Count SIGINT, SIGTERM and SIGHUP inside the block instead of dying of them."""

        def count(_: int, __: FrameType | None) -> None:
            # One Ctrl-C comes twice where a launcher passes it on, and is no sign of impatience.
            now = time.monotonic()
            if now - self._told_at > ECHO_SECONDS:
                self.count += 1
            self._told_at = now

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        previous = {number: signal.signal(number, count) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@takes_settings(UP_FLAGS)
def up(*, flags: dict[str, Any], cpu: Cpu = False, json: Json = False) -> None:
    """Run everything here: Redis, orchestrator and a worker for each GPU (or for the CPU)."""
    from orchestrator.cli.config import refuse_open_address
    from orchestrator.cli.system import System
    from orchestrator.cli.workers import plan

    settings, worker_settings = both_settings(with_cpu(flags, cpu=cpu))
    refuse_open_address(settings)
    workers = plan(worker_settings)
    with Stops().counted() as stops, System(settings, workers, _say, _say) as system:
        system.start(stops.asked)
        if not stops.asked():
            facts = _facts(system, worker_settings)
            write_json(facts) if json else answer(_announcement(facts))
        reason = None
        while not stops.asked() and reason is None:
            system.poll()
            reason = system.lost()
            time.sleep(_POLL_SECONDS)
        note(
            f"stopping: runs have {workers.drain_seconds:g} s to end, then they go back to the "
            "queue. Ctrl-C again hurries."
        )
        system.stop(stops.pressed)
        if reason is not None:
            raise CommandError(reason)
    note("stopped")
    if stops.pressed():
        raise typer.Exit(INTERRUPTED)


def both_settings(flags: dict[str, Any]) -> "tuple[Settings, WorkerSettings]":
    """The settings of the orchestrator and of its workers; what they share is the same in both."""
    from gpu_worker.settings import WorkerSettings
    from orchestrator.cli.config import load
    from orchestrator.settings import Settings

    served = {f.name for f in SERVE_FLAGS}
    settings = load(Settings, **{n: v for n, v in flags.items() if n in served})
    own = {n: v for n, v in flags.items() if n not in served}
    return settings, load(WorkerSettings, home=settings.home, **own)


def _say(name: str, line: str) -> None:
    note(f"{name:<12} | {line}")


def _facts(system: "System", worker_settings: "WorkerSettings") -> dict[str, Any]:
    from orchestrator.cli.serve import redis_place

    cache = worker_settings.cache or Path("~/.cache/autoresearch").expanduser()
    return {
        "url": system.url,
        "dashboard": f"{system.url}/",
        "workers": system.workers.described,
        "home": str(system.settings.home),
        "data": str(cache),
        "redis": redis_place(system.settings),
        "logs": str(system.logs),
        "pid": os.getpid(),
    }


def _announcement(facts: dict[str, Any]) -> str:
    url = facts["url"]
    rows = {
        "orchestrator": url,
        "workers": ", ".join(facts["workers"].values()),
        "home": facts["home"],
        "training data": facts["data"],
        "Redis": facts["redis"],
        "logs": facts["logs"],
        "try": f"curl {url}/api/pool/list",
        "stop": "Ctrl-C",
    }
    from orchestrator.settings import DEFAULT_URL

    if url != DEFAULT_URL:
        rows["for commands"] = f"export AUTORESEARCH_ORCHESTRATOR={url}"
    return "\n".join(["autoresearch is up", *(f"  {n:<14}{text}" for n, text in rows.items())])
