"""`autoresearch mcp`: the agent's tools over stdio, for a coding agent that starts them itself."""

from typing import TYPE_CHECKING

import typer

from orchestrator.cli.errors import ConfigError
from orchestrator.cli.options import Json, Token, Url

if TYPE_CHECKING:
    from orchestrator.cli.config import ClientSettings


def mcp(*, orchestrator: Url = None, token: Token = None, json: Json = False) -> None:  # noqa: ARG001  (main reads it)
    """Serve the agent's tools over stdin and stdout, by the Model Context Protocol."""
    import anyio

    from orchestrator.cli.config import client_settings

    settings = client_settings(orchestrator, token)
    if typer.get_text_stream("stdin").isatty():
        raise ConfigError(
            "this speaks a protocol, not to people: name it to a coding agent, for example"
            " `claude mcp add autoresearch -- uv run autoresearch mcp`"
        )
    anyio.run(_serve, settings)


async def _serve(settings: "ClientSettings") -> None:
    import httpx
    from mcp.server.stdio import stdio_server

    from orchestrator.cli.config import is_loopback
    from orchestrator.mcp.api import Api
    from orchestrator.mcp.server import build
    from orchestrator.mcp.tools import LOCAL

    url = httpx.URL(settings.orchestrator)
    token = settings.token.get_secret_value() if settings.token else None
    async with httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {token}"} if token else {},
        # A proxy for the outside world knows nothing of this machine's own ports.
        trust_env=not is_loopback(url.host),
    ) as http:
        server = build(Api(http), LOCAL)
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
