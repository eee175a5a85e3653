"""`autoresearch demo`: everything from nothing to a chart, with an agent that needs no LLM.

Composition: data, system, tag, search, files. What the agent thinks is in orchestrator/demo.
"""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.errors import ConfigError
from orchestrator.cli.options import UP_FLAGS, Json, takes_settings
from orchestrator.cli.worker import Cpu, with_cpu

# Nobody waits for the demo's run once the demo is told to stop.
_DRAIN_SECONDS = 1.0


@takes_settings(UP_FLAGS)
def demo(
    *,
    flags: dict[str, Any],
    experiments: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="How many; 10, or 3 without a GPU.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="Training time of each: 300, CPU 20."),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Its name, demo-DATE-TIME by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the agent's choices.")] = 0,
    train_py: Annotated[
        Path | None, typer.Option("--train-py", metavar="FILE", help="Another baseline.")
    ] = None,
    cpu: Cpu = False,
    json: Json = False,
) -> None:
    """Watch a search from nothing to a chart: a built-in agent tunes train.py, no LLM needed."""
    from orchestrator.cli.demonstration import Demonstration, Plan
    from orchestrator.cli.preparing import ensure_data, with_launcher
    from orchestrator.cli.serve import interruptible
    from orchestrator.cli.up import Stops, both_settings
    from orchestrator.cli.workers import plan

    defaults = {"port": 0, "drain_timeout": _DRAIN_SECONDS}
    settings, worker_settings = both_settings(defaults | with_cpu(flags, cpu=cpu))
    worker_settings = with_launcher(worker_settings)
    baseline = _read(train_py or worker_settings.project / "train.py")
    workers = plan(worker_settings)
    with interruptible():
        ensure_data(worker_settings)
    chosen = Plan(
        tag=tag or time.strftime("demo-%Y%m%d-%H%M%S"),
        baseline=baseline,
        wanted=experiments or (3 if workers.on_cpu else 10),
        budget=budget or (20.0 if workers.on_cpu else 300.0),
        seed=seed,
    )
    with Stops().counted() as stops:
        Demonstration(chosen, settings, workers, stops).run(as_json=json)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror or error}): run inside a checkout, or name a "
            "baseline with --train-py"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from error
