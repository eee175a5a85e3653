"""The worker's client of a supervisor process: start it ahead of time, order, tick, stop, receive.

A restarted worker connects to the supervisor of a run that outlived the previous worker. channel.py
describes the messages; attempt.py decides what to do about them.
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
_CLOSE_SECONDS = 10.0
_START_SECONDS = 30.0


class SupervisorClient:
    """One supervisor, from the order to its end. `process` is None for an adopted one."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes] | None) -> None:
        connection.settimeout(0)
        self._connection = connection
        self._process = process
        self._decoder = channel.MessageDecoder()
        self._inbox: list[Message] = []
        self._unread = b""  # received, not decoded yet
        self._ready = False
        self.adopted = process is None
        size = struct.calcsize("3i")
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        # The process that listened at the other end, or the one that was started with it.
        self._pid: int = process.pid if process else struct.unpack("3i", peer)[0]

    @classmethod
    def start(cls, lock_fd: int, errors: Path) -> "SupervisorClient":
        """A supervisor that waits for its order, and holds the GPU's lock as the worker does."""
        ours, theirs = socket.socketpair()
        # -S: the supervisor needs no `site`, which would be a fifth of its start. Hence PYTHONPATH.
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
        """The supervisor of a run that still goes on, and the GPU's lock, which it hands over.

        None when there is no such supervisor, or when it has a worker.
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
        supervisor._unread = data
        return supervisor, descriptors[0]

    def order(self, order: Order) -> None:
        # An order may exceed the socket's buffer, so this waits until the supervisor has read it.
        self._connection.settimeout(_HANDSHAKE_SECONDS)
        try:
            self._send({"order": order._asdict()})
        finally:
            self._connection.settimeout(0)

    def tick(self) -> None:
        self._send({"tick": True})

    def stop(self, reason: StopReason, *, now: bool) -> None:
        """End the run; `now` means without SIGTERM first."""
        self._send({"stop": reason, "now": now})

    def settled(self) -> None:
        """The report is settled: the result need not be kept."""
        self._send({"settled": True})

    def _send(self, message: Message) -> None:
        # A supervisor that is dead or stuck does not read; the caller sees that it sends no end.
        with suppress(OSError):
            self._connection.sendall(channel.encode(message))

    def kill(self) -> None:
        """End a supervisor that hangs; its guard then kills the tree."""
        tree.kill(self._pid, signal.SIGKILL)

    async def next_message(self) -> Message | None:
        """The next message; None when the supervisor is gone."""
        while not self._inbox:
            if not (data := self._unread):
                await anyio.wait_readable(self._connection)
                try:
                    data = self._connection.recv(65536)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
            self._unread = b""
            if not data:
                return None
            self._inbox += self._decoder.feed(data)
        return self._inbox.pop(0)

    async def ready(self) -> bool:
        """Wait until it can take an order; False when it could not start."""
        if not self._ready:
            with anyio.move_on_after(_START_SECONDS):
                self._ready = await self.next_message() is not None
        return self._ready and self.alive

    @property
    def alive(self) -> bool:
        return self._process is None or self._process.poll() is None

    def close(self) -> None:
        """Close the connection, which ends a supervisor without an order, and wait for its end."""
        self._connection.settimeout(_CLOSE_SECONDS)
        with self._connection, suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            while self._connection.recv(65536):
                pass
        if self._process is not None:
            try:
                self._process.wait(_CLOSE_SECONDS)
            except subprocess.TimeoutExpired:  # its guard kills the rest
                self._process.kill()
                self._process.wait()
