"""The protocol between a worker and the supervisor of its run: JSON lines over a Unix socket.

The worker sends `order` first, then `tick` (the worker is alive), `stop` and `settled`. The
supervisor sends `ready` (before the order) or `hello` (to a worker that adopts the run), then
`started` and `ended`. A worker may adopt a supervisor of an older version, so the names of
messages, fields and reasons stay. Standard library only, and little of it, because each run starts
a supervisor; hence named tuples, because dataclasses imports a parser of Python.
"""

import json
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

Message = dict[str, Any]

# Why the process tree of a run ended. What that means for the run is decided in report.py.
EndReason = Literal[
    "exited",  # by itself
    "deadline",  # the supervisor stopped it after budget and grace
    "stopped",  # its worker sent `stop`, with a StopReason
    "orphaned",  # no worker was connected and ticking for almost a lease
    "terminated",  # the supervisor got SIGTERM, or the disk is almost full, as `excess` says
    "excess",  # it exceeded a limit of its sandbox, which `excess` names
]

# Why a worker stops a run. It is part of the result, for a worker that reports the run later.
StopReason = Literal[
    "cancelled",  # the orchestrator asked for it
    "handed_back",  # the worker drains
    "lease_lost",  # another worker may have the run
    "gpu_lost",  # the GPU failed
]


class Order(NamedTuple):
    """Everything a supervisor needs to know. Times in seconds, `run` is `<experiment>.<epoch>`.

    A run whose worker sends nothing for `orphan_seconds` is killed.
    """

    run: str
    folder: str
    workspace: str
    journal: str
    lock: str
    argv: list[str]
    env: dict[str, str]
    deadline_seconds: float
    kill_after_seconds: float
    orphan_seconds: float
    log_limit_bytes: int
    # `argv` begins with bwrap's arguments, but for `none`; `strict` has a system call filter and
    # limits that are watched.
    level: str = "none"
    # What measures a saved model once more, if the run measured less than `verify_below`.
    verify_argv: Sequence[str] = ()
    verify_below: float = float("inf")
    verify_seconds: float = 0.0
    cgroup: str = ""  # that the run gets, where the worker may make one


class Result(NamedTuple):
    """How a run ended. `exit_code` is the launcher's, 128 + signal where a signal ended it.

    `ended` is the moment at which no process of the run was left, by the host's monotonic clock.
    `unwritten` is the end of the output that a full disk did not take.
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
    # What evaluate_bpb measured, where prepare.py reports it; None of an older supervisor.
    measures: Sequence[float] | None = None
    excess: str = ""
    level: str | None = None  # the sandbox's
    # Of the second measurement, None where there was none: its value, exit code and last words.
    verified: float | None = None
    verify_exit: int | None = None
    verify_output: str = ""

    @property
    def ended_by_sigterm(self) -> bool:
        """True if somebody else than the worker sent SIGTERM to the run or its supervisor."""
        killed = self.exit_code == 128 + signal.SIGTERM
        return self.reason == "terminated" or (self.reason == "exited" and killed)

    def to_json(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def read(cls, data: bytes) -> "Result | None":
        """None for what is no whole result, such as a file that a kill or a full disk has cut."""
        try:
            result = cls(**json.loads(data))
        except (ValueError, TypeError, RecursionError):
            return None
        return result if result.reason in get_args(EndReason) else None


def encode(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class MessageDecoder:
    """Turns bytes, cut anywhere, into whole messages."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Message]:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines if line]


def receive_order(connection: socket.socket) -> Order | None:
    """Wait for the order; None when the worker closed the connection without giving one."""
    decoder = MessageDecoder()
    while data := connection.recv(65536):
        for message in decoder.feed(data):
            # One from a worker of an older version may have more fields.
            order = message["order"].items()
            return Order(**{name: value for name, value in order if name in Order._fields})
    return None


def listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with _short_address(path) as address:
        listener.bind(address)
    listener.listen()
    return listener


def connect(path: Path) -> socket.socket:
    """Raises OSError when nobody listens there."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        with _short_address(path) as address:
            connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


@contextmanager
def _short_address(path: Path) -> Iterator[str]:
    """Another name of `path`: a Unix socket's address holds 107 bytes, a path may be longer."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
