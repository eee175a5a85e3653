"""From flags and `AUTORESEARCH_*` variables to settings; a flag wins over its variable.

Errors name both, so that the reader knows what to change. Nothing here starts anything.
"""

import ipaddress
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings

from orchestrator.cli.client import Client
from orchestrator.cli.errors import ConfigError
from orchestrator.settings import DEFAULT_URL, HomeSettings, Settings

AnySettings = TypeVar("AnySettings", bound=BaseSettings)
AnyModel = TypeVar("AnyModel", bound=BaseModel)


class ClientSettings(HomeSettings):
    """What a command needs to reach the orchestrator."""

    orchestrator: str = DEFAULT_URL


def load(kind: type[AnySettings], **flags: Any) -> AnySettings:
    """Settings of `kind`; a flag that is None was not given. ConfigError names what is wrong."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ConfigError(f"{_name(first['loc'])}: {first['msg']}") from error


def load_model(kind: type[AnyModel], **fields: Any) -> AnyModel:
    """A request body from a command's arguments; ConfigError names the argument that is wrong."""
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "arguments"
        raise ConfigError(f"{where}: {first['msg']}") from error


def _name(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "settings"
    if name.lower() == "redis_url":
        return "--redis-url (REDIS_URL)"
    return f"--{name.replace('_', '-')} (AUTORESEARCH_{name.upper()})"


def client_settings(orchestrator: str | None = None, token: str | None = None) -> ClientSettings:
    """Which orchestrator the flags or the environment name."""
    settings = load(ClientSettings, orchestrator=orchestrator, token=token)
    url = settings.orchestrator
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"--orchestrator (AUTORESEARCH_ORCHESTRATOR): '{url}' is no URL such as {DEFAULT_URL}"
        )
    return settings


def connect(orchestrator: str | None = None, token: str | None = None) -> Client:
    """A client for the orchestrator that the flags or the environment name."""
    settings = client_settings(orchestrator, token)
    token = settings.token.get_secret_value() if settings.token else None
    return Client(settings.orchestrator, token)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refuse_open_address(settings: Settings) -> None:
    """ConfigError for an address that others can reach while nothing asks them who they are."""
    if is_loopback(settings.host) or settings.token or settings.no_token:
        return
    raise ConfigError(
        f"--host {settings.host} lets other machines in, and whoever submits a train.py runs code "
        "here: set AUTORESEARCH_TOKEN, or say --no-token if the network around it is trusted."
    )
