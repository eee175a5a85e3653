"""`autoresearch serve`: the orchestrator, and the embedded Redis server where no URL names one.

Composition only: listening socket, server lease, application, signals. Workers are not its affair.
"""

import contextlib
import gc
import logging
import math
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from orchestrator.cli import lifeline
from orchestrator.cli.errors import CommandError
from orchestrator.cli.options import SERVE_FLAGS, Json, takes_settings
from orchestrator.cli.output import answer, write_json

if TYPE_CHECKING:
    from fastapi import FastAPI

    from orchestrator.embedded import EmbeddedServer
    from orchestrator.settings import Settings

_SHUTDOWN_SECONDS = 2
# Workers speak up every few seconds on one connection, which must not close in between.
_KEEP_ALIVE_SECONDS = 75
_WATCHDOG_SECONDS = 1.0
# Each worker holds two or three connections, and many systems begin with a limit of 1 024 files.
_OPEN_FILES = 65_536
# gc's thresholds: Python's own look through everything ten times as often.
_COLLECT_EVERY = (5_000, 10, 20)
ECHO_SECONDS = 0.3
_log = logging.getLogger(__name__)


@takes_settings(SERVE_FLAGS)
def serve(
    *,
    flags: dict[str, Any],
    access_log: Annotated[bool, typer.Option("--access-log", help="Log every request.")] = False,
    json: Json = False,
    listen_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the orchestrator alone, with its own Redis server unless --redis-url names one."""
    lifeline.hold()
    from orchestrator.cli.config import load, refuse_open_address
    from orchestrator.cli.ports import listen, url_of
    from orchestrator.settings import Settings

    settings = load(Settings, **flags)
    refuse_open_address(settings)
    log_to_stderr()
    listener = (
        listen(settings.host, settings.port)
        if listen_fd is None
        else socket.socket(fileno=listen_fd)
    )
    with listener:
        url = url_of(listener)

        def announce() -> None:
            redis = redis_place(settings)
            if json:
                write_json({"url": url, "home": str(settings.home), "redis": redis})
            else:
                answer(f"orchestrator ready on {url} (home {settings.home}, Redis {redis})")

        run_server(settings, listener, announce, access_log=access_log)


def run_server(
    settings: "Settings",
    listener: socket.socket,
    announce: Callable[[], None],
    *,
    access_log: bool,
) -> None:
    """Serve until SIGINT or SIGTERM; SetupError or CommandError when it cannot start."""
    from orchestrator.app import create_app

    allow_open_files()
    try:
        with interruptible(), redis_for(settings) as ready:
            _serve_app(create_app(ready), listener, announce, access_log=access_log)
    except KeyboardInterrupt:
        _log.info("stopped")


def allow_open_files(wanted: int = _OPEN_FILES) -> None:
    """Raise this process's limit on open files to `wanted`, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:  # macOS has a limit below the hard one
        _log.warning("no more than %d open files (`ulimit -n`): %s", soft, error)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the block as SIGINT does, by a KeyboardInterrupt."""

    def stop(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def redis_for(settings: "Settings") -> "Iterator[Settings]":
    """The settings with the URL of a Redis server that runs while the block does."""
    if settings.redis_url is not None:
        yield settings
        return
    from pydantic import SecretStr

    from orchestrator.embedded import EmbeddedServer

    server = EmbeddedServer(settings.paths)
    url = server.acquire()
    try:
        with _kept_running(server):
            yield settings.model_copy(update={"redis_url": SecretStr(url)})
    finally:
        server.release()


def redis_place(settings: "Settings") -> str:
    """Where Redis is, in words that hold no password."""
    if settings.redis_url is None:
        return f"{settings.paths.redis_dir} (embedded)"
    parts = urlsplit(settings.redis_url.get_secret_value())
    where = (
        unquote(parts.path) if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
    )
    return f"{parts.scheme}://{where}"


@contextlib.contextmanager
def _kept_running(server: "EmbeddedServer") -> Iterator[None]:
    """Bring the embedded server back whenever its process is gone."""
    from orchestrator.errors import SetupError

    over = threading.Event()

    def watch() -> None:
        said = ""
        while not over.wait(_WATCHDOG_SECONDS):
            try:
                if server.ensure_running():
                    _log.warning("the embedded Redis server was gone and has been started again")
                said = ""
            except SetupError as error:
                if error.message != said:
                    _log.error("%s", error.message)
                said = error.message

    thread = threading.Thread(target=watch, name="redis-watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _serve_app(
    app: "FastAPI", listener: socket.socket, announce: Callable[[], None], *, access_log: bool
) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        _told_at = -math.inf

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _settle_memory()
                announce()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.end_long_polls()  # or the polls hold us up, and end in tracebacks
            await super().shutdown(sockets)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # One Ctrl-C comes twice where a launcher passes it on, and is no sign of impatience.
            now = time.monotonic()
            if now - self._told_at > ECHO_SECONDS:
                super().handle_exit(sig, frame)
            self._told_at = now

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=access_log,
        lifespan="on",
        loop="auto",  # uvloop
        ws="none",
        server_header=False,
        # Nobody stands before us whose word on the caller's address would count.
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = Server(config)
    # When it is done, uvicorn raises the signals that it got once more; it has obeyed them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, server.handle_exit)
    try:
        server.run(sockets=[listener])
    except SystemExit as end:
        raise CommandError("the orchestrator could not start; its log says why") from end
    _log.info("stopped")


def _settle_memory() -> None:
    """What is there by now stays: full collections need not go through it again and again. With
    thousands of open connections each held up everybody for 300 to 470 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_EVERY)


def log_to_stderr() -> None:
    """Our own words from INFO on, libraries' from WARNING on; one line each, with the time."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for library in ("uvicorn.error", "httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)
