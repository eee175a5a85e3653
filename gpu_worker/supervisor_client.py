"""The worker's client of a supervisor process: start it ahead of time, order, tick, stop, listen.

A restarted worker connects to the supervisor of a run that outlived the previous worker. What the
messages mean is in channel.py; what to do about them is in attempt.py.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import anyio

from gpu_worker import channel, tree
from gpu_worker.channel import Message, Order, StopReason
from gpu_worker.folders import RunFolder

_HANDSHAKE_SECONDS = 2.0
_FAREWELL_SECONDS = 10.0
_START_SECONDS = 30.0


class SupervisorClient:
    """One supervisor, from the order to its end."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes] | None) -> None:
        connection.settimeout(0)
        self._connection = connection
        self._process = process
        self._lines = channel.Lines()
        self._inbox: list[Message] = []
        self._ready = False
        self.adopted = process is None
        self._peer = process.pid if process else _peer_pid(connection)

    @classmethod
    def start(cls, lock_fd: int, errors: Path) -> "SupervisorClient":
        """A supervisor that waits for its order, and holds the GPU's lock as we do."""
        ours, theirs = socket.socketpair()
        # Without `site`, which it does not need and would be a fifth of its start; hence the path.
        command = [sys.executable, "-S", "-m", "gpu_worker.supervisor"]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        with theirs, errors.open("ab") as stderr:
            process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(lock_fd)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=environment,
                pass_fds=(theirs.fileno(), lock_fd),
                start_new_session=True,
            )
        return cls(ours, process)

    @classmethod
    def adopt(cls, folder: RunFolder) -> "tuple[SupervisorClient, int] | None":
        """The supervisor of a run that is still going on, and the GPU's lock, which it held for us.

        None when there is none, or when it has a worker.
        """
        try:
            connection = channel.connect(folder.socket)
        except OSError:
            return None
        try:
            connection.settimeout(_HANDSHAKE_SECONDS)
            data, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
        except OSError:
            descriptors = []
        if not descriptors:
            connection.close()
            return None
        supervisor = cls(connection, None)
        supervisor._inbox += [m for m in supervisor._lines.feed(data) if m.get("event") != "hello"]
        return supervisor, descriptors[0]

    # ------------------------------------------------------------------------ to it

    def order(self, order: Order) -> None:
        # It may be larger than a socket's buffer, so this waits until it has been read.
        self._connection.settimeout(_HANDSHAKE_SECONDS)
        try:
            with suppress(OSError):  # a supervisor that is dead is heard as `ended`
                self._connection.sendall(channel.encode_order(order))
        finally:
            self._connection.settimeout(0)

    def tick(self) -> None:
        self._send({"tick": True})

    def stop(self, reason: StopReason, *, now: bool) -> None:
        self._send(channel.stop(reason, now=now))

    def settled(self) -> None:
        """The report is settled: the result need not be kept."""
        self._send({"settled": True})

    def _send(self, message: Message) -> None:
        # One that is dead or stuck does not read; the caller notices by the missing end.
        with suppress(OSError):
            self._connection.sendall(channel.encode(message))

    def kill(self) -> None:
        """End a supervisor that no longer does its work; its guard then ends the tree."""
        tree.kill(self._peer, signal.SIGKILL)

    # ------------------------------------------------------------------------ from it

    async def hear(self) -> Message | None:
        """The next message; None when the supervisor has gone."""
        while not self._inbox:
            await anyio.wait_readable(self._connection)
            try:
                data = self._connection.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                return None
            self._inbox += self._lines.feed(data)
        return self._inbox.pop(0)

    async def ready(self) -> bool:
        """Whether it can take an order; False when it did not even start."""
        if not self._ready:
            with anyio.move_on_after(_START_SECONDS):
                self._ready = await self.hear() is not None
        return self._ready and self.alive

    @property
    def alive(self) -> bool:
        return self._process is None or self._process.poll() is None

    def close(self) -> None:
        """Let the supervisor go, one without an order ends with this, and wait until it has."""
        self._connection.settimeout(_FAREWELL_SECONDS)
        with self._connection, suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            while self._connection.recv(65536):
                pass
        if self._process is not None:
            try:
                self._process.wait(_FAREWELL_SECONDS)
            except subprocess.TimeoutExpired:  # its guard ends what it leaves
                self._process.kill()
                self._process.wait()


def _peer_pid(connection: socket.socket) -> int:
    """The process that listened at the other end."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
