"""The flags that several commands share, declared once.

A settings class has one flag a field; the tables here name and explain them without importing the
class, so that `--help` stays quick. A test holds the tables against the classes.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer


@dataclass(frozen=True)
class Flag:
    """`--name-with-dashes` for the settings field `name`; `metavar` None makes it a switch."""

    name: str
    metavar: str | None
    help: str
    variable: str = ""

    @property
    def annotation(self) -> Any:
        kind = str | None if self.metavar else bool
        variable = self.variable or f"AUTORESEARCH_{self.name.upper()}"
        option = typer.Option(
            f"--{self.name.replace('_', '-')}",
            metavar=self.metavar,
            help=f"{self.help} (env {variable})",
            rich_help_panel="Settings",
        )
        return Annotated[kind, option]


HOME = Flag("home", "FOLDER", "Where everything that the system keeps lies.")
TOKEN = Flag("token", "TOKEN", "Bearer token that each call must carry; `ps` shows flags.")
ORCHESTRATOR = Flag("orchestrator", "URL", "Where the orchestrator is.")

SERVE_FLAGS = (
    Flag("host", "ADDRESS", "Address to listen on, 127.0.0.1 by default."),
    Flag("port", "PORT", "Port to listen on, 3111 by default; 0 takes a free one."),
    HOME,
    TOKEN,
    Flag("no_token", None, "Let other machines in without a token."),
    Flag("allowed_hosts", "NAMES", "Further host names it may be called by, with commas."),
    Flag("redis_url", "URL", "An external Redis; `ps` shows flags.", variable="REDIS_URL"),
    Flag("repo", "FOLDER", "Git repository in which a submitted commit_sha is looked up."),
    Flag("prepare_py", "FILE", "The prepare.py that new tags are tied to."),
    Flag("lease_seconds", "SECONDS", "How long a silent worker keeps its run."),
    Flag("heartbeat_seconds", "SECONDS", "How often workers speak up."),
    Flag("offline_seconds", "SECONDS", "After how long a silent worker is shown as offline."),
    Flag("grace_seconds", "SECONDS", "What a run may take beyond its training budget."),
    Flag("redis_timeout_seconds", "SECONDS", "How long a call to Redis may take."),
)

# Of commands that look at the state itself, with or without an orchestrator.
STATE_FLAGS = tuple(
    f for f in SERVE_FLAGS if f.name in ("home", "redis_url", "redis_timeout_seconds")
)

WORKER_FLAGS = (
    ORCHESTRATOR,
    HOME,
    Flag("token", "TOKEN", "The orchestrator's token; `ps` shows flags."),
    Flag("gpu", "GPU", "A GPU's index, all, cpu, or auto: the first GPU, else the CPU."),
    Flag("gpu_id", "NAME", "Another name for the worker, if there is but one."),
    Flag("launcher", "COMMAND", "What runs train.py instead of `uv run`, such as python3."),
    Flag("project", "FOLDER", "Where prepare.py and the training environment are."),
    Flag("cache", "FOLDER", "Where the training data are, ~/.cache/autoresearch by default."),
    Flag("isolation", "KIND", "auto, bwrap (a PID namespace for each run) or direct."),
    Flag("check", "BOOLEAN", "false leaves out the check of the training data."),
    Flag("recheck_seconds", "SECONDS", "How often that check is made while it fails."),
    Flag("claim_wait_seconds", "SECONDS", "How long one call for work waits."),
    Flag("drain_timeout", "SECONDS", "How long a run may go on once the worker must stop."),
    Flag("kill_after_seconds", "SECONDS", "How long after SIGTERM a run is killed."),
    Flag("log_limit_bytes", "BYTES", "How much of a run's output is kept."),
    Flag("free_space_bytes", "BYTES", "With less disk than this, no run is taken."),
    Flag("lock_dir", "FOLDER", "Where the locks on GPUs are; one for the whole host."),
)
# `up` decides where its workers' orchestrator is.
UP_FLAGS = SERVE_FLAGS + tuple(
    f for f in WORKER_FLAGS if f.name not in ("orchestrator", "home", "token")
)


def takes_settings(flags: Sequence[Flag]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command those flags; it gets the ones that were given as the dict `flags`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**values: Any) -> None:
            given = {f.name: values.pop(f.name) for f in flags}
            # A switch that is off was not given.
            command(flags={n: v for n, v in given.items() if v not in (None, False)}, **values)

        own = [p for p in inspect.signature(command).parameters.values() if p.name != "flags"]
        added = [
            inspect.Parameter(
                f.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None if f.metavar else False,
                annotation=f.annotation,
            )
            for f in flags
        ]
        parameters = [*own, *added]
        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, errors too.")]
Url = Annotated[
    str | None,
    typer.Option("--orchestrator", metavar="URL", help=ORCHESTRATOR.help + " (env AUTORESEARCH_"
                 "ORCHESTRATOR)"),
]  # fmt: skip
Token = Annotated[
    str | None,
    typer.Option("--token", metavar="TOKEN", help="Its token. (env AUTORESEARCH_TOKEN)"),
]
Tag = Annotated[str, typer.Argument(metavar="TAG", help="Name of the search.")]
Experiment = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Its id, exp-….")]
