"""`autoresearch fleet`: worker daemons on many machines, placed by an engine that is there already.

An engine starts daemons and starts them again. Which run a GPU gets is the orchestrator's to say,
whatever the engine does.
"""

import typer

from orchestrator.cli.fleet.ray import ray
from orchestrator.cli.fleet.slurm import slurm

fleet = typer.Typer(
    name="fleet",
    help="Worker daemons on the machines of a cluster, placed by its scheduler.",
    no_args_is_help=True,
)
fleet.add_typer(ray)
fleet.add_typer(slurm)
