"""A small TCP proxy between a client and a Redis, for the faults that a network has.

One listener, two threads a connection. `refuse` and `serve` take the listener away and bring it
back; `withhold` lets requests through and swallows what is answered; a `trap` does to the
connection what its name says when a request holds certain bytes.
"""

import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from bench.harness.ports import free_port

# reset_before: the request never arrives. reset_after: it arrives, its answer is lost.
# withhold: it arrives, and no connection answers any more.
Trap = Literal["reset_before", "reset_after", "withhold"]


@dataclass
class Proxy:
    """Forwards 127.0.0.1:`port` to the Unix socket at `target`."""

    target: str
    port: int = field(default_factory=free_port)
    withheld: bool = False
    sprung: threading.Event = field(default_factory=threading.Event)
    _trap: tuple[bytes, Trap] | None = None
    _listener: socket.socket | None = None
    _open: set[socket.socket] = field(default_factory=set)
    _muted: set[socket.socket] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def serve(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self._listener, self.withheld = listener, False
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def refuse(self) -> None:
        """Nobody listens any more, and every connection is reset."""
        if self._listener is not None:
            # Closing alone would leave a thread in accept() that takes one connection more.
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.reset()

    def withhold(self) -> None:
        """From now on nothing is answered, though all arrives."""
        self.withheld = True

    def release(self) -> None:
        """Answer again. What was withheld is gone, and with it the connections it belonged to."""
        self.withheld = False
        self.reset()

    def reset(self) -> None:
        for connection in list(self._open):
            _reset(connection)

    def trap(self, needle: bytes, what: Trap) -> None:
        """Do so, once, with the first request that holds `needle`."""
        self.sprung.clear()
        self._trap = (needle, what)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self.target)
            except OSError:
                server.close()
                _reset(client)
                continue
            self._open |= {client, server}
            for pump in (self._requests, self._answers):
                threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                trap = self._trap
                caught = trap[1] if trap is not None and trap[0] in data else None
                if caught is not None:
                    self._trap = None
                if caught == "withhold":
                    self.withheld = True
                if caught == "reset_after":
                    self._muted.add(client)
                if caught != "reset_before":
                    server.sendall(data)
                if caught is not None:
                    self.sprung.set()
                if caught in ("reset_before", "reset_after"):
                    break
        self._close(client, server)

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if not self.withheld and client not in self._muted:
                    client.sendall(data)
        self._close(client, server)

    def _close(self, *connections: socket.socket) -> None:
        for connection in connections:
            _reset(connection)
            self._open.discard(connection)


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        if connection.family == socket.AF_INET:
            # Not SHUT_WR, which would say goodbye in order: the close is to be a RST.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.shutdown(socket.SHUT_RD)
        else:
            connection.shutdown(socket.SHUT_RDWR)
    connection.close()
