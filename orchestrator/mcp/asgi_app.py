"""`/mcp`: the tools over streamable HTTP, behind the same guard as the REST API.

The first request loads the protocol's library, which takes most of a second and which many services
never need. No sessions are kept, so any orchestrator can serve any request.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.errors import Unavailable
from orchestrator.guard import SUBMIT_LIMIT_BYTES
from orchestrator.routes import problems

if TYPE_CHECKING:
    import httpx
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

logger = logging.getLogger(__name__)

MCP_PATH = "/mcp"


class McpApp:
    """An ASGI application whose tools call `app` in this process. It needs `run` as a side task."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requested, self._started = asyncio.Event(), asyncio.Event()
        self._manager: StreamableHTTPSessionManager | None = None

    async def run(self) -> None:
        """Serve from the first request on, until cancelled. A failure ends /mcp only: workers and
        the dashboard do not use it."""
        await self._requested.wait()
        try:
            async with await anyio.to_thread.run_sync(_client, self._app) as http:
                manager = await anyio.to_thread.run_sync(_manager, http)
                async with manager.run():
                    self._manager = manager
                    self._started.set()
                    await anyio.sleep_forever()
        except Exception:
            logger.exception("%s is no longer served", MCP_PATH)
        finally:
            self._manager = None
            self._started.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._requested.set()
        await self._started.wait()
        if self._manager is None:
            error = Unavailable("MCP is not served here now; the orchestrator's log says why.")
            await problems.response(error, MCP_PATH)(scope, receive, send)
            return
        await self._manager.handle_request(scope, receive, send)


def _client(app: ASGIApp) -> "httpx.AsyncClient":
    """A client of the application itself, without a socket and without a credential."""
    import httpx

    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),
        base_url="http://127.0.0.1",
    )


def _manager(http: "httpx.AsyncClient") -> "StreamableHTTPSessionManager":
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from orchestrator.mcp.api import Api
    from orchestrator.mcp.server import build
    from orchestrator.mcp.tools import REMOTE

    return StreamableHTTPSessionManager(
        build(Api(http), REMOTE), stateless=True, max_request_body_size=SUBMIT_LIMIT_BYTES
    )
