"""What long-running commands need of the operating system: sockets, signals, limits, the parent."""

import contextlib
import errno
import logging
import math
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import httpx

from orchestrator.cli.errors import ConfigError

_BACKLOG = 2048
# Each worker holds two or three connections, and many systems begin with a limit of 1 024 files.
_OPEN_FILES = 65_536
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A launcher such as `uv run` passes on a Ctrl-C that we get from the terminal too: within this
# time, a second signal is taken for the same one.
_ECHO_SECONDS = 0.3
PARENT_PIPE = "AUTORESEARCH_PARENT_PIPE"
_log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket (port 0: a free one). ConfigError says who has it and what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(f"--host {host} is no address of this machine: {error}") from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        why = f"cannot listen on {host} port {port}: {error.strerror or error}."
        if error.errno == errno.EADDRINUSE:
            why = f"port {port} on {host} is taken by {_who_answers(host, port)}"
        if error.errno == errno.EACCES:
            why = f"port {port} needs privileges: choose one above 1023 with --port."
        raise ConfigError(why) from error
    return listener


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """The URL under which this machine reaches what listens there."""
    host, port, *_ = listener.getsockname()
    return _local_url(host, port, scheme)


def _local_url(host: str, port: int, scheme: str = "http") -> str:
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _who_answers(host: str, port: int) -> str:
    """A taken port's holder, judged by its answer to GET /healthz."""
    other = "choose another with --port, or --port 0 for a free one."
    url = _local_url(host.strip("[]"), port)
    try:
        response = httpx.get(f"{url}/healthz", timeout=2, trust_env=False)
        body = response.json() if response.is_success else None
    except httpx.TransportError:
        return f"another program, which speaks no HTTP: end it, or {other}"
    except ValueError:
        body = None
    if isinstance(body, dict) and body.get("service") == "autoresearch":
        return (
            f"another autoresearch orchestrator ({url}): use that one (`autoresearch status`), "
            f"end it, or {other}"
        )
    return f"another web server: end it, or {other}"


class Stops:
    """How often this process was told to stop. The first time asks, the second time presses."""

    def __init__(self) -> None:
        self.count = 0
        self._told_at = -math.inf

    def asked(self) -> bool:
        return self.count > 0

    def pressed(self) -> bool:
        return self.count > 1

    def add(self) -> bool:
        """Count a signal; False if it only repeats the last one."""
        now = time.monotonic()
        new = now - self._told_at > _ECHO_SECONDS
        self.count += new
        self._told_at = now
        return new

    @contextlib.contextmanager
    def counted(self) -> Iterator["Stops"]:
        """Count stop signals inside the block; they do not end the process."""
        with _handled(lambda *_: self.add()):
            yield self


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside the block SIGTERM and SIGHUP raise a KeyboardInterrupt, as SIGINT does. Only the first
    signal does, so that no other one ends the cleanup."""

    def stop(number: int, _: FrameType | None) -> None:
        for each in _STOP_SIGNALS:
            signal.signal(each, lambda *_: None)
        raise KeyboardInterrupt(number)

    with _handled(stop):
        yield


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def watch_parent() -> None:
    """Stop as for SIGTERM when the parent ends, kill -9 included.

    Standard input is a pipe whose writing end the parent holds and never writes to: it reads as
    ended when the parent has ended. Without `PARENT_PIPE` in the environment this does nothing.
    """
    # Not passed on: what this process starts has another standard input.
    if os.environ.pop(PARENT_PIPE, "") == "stdin":
        threading.Thread(target=_await_parents_end, name="parent-watch", daemon=True).start()


def _await_parents_end() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def allow_open_files(wanted: int = _OPEN_FILES) -> None:
    """Raise this process's limit on open files to `wanted`, or as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:  # macOS has a limit below the hard one
        _log.warning("no more than %d open files (`ulimit -n`): %s", soft, error)
