"""`autoresearch worker`: the daemon of one GPU, or of all of a host's."""

from typing import Annotated, Any

import typer

from orchestrator.cli import lifeline
from orchestrator.cli.errors import ConfigError
from orchestrator.cli.options import WORKER_FLAGS, Json, takes_settings

Cpu = Annotated[bool, typer.Option("--cpu", help="The same as --gpu cpu.")]


@takes_settings(WORKER_FLAGS)
def worker(*, flags: dict[str, Any], cpu: Cpu = False, json: Json = False) -> None:  # noqa: ARG001  (main reads it)
    """Run queued experiments on a GPU (or the CPU) until told to stop."""
    lifeline.hold()
    from gpu_worker.settings import WorkerSettings
    from orchestrator.cli.config import load

    settings = load(WorkerSettings, **with_cpu(flags, cpu=cpu))
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
