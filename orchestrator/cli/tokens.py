"""`autoresearch token`: tokens with roles."""

import re
from typing import Annotated

import typer

from orchestrator import schemas
from orchestrator.cli.client import Client
from orchestrator.cli.errors import ConfigError
from orchestrator.cli.options import add_command, load_model
from orchestrator.cli.output import note, respond
from orchestrator.cli.tables import moment, plain

token = typer.Typer(
    help="Make, list and revoke tokens with roles: agent, worker, read, admin.",
    no_args_is_help=True,
    add_completion=False,
)

By = Annotated[str, typer.Option(metavar="NAME", help="Who does it, for the ledger.")]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def create(
    client: Client,
    *,
    role: Annotated[str, typer.Option(metavar="ROLE", help="agent, worker, read or admin.")],
    label: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name in lists and in the ledger.")
    ] = None,
    tags: Annotated[
        str | None, typer.Option(metavar="TAGS", help="Only for these, with commas.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="After this time, such as 12h or 30d.")
    ] = None,
    by: By = "human",
    json: bool,
) -> None:
    """The secret is shown once, alone on stdout. Callers set AUTORESEARCH_TOKEN to it."""
    request = load_model(
        schemas.CreateTokenRequest,
        role=role,
        label=label,
        tags=[tag.strip() for tag in tags.split(",")] if tags else [],
        expires_in_seconds=_seconds(expires) if expires else None,
        by=by,
    )
    made = client.post("/api/token/create", schemas.CreateTokenAnswer, request)
    respond(json, made, made.secret)
    if not json:
        note(f"token {made.token.label}, {_rights(made.token)}; it is not shown again")


def list_tokens(client: Client, *, json: bool) -> None:
    found = client.get("/api/token/list", schemas.TokensAnswer)
    table = plain("label", "role", "tags", "created", "expires")
    for each in found.tokens:
        expires = moment(each.expires_at) if each.expires_at else "never"
        tags = ", ".join(each.tags or ["all"])
        table.add_row(each.label, each.role, tags, moment(each.created_at), expires)
    respond(json, found, table)


def revoke(
    client: Client,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="As `token list` has it.")],
    *,
    by: By = "human",
    json: bool,
) -> None:
    request = load_model(schemas.RevokeTokenRequest, label=label, by=by)
    respond(
        json,
        client.post("/api/token/revoke", schemas.RevokeTokenAnswer, request),
        f"{label} is revoked",
    )


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise ConfigError(f"--expires {text}: a number with s, m, h or d, such as 12h or 30d")
    return int(found[1]) * _UNITS[found[2]]


def _rights(made: schemas.Token) -> str:
    until = f", until {made.expires_at}" if made.expires_at else ""
    return f"{made.role} for {', '.join(made.tags or ['all tags'])}{until}"


add_command(token, create, "Make a token. Its secret is shown once.")
add_command(token, list_tokens, "All tokens, oldest first, without their secrets.", "list")
add_command(token, revoke, "End a token, within a second everywhere.")
