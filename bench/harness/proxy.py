"""A TCP proxy whose faults are those of networks.

    pass        bytes go both ways
    hold        nothing goes either way, and nothing is lost: a pause
    refuse      new connections are reset
    drop answers, drop requests
                bytes of one direction vanish: a one-sided partition, in which a request is executed
                and its sender gets no answer

A connection that lost bytes is of no more use, so it is reset when the fault ends. The proxy knows
no protocol: a `tap` is shown what clients send, and a trap waits for certain bytes of a request.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Literal, cast

Mode = Literal["pass", "hold", "refuse", "drop answers", "drop requests"]
# reset_before: the request never arrives. reset_after: it arrives, its answer is lost.
# withhold: it arrives, and no connection is answered any more.
Trap = Literal["reset_before", "reset_after", "withhold"]
Tap = Callable[[bytes], None]


class _End(asyncio.Protocol):
    """One end of a connection through the proxy; `other` is where its bytes go."""

    def __init__(self, proxy: "Proxy", dropped_in: Mode, tap: Tap | None = None) -> None:
        self._proxy = proxy
        self._dropped_in = dropped_in
        self._tap = tap
        self._early: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self.damaged = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._proxy.ends.add(self)
        if self._proxy.mode == "hold":
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self._tap is not None:
            self._tap(data)
        caught = self._proxy.caught(data) if self._dropped_in == "drop requests" else None
        if caught == "reset_before":
            self.abort()
        elif self._proxy.mode == self._dropped_in:
            self.damaged = True
        elif self.other is None or self.other.transport is None:
            self._early.append(data)  # the other side is still being connected
        else:
            self.other.transport.write(data)
        if caught == "reset_after":
            self.abort()  # what was written goes out before the other side is closed

    def join(self, other: "_End") -> None:
        self.other, other.other = other, self
        if other.transport is not None:
            other.transport.writelines(self._early)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, _: Exception | None) -> None:
        self._proxy.ends.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Proxy:
    """Passes what comes to its port on to `upstream`: a port of this host, or a Unix socket."""

    def __init__(self, upstream: int | str, tap: Callable[[], Tap] | None = None) -> None:
        self.ends: set[_End] = set()
        self.mode: Mode = "pass"
        self.port = 0
        self.sprung = threading.Event()
        self._upstream = upstream
        self._tap = tap
        self._trap: tuple[bytes, Trap] | None = None
        self._connecting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def _accept(self) -> asyncio.Protocol:
        client = _End(self, "drop requests", self._tap() if self._tap else None)
        task = asyncio.get_running_loop().create_task(self._connect(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return client

    async def _connect(self, client: _End) -> None:
        if self.mode == "refuse":
            client.abort()
            return
        try:
            server = await self._open()
        except OSError:
            client.abort()
            return
        client.join(server)
        if client.transport is None or client.transport.is_closing():
            server.abort()

    async def _open(self) -> _End:
        """The other end of a connection: one to `upstream`."""
        loop, server = asyncio.get_running_loop(), _End(self, "drop answers")
        if isinstance(self._upstream, str):
            await loop.create_unix_connection(lambda: server, self._upstream)
        else:
            await loop.create_connection(lambda: server, "127.0.0.1", self._upstream)
        return server

    def cut(self) -> None:
        """Reset every connection there is."""
        for end in list(self.ends):
            end.abort()

    def set(self, mode: Mode) -> None:
        """Change what happens to bytes; connections that have lost some are reset."""
        before, self.mode = self.mode, mode
        for end in list(self.ends):
            if end.damaged:
                end.abort()
                if end.other is not None:
                    end.other.abort()
            elif mode == "hold" and end.transport is not None:
                end.transport.pause_reading()
            elif before == "hold" and end.transport is not None:
                end.transport.resume_reading()
        if mode == "refuse":
            self.cut()

    def trap(self, needle: bytes, what: Trap) -> None:
        """Do so, once, with the first request that holds `needle`; then `sprung` is set."""
        self.sprung.clear()
        self._trap = (needle, what)

    def caught(self, request: bytes) -> Trap | None:
        """Spring the trap if this request is the one that it waits for."""
        if self._trap is None or self._trap[0] not in request:
            return None
        _, what = self._trap
        self._trap = None
        if what == "withhold":
            self.set("drop answers")
        self.sprung.set()
        return what

    async def stop(self) -> None:
        self._server.close()
        for task in self._connecting:
            task.cancel()
        while self.ends or self._connecting:  # the loop closes a transport in a turn of its own
            self.cut()
            await asyncio.sleep(0.001)
