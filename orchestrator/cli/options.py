"""How command functions get their flags: `add_command` turns three of their parameters into flags.

- `client: Client` becomes --orchestrator, --token and --ca; the command gets the open client, and a
  refusal that concerns its `tag` is explained.
- `json: bool` becomes --json.
- `flags: …Flags` becomes one flag for each field of the settings classes; the command gets those
  that were given, by the field's name, for `load`.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from gpu_worker.settings import WorkerSettings
from orchestrator.cli.client import Client, explained
from orchestrator.cli.errors import ConfigError
from orchestrator.settings import DEFAULT_URL, CallerSettings, OrchestratorUrl, Settings

AnySettings = TypeVar("AnySettings", bound=BaseSettings)
AnyModel = TypeVar("AnyModel", bound=BaseModel)

_SHARED = ("home", "store", "redis_url", "redis_timeout_seconds")
_WORKERS = {
    name: field
    for name, field in WorkerSettings.model_fields.items()
    # `up` decides where its workers' orchestrator is.
    if name not in (*Settings.model_fields, "orchestrator")
}
ServeFlags = Annotated[dict[str, Any], Settings.model_fields]
WorkerFlags = Annotated[dict[str, Any], WorkerSettings.model_fields]
UpFlags = Annotated[dict[str, Any], Settings.model_fields | _WORKERS]
# Where the daemons are others' to place, each has another GPU.
_OWN = ("gpu", "gpu_id", "placement")
_PLACED = {n: f for n, f in WorkerSettings.model_fields.items() if n not in _OWN}
FleetFlags = Annotated[dict[str, Any], _PLACED]
# For commands that look at the state itself, with or without an orchestrator.
StateFlags = Annotated[dict[str, Any], {name: Settings.model_fields[name] for name in _SHARED}]

Cpu = Annotated[bool, typer.Option("--cpu", help="The same as --gpu cpu.")]
Tag = Annotated[str, typer.Argument(metavar="TAG", help="Name of the search.")]
Experiment = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Its id, exp-….")]
Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Where the orchestrator is. (env AUTORESEARCH_ORCHESTRATOR)"),
]
Token = Annotated[
    str | None, typer.Option(metavar="TOKEN", help="Its token. (env AUTORESEARCH_TOKEN)")
]
Ca = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Certificates to trust. (env AUTORESEARCH_CA)"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, errors too.")]


def _wired(command: Callable[..., None]) -> Callable[..., None]:
    """The command as a function whose parameters are all flags or arguments for Typer."""
    parameters = dict(inspect.signature(command).parameters)
    fields: Mapping[str, FieldInfo] = {}
    if (flags := parameters.pop("flags", None)) is not None:
        fields = flags.annotation.__metadata__[0]
    wants_client = parameters.pop("client", None) is not None
    wants_json = parameters.pop("json", None) is not None

    def run(*, json: bool, **values: Any) -> None:
        if fields:
            given = {name: values.pop(name) for name in fields}
            # A switch that is off was not given.
            values["flags"] = {n: v for n, v in given.items() if v not in (None, False)}
        if wants_json:
            values["json"] = json
        if not wants_client:
            command(**values)
            return
        with (
            connect(*(values.pop(name) for name in ("orchestrator", "token", "ca"))) as client,
            explained(client, values.get("tag")),
        ):
            command(client=client, **values)

    shown = [*parameters.values(), *(_flag(name, field) for name, field in fields.items())]
    if wants_client:
        shown += [_parameter("orchestrator", Url), _parameter("token", Token)]
        shown.append(_parameter("ca", Ca))
    shown.append(_parameter("json", Json, default=False))
    run.__annotations__ = {p.name: p.annotation for p in shown}
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return run


def add_command(
    group: typer.Typer, command: Callable[..., None], help_line: str, name: str | None = None
) -> None:
    """Add a command to a group; what its docstring says follows the line of help."""
    details = (command.__doc__ or "").strip()
    text = f"{help_line}\n\n{details}".strip()
    group.command(name or command.__name__, help=text)(_wired(command))


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    """`--name-with-dashes` for a settings field; a boolean that is off by default is a switch."""
    switch = field.annotation is bool and not field.default
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        metavar=None if switch else name.rpartition("_")[2].upper(),
        help=f"{field.description} (env {variable(name)})",
        rich_help_panel="Settings",
    )
    kind: Any = bool if switch else str | None
    return _parameter(name, Annotated[kind, option], default=False if switch else None)


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def variable(name: str) -> str:
    """The environment variable of a settings field."""
    return "REDIS_URL" if name == "redis_url" else f"AUTORESEARCH_{name.upper()}"


class ClientSettings(CallerSettings):
    """What a command needs to reach the orchestrator."""

    orchestrator: OrchestratorUrl = DEFAULT_URL


def load(kind: type[AnySettings], **flags: Any) -> AnySettings:
    """Settings of `kind`; a flag that is None was not given. ConfigError names the wrong one."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return kind(**given)
    except ValidationError as error:
        where, message = _first(error)
        name = where.lower() or "settings"
        flag = f"--{name.replace('_', '-')} ({variable(name)})"
        raise ConfigError(f"{flag}: {message}") from error


def load_model(kind: type[AnyModel], **fields: Any) -> AnyModel:
    """A request body from a command's arguments; ConfigError names the argument that is wrong."""
    try:
        return kind(**fields)
    except ValidationError as error:
        where, message = _first(error)
        raise ConfigError(f"{where or 'arguments'}: {message}") from error


def _first(error: ValidationError) -> tuple[str, str]:
    """The first field that is wrong, and why."""
    first = error.errors(include_url=False, include_context=False)[0]
    return str(first["loc"][0]) if first["loc"] else "", first["msg"].removeprefix("Value error, ")


def connect(
    orchestrator: str | None = None, token: str | None = None, ca: str | Path | None = None
) -> Client:
    """A client for the orchestrator that the flags or the environment name."""
    settings = load(ClientSettings, orchestrator=orchestrator, token=token, ca=ca)
    return Client(settings.orchestrator, secret(settings), ca=settings.ca)


def secret(settings: CallerSettings) -> str | None:
    """The token as plain text."""
    return settings.token.get_secret_value() if settings.token else None
