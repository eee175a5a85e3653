"""What a worker and the supervisor of its run say to each other, and how it is framed.

One JSON object a line over a Unix socket: first the worker's order, then its ticks (`I am alive`),
stops and `settled`; back come `ready` (before the order) or `hello` (to a worker that takes over),
`started` and `ended`. Everything that must outlive a process lies in files (folders.py).

Standard library only, and little of it: each run starts a supervisor, which starts with this. Hence
named tuples, for dataclasses import a parser of Python.
"""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

Message = dict[str, Any]

# How a run came to its end: by itself, past its deadline, because the worker said so, because no
# worker was there for a lease, or because somebody sent SIGTERM to the supervisor.
EndReason = Literal["exited", "deadline", "stopped", "orphaned", "terminated"]

# Why a worker stops a run. A worker that comes later learns it from the result.
StopReason = Literal["cancelled", "handed_back", "lease_lost", "gpu_lost"]


class Order(NamedTuple):
    """Everything a supervisor needs to know. Times in seconds, `run` is `<experiment>.<epoch>`.

    A run whose worker has said nothing for `orphan_seconds` is ended.
    """

    run: str
    folder: str
    workspace: str
    journal: str
    lock: str
    argv: list[str]
    env: dict[str, str]
    isolation: Literal["bwrap", "direct"]
    deadline_seconds: float
    kill_after_seconds: float
    orphan_seconds: float
    log_limit_bytes: int


class Result(NamedTuple):
    """How a run ended. `exit_code` is the launcher's, 128 + signal where a signal ended it.

    `ended` is the moment at which no process of the run was left, by the host's monotonic clock.
    `unwritten` is the end of its output where a full disk did not take it.
    """

    reason: EndReason
    exit_code: int | None
    seconds: float
    ended: float
    stop: StopReason | None = None
    oom_kills: int = 0
    dropped_bytes: int = 0
    problem: str | None = None
    unwritten: str = ""
    unkillable: Sequence[int] = ()

    def to_json(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Result":
        return cls(**json.loads(data))


def encode(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def encode_order(order: Order) -> bytes:
    return encode({"order": order._asdict()})


def stop(reason: StopReason, *, now: bool) -> Message:
    """`now`: without SIGTERM and the time it gives."""
    return {"stop": reason, "now": now}


class Lines:
    """Takes bytes as they come and gives whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        return [json.loads(line) for line in lines if line]


def receive_order(channel: socket.socket) -> Order | None:
    """Wait for the order; None when the worker went away without giving one."""
    lines = Lines()
    while data := channel.recv(65536):
        for message in lines.feed(data):
            return Order(**message["order"])
    return None


def listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with _short(path) as address:
        listener.bind(address)
    listener.listen()
    return listener


def connect(path: Path) -> socket.socket:
    """Raises OSError when nobody listens there."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        with _short(path) as address:
            connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Another name of `path`: a Unix socket's address holds 107 bytes, a home may be deeper."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
