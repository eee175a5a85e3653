"""`autoresearch serve`: the orchestrator; `autoresearch mcp`: the agent's tools over stdio.

Composition only. Workers are started elsewhere. FastAPI, uvicorn and the MCP library are imported
where they are used: they are slow to import, and other commands use this module's helpers.
"""

import contextlib
import gc
import logging
import math
import os
import signal
import socket
import string
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote, urlsplit

import anyio
import httpx
import typer
from pydantic import SecretStr

from gpu_worker import connection
from gpu_worker.streams import SafeFormatter
from orchestrator.cli.client import is_loopback
from orchestrator.cli.errors import CommandError, ConfigError
from orchestrator.cli.options import Ca, ClientSettings, ServeFlags, Token, Url, load, secret
from orchestrator.cli.output import respond
from orchestrator.cli.run.process import (
    Stops,
    allow_open_files,
    interruptible,
    listen,
    url_of,
    watch_parent,
)
from orchestrator.cli.text import visible
from orchestrator.embedded import EmbeddedServer, HomeGone
from orchestrator.errors import SetupError
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

_SHUTDOWN_SECONDS = 2
# Workers call every few seconds on one connection, which must not close in between.
_KEEP_ALIVE_SECONDS = 75
_WATCHDOG_SECONDS = 1.0
# For tokens that other machines may guess. A random one of so many bits repeats few characters.
_TOKEN_BITS = 128
_FEWEST_CHARACTERS = 8
_log = logging.getLogger(__name__)


def serve(
    *,
    flags: ServeFlags,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log every request.")] = False,
    listen_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    json: bool,
) -> None:
    watch_parent()
    settings = load(Settings, **flags)
    refuse_open_address(settings)
    settings.paths.make_private()
    log_to_stderr()
    inherited = None if listen_fd is None else socket.socket(fileno=listen_fd)
    listener = inherited or listen(settings.host, settings.port)

    def announce() -> None:
        url, redis = url_of(listener, settings.scheme), redis_place(settings)
        home = str(settings.home)
        files = settings.store or home
        place = f"files {files}" if settings.store else f"home {home}"
        text = f"orchestrator ready on {url} ({place}, Redis {redis})"
        respond(json, {"url": url, "home": home, "files": files, "redis": redis}, text)

    from orchestrator.app import create_app

    allow_open_files()
    with (
        listener,
        contextlib.suppress(KeyboardInterrupt),
        interruptible(),
        redis_for(settings) as ready,
    ):
        _run_server(create_app(ready), ready, listener, announce, access_log=access_log)
    _log.info("stopped")


def refuse_open_address(settings: Settings) -> None:
    """ConfigError for an address that other machines reach while no token is asked for, or one
    that they may guess, or one that they may overhear."""
    if is_loopback(settings.host):
        return
    opens, token = f"--host {settings.host} lets other machines in, and", secret(settings)
    if not settings.no_token and token is None:
        raise ConfigError(
            f"{opens} a submitted train.py runs code here: set AUTORESEARCH_TOKEN, or say "
            "--no-token if the network around it is trusted."
        )
    if not settings.no_token and token is not None and bits_of(token) < _TOKEN_BITS:
        raise ConfigError(
            f"{opens} they could guess AUTORESEARCH_TOKEN: it has fewer than {_TOKEN_BITS} bits. "
            "Make one with `openssl rand -hex 32`."
        )
    if not settings.tls_cert and not settings.insecure:
        raise ConfigError(
            f"{opens} plain HTTP shows tokens and sources to the network: give --tls-cert and "
            "--tls-key, or say --insecure if the network around it is trusted."
        )


def bits_of(token: str) -> float:
    """At most so many bits are in a token, by its length and the kinds of its characters."""
    if len(set(token)) < _FEWEST_CHARACTERS:
        return 0
    digits, lower = string.digits, string.digits + string.ascii_lowercase
    kinds = (digits, string.hexdigits[:16], lower, string.digits + string.ascii_letters)
    alphabet = next((k for k in kinds if set(token) <= set(k)), string.printable[:94])
    return len(token) * math.log2(len(alphabet))


def log_to_stderr() -> None:
    """Our own messages from INFO on, libraries' from WARNING on; one line each, with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(_SafeFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for library in ("uvicorn.error", "httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)


class _SafeFormatter(SafeFormatter):
    visible = staticmethod(visible)


def _run_server(
    app: "FastAPI",
    settings: Settings,
    listener: socket.socket,
    announce: Callable[[], None],
    *,
    access_log: bool,
) -> None:
    """Serve until a stop signal; CommandError when the application cannot start."""
    import uvicorn

    from orchestrator.connections import server_config

    stops = Stops()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await app.state.check_redis()
            await super().startup(sockets)
            if self.started:
                # Full collections need not look through what is loaded by now: with thousands of
                # connections each of them held up all requests for 300 to 470 ms.
                gc.collect()
                gc.freeze()
                gc.set_threshold(5_000, 10, 20)
                announce()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.end_long_polls()  # or they delay the shutdown and end in tracebacks
            await super().shutdown(sockets)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if stops.add():
                super().handle_exit(sig, frame)

    config = server_config(
        app,
        log_config=None,
        access_log=access_log,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        loop="auto",  # uvloop
        ws="none",
        server_header=False,
        proxy_headers=False,  # no proxy is in front that could be trusted about addresses
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = Server(config)
    # At its end uvicorn raises the signals it got once more, for the handlers from before.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, server.handle_exit)
    try:
        server.run(sockets=[listener])
    except SystemExit as end:
        raise CommandError("the orchestrator could not start; its log says why") from end


@contextlib.contextmanager
def redis_for(settings: Settings) -> Iterator[Settings]:
    """The settings with the URL of a Redis server that runs while the block does."""
    if settings.redis_url is not None:
        yield settings
        return
    server, over = EmbeddedServer(settings.paths), threading.Event()
    gone: list[HomeGone] = []
    watchdog = threading.Thread(target=_keep_running, args=(server, over, gone), daemon=True)
    with server as url:
        watchdog.start()
        try:
            yield settings.model_copy(update={"redis_url": SecretStr(url)})
        finally:
            over.set()
            watchdog.join()
    if gone:
        raise gone[0]


def _keep_running(server: EmbeddedServer, over: threading.Event, gone: list[HomeGone]) -> None:
    """Start the embedded server again when its process is gone, until `over` is set.

    Where its folder is gone, end this process as SIGTERM does, and put the reason into `gone`.
    """
    said = ""
    while not over.wait(_WATCHDOG_SECONDS):
        try:
            if server.ensure_running():
                _log.warning("the embedded Redis server was gone and has been started again")
            said = ""
        except HomeGone as error:
            gone.append(error)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        except SetupError as error:
            if error.message != said:
                _log.error("%s", error.message)
            said = error.message


def redis_place(settings: Settings) -> str:
    """Where Redis is, in words that hold no password."""
    if settings.redis_url is None:
        return f"{settings.paths.redis_dir} (embedded)"
    url = urlsplit(settings.redis_url.get_secret_value())
    if url.scheme == "unix":
        return f"unix://{unquote(url.path)}"
    if url.scheme.endswith("+sentinel"):
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
    return f"{url.scheme}://{url.hostname}:{url.port or 6379}"


def mcp(*, orchestrator: Url = None, token: Token = None, ca: Ca = None) -> None:
    settings = load(ClientSettings, orchestrator=orchestrator, token=token, ca=ca)
    if sys.stdin.isatty():
        raise ConfigError(
            "this speaks a protocol, not to people: name it to a coding agent, for example"
            " `claude mcp add autoresearch -- uv run autoresearch mcp`"
        )
    anyio.run(_serve_mcp, settings)


async def _serve_mcp(settings: ClientSettings) -> None:
    from mcp.server.stdio import stdio_server

    from orchestrator.mcp.api import Api
    from orchestrator.mcp.server import build
    from orchestrator.mcp.tools import LOCAL

    options = connection.options(settings.orchestrator, secret(settings), settings.ca)
    async with httpx.AsyncClient(**options) as http:
        server = build(Api(http), LOCAL)
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
