"""Starts the processes under test and reads what they cost. Each is ended by its own pid."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import redis

from orchestrator.embedded import server_binary

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
    with _serving(command, sock, home.parent) as process:
        yield process
    if listener is None:
        sock.close()


@contextlib.contextmanager
def application(name: str, folder: Path, **environment: str) -> Iterator[Process]:
    """An ASGI application of this benchmark, under uvicorn with the product's settings."""
    with listening() as sock:
        command = [sys.executable, "-m", "bench.harness.serve", name, str(sock.fileno())]
        with _serving(command, sock, folder, **environment) as process:
            yield process


@contextlib.contextmanager
def _serving(
    command: list[str], sock: socket.socket, folder: Path, **environment: str
) -> Iterator[Process]:
    folder.mkdir(parents=True, exist_ok=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AUTORESEARCH_", "REDIS_"))}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=clean | environment,
            pass_fds=(sock.fileno(),),
        )
    with ended(process):
        assert process.stdout is not None
        _await_line(process, process.stdout, folder / "server.log")
        yield Process(process.pid, sock.getsockname()[1])


def _await_line(process: subprocess.Popen[bytes], stdout: IO[bytes], log: Path) -> None:
    """A server says one line of JSON once it listens."""
    line = stdout.readline()
    if not line:
        raise SystemExit(f"a server did not start ({process.args!r}):\n{log.read_text('utf-8')}")
    json.loads(line)


def listening() -> socket.socket:
    """A listening socket on a free port, which a server process inherits."""
    # Named TCP, or asyncio leaves Nagle's algorithm on.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    return sock
