"""The table of commands, and the one place that imports a command's module when it is needed.

The top-level `--help` reads names and help lines from the table, so it imports no command.
"""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

# Name: module below orchestrator.cli, first line of the help.
COMMANDS = {
    "demo": ("run.demo", "A search from nothing to a chart: a built-in agent tunes train.py."),
    "up": ("run.up", "Run everything here: Redis, orchestrator, a worker for each GPU or the CPU."),
    "serve": ("run.serve", "Run the orchestrator alone, with its own Redis unless told otherwise."),
    "worker": ("run.up", "Run queued experiments on a GPU (or the CPU) until stopped."),
    "fleet": ("fleet", "Workers on the machines of a cluster, placed by its scheduler."),
    "setup": ("reports", "Create a tag: one search, whose runs all have the same training time."),
    "submit": ("experiments", "Queue a train.py. With --wait: its verdict."),
    "status": ("reports", "GPUs and tags at a glance; the numbers of a tag, or one experiment."),
    "watch": ("watch", "The search as it goes: GPUs, queue, best, learning curve, verdicts."),
    "log": ("experiments", "What a run printed, as sanitized lines; with -f, on to its verdict."),
    "wait": ("experiments", "Wait until an experiment is decided; the exit code is the verdict."),
    "cancel": ("steer", "Take an experiment out of the queue, or have its worker stop it."),
    "requeue": ("steer", "Put a running experiment back into the queue, or repeat a decided one."),
    "priority": ("steer", "Give a queued experiment another place. A negative N goes after `--`."),
    "pause": ("steer", "Start none of a tag's runs until it is resumed. Those that run go on."),
    "resume": ("steer", "Let a paused tag's runs start again."),
    "race": ("steer", "Let a tag keep by `race` from now on, starting from its best so far."),
    "note": ("steer", "Leave a note that every agent of the tag gets with its next `suggest`."),
    "notes": ("steer", "The notes that agents of a tag get, newest first."),
    "drain": ("steer", "Give a GPU no new run until it is undrained. Its present run goes on."),
    "undrain": ("steer", "Give a drained GPU runs again."),
    "ledger": ("steer", "Who steered what, when and why, newest first."),
    "token": ("tokens", "Make, list and revoke tokens with roles: agent, worker, read, admin."),
    "best": ("reports", "The best experiment of a tag, and its train.py to go on from."),
    "history": ("reports", "The experiments of a tag, oldest first."),
    "export": ("export", "Write a tag's experiments (jsonl, parquet, tsv) or its journal."),
    "chart": ("export", "Draw a tag's progress as a picture: every run, and the best so far."),
    "diff": ("reports", "What one experiment measured and changed against another."),
    "mcp": ("run.serve", "Serve the agent's tools over stdio, by the Model Context Protocol."),
    "audit": ("state", "Recompute the state from the journal; exit code 1 if it differs."),
    "backup": ("state", "Write the whole state to one file: experiments, sources, logs, curves."),
    "restore": ("state", "Put a backup back, into an empty Redis and a home."),
    "doctor": ("run.doctor", "Check this machine, and say what to do about what fails."),
    "mirror": ("mirror", "Tell decided runs to other programs, after the fact."),
}


class LazyGroup(TyperGroup):
    """Lists the table's commands; imports the one that is invoked, or whose help is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, (_, help_line) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=help_line))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load(name or ""), rest


def load(name: str) -> Any:
    """The command with its flags: a function of its module, or a Typer group of the same name."""
    from orchestrator.cli.options import add_command

    module, help_line = COMMANDS[name]
    found = getattr(import_module(f"orchestrator.cli.{module}"), name)
    if isinstance(found, typer.Typer):
        return typer.main.get_group(found)  # `get_command` would offer to install completion
    alone = typer.Typer(add_completion=False)
    add_command(alone, found, help_line, name)
    return typer.main.get_command(alone)


app = typer.Typer(
    name="autoresearch",
    cls=LazyGroup,
    help="Autonomous LLM-training experiments on N GPUs: a queue, leases, exactly-once verdicts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"autoresearch {version_of('n-autoresearch')}")
        raise typer.Exit
