"""Starts the processes under test and reads what they cost. Each is ended by its own pid."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from bench.harness.ports import free_port
from orchestrator.valkey import server_binary

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0


@dataclass(frozen=True)
class Process:
    """A server process: where it listens, and its CPU clock."""

    pid: int
    port: int = 0

    def cpu_seconds(self) -> float:
        """User and system time so far, of all its threads, to the nanosecond.

        The clock behind clock_getcpuclockid(3); /proc/PID/stat counts the same in steps of 10 ms.
        """
        return time.clock_gettime((~self.pid << 3) | 2)

    def resident_mb(self) -> float:
        fields = Path(f"/proc/{self.pid}/statm").read_text("ascii").split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class RedisProcess(Process):
    url: str = ""

    def client(self) -> Any:
        """A client; untyped, since redis-py types every answer as a union over text and bytes."""
        return redis.Redis.from_url(self.url, decode_responses=True)


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End exactly this process when the block is left."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def redis_server(folder: Path, appendonly: bool = True) -> Iterator[RedisProcess]:
    """A server with the durability that is shipped (AOF, fsync always), on a Unix socket."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "redis.sock"
    command = [
        server_binary(), "--port", "0", "--unixsocket", str(path), "--dir", str(folder),
        "--save", "", "--appendonly", "yes" if appendonly else "no", "--appendfsync", "always",
        "--maxmemory-policy", "noeviction", "--hash-max-ziplist-value", "4096",
    ]  # fmt: skip
    with ended(subprocess.Popen(command, stdout=subprocess.DEVNULL)) as process:
        server = RedisProcess(process.pid, url=f"unix://{path}?db=0")
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(redis.ConnectionError), server.client() as client:
                client.ping()
                break
            if time.monotonic() > deadline:
                raise SystemExit("the Redis server did not start")
            time.sleep(0.02)
        yield server


@contextlib.contextmanager
def orchestrator(
    server: RedisProcess, home: Path, listener: socket.socket | None = None, **flags: object
) -> Iterator[Process]:
    """The product as it is shipped: `autoresearch serve`. `listener` shares one port among many."""
    sock = listener or listening()
    command = [
        sys.executable, "-m", "orchestrator.cli", "serve", "--json", "--home", str(home),
        "--redis-url", server.url, "--listen-fd", str(sock.fileno()),
        *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items()),
    ]  # fmt: skip
    with _started(command, home.parent, {}, (sock.fileno(),)) as process:
        assert process.stdout is not None
        if not process.stdout.readline():  # it prints a line once it listens
            process.wait()
            _check(process, home.parent)
        yield Process(process.pid, sock.getsockname()[1])
    if listener is None:
        sock.close()


@contextlib.contextmanager
def application(name: str, folder: Path, **environment: str) -> Iterator[Process]:
    """An ASGI application of this benchmark, under uvicorn with the product's settings."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", name, "--port", str(port), "--no-access-log",
        "--log-level", "warning", "--lifespan", "on", "--ws", "none", "--no-server-header",
        "--no-proxy-headers", "--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "1",
    ]  # fmt: skip
    with _started(command, folder, environment) as process:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            _check(process, folder, alive=time.monotonic() < deadline)
            time.sleep(0.02)
        yield Process(process.pid, port)


@contextlib.contextmanager
def _started(
    command: list[str], folder: Path, environment: dict[str, str], fds: tuple[int, ...] = ()
) -> Iterator["subprocess.Popen[bytes]"]:
    folder.mkdir(parents=True, exist_ok=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AUTORESEARCH_", "REDIS_"))}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=clean | environment,
            pass_fds=fds,
        )
    with ended(process):
        yield process


def _check(process: "subprocess.Popen[bytes]", folder: Path, *, alive: bool = True) -> None:
    if not alive or process.poll() is not None:
        log = (folder / "server.log").read_text("utf-8")
        raise SystemExit(f"a server did not start ({process.args!r}):\n{log}")


def listening() -> socket.socket:
    """A listening socket on a free port, which a server process inherits."""
    # Named TCP, or asyncio leaves Nagle's algorithm on.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    return sock
