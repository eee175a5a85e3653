"""`autoresearch up`: the whole system in the foreground; `worker`: the daemon of a GPU alone."""

import os
import time
from pathlib import Path
from typing import Any

import typer

from gpu_worker import hostcheck
from gpu_worker.settings import WorkerSettings
from orchestrator.cli.errors import INTERRUPTED, CommandError, ConfigError
from orchestrator.cli.options import Cpu, UpFlags, WorkerFlags, load
from orchestrator.cli.output import note, respond
from orchestrator.cli.run.process import Stops, watch_parent
from orchestrator.cli.run.serve import redis_place, refuse_open_address
from orchestrator.cli.run.system import System, plan_workers
from orchestrator.settings import DEFAULT_URL, Settings

_POLL_SECONDS = 0.2


def up(*, flags: UpFlags, cpu: Cpu = False, json: bool) -> None:
    settings, worker_settings = both_settings(with_cpu(flags, cpu=cpu))
    refuse_open_address(settings)
    workers = plan_workers(worker_settings)
    problem = hostcheck.project_problem(worker_settings.command, worker_settings.project)
    if worker_settings.check and problem:
        raise ConfigError(f"{problem}. `autoresearch serve` runs the orchestrator alone.")
    with Stops().counted() as stops, System(settings, workers, _say, _say) as system:
        system.start(stops.asked)
        if not stops.asked():
            facts = _facts(system, worker_settings)
            respond(json, facts, _announcement(facts))
        reason, said = None, False
        while not stops.asked() and reason is None:
            system.poll()
            reason = system.lost()
            if system.served and not said:
                said = True
                note("autoresearch is up: a worker takes runs")
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


def worker(*, flags: WorkerFlags, cpu: Cpu = False) -> None:
    watch_parent()
    settings = load(WorkerSettings, **with_cpu(flags, cpu=cpu))
    settings.paths.make_private()
    # Imported here because `up` and `demo` start workers and run none.
    if settings.gpu == "all":
        from gpu_worker.fleet import run_all

        raise typer.Exit(run_all(settings))
    from gpu_worker.daemon import run

    raise typer.Exit(run(settings))


def with_cpu(flags: dict[str, Any], *, cpu: bool) -> dict[str, Any]:
    """The flags with `--cpu` in them."""
    if not cpu:
        return flags
    if flags.get("gpu", "cpu") != "cpu":
        raise ConfigError(f"--cpu and --gpu {flags['gpu']} exclude each other")
    return flags | {"gpu": "cpu"}


def both_settings(flags: dict[str, Any]) -> tuple[Settings, WorkerSettings]:
    """The settings of the orchestrator and of its workers, which share the home."""
    fields = Settings.model_fields
    settings = load(Settings, **{n: v for n, v in flags.items() if n in fields})
    own = {n: v for n, v in flags.items() if n not in fields}
    return settings, load(WorkerSettings, home=settings.home, **own)


def _say(name: str, line: str) -> None:
    note(f"{name:<12} | {line}")


def _facts(system: System, worker_settings: WorkerSettings) -> dict[str, Any]:
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
    if url != DEFAULT_URL:
        rows["for commands"] = f"export AUTORESEARCH_ORCHESTRATOR={url}"
    head = "the orchestrator is up; each worker looks at its machine, then takes runs"
    return "\n".join([head, *(f"  {n:<14}{text}" for n, text in rows.items())])
