"""The table of commands."""

from typing import Annotated

import typer

from orchestrator.cli import (
    chart,
    compare,
    demo,
    doctor,
    experiments,
    export,
    maintenance,
    mcp,
    mirror,
    reports,
    serve,
    steering,
    up,
    watch,
    worker,
)

app = typer.Typer(
    name="autoresearch",
    help="Autonomous LLM-training experiments on N GPUs: a queue, leases, exactly-once verdicts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(*, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from orchestrator.cli.output import answer

        answer(f"autoresearch {version('n-autoresearch')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version.",
            callback=lambda v: _version(wanted=v),
            is_eager=True,
        ),
    ] = False,
) -> None:
    pass


for command in (
    demo.demo,
    up.up,
    serve.serve,
    worker.worker,
    reports.setup,
    experiments.submit,
    reports.status,
    watch.watch,
    experiments.log,
    experiments.wait,
    experiments.cancel,
    steering.requeue,
    steering.priority,
    steering.pause,
    steering.resume,
    steering.note,
    steering.notes,
    steering.drain,
    steering.undrain,
    steering.ledger,
    reports.best,
    reports.history,
    export.export,
    chart.chart,
    compare.diff,
    mcp.mcp,
    maintenance.audit,
    maintenance.backup,
    maintenance.restore,
    doctor.doctor,
):
    app.command()(command)
app.add_typer(mirror.app)
