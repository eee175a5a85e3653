"""What one address may hold of the server before anything is known of the caller: connections, time
for a request, bytes of headers. uvicorn bounds none of the three.

Time for an answer is not bounded here: long polls and the event stream are answers.
"""

from asyncio import TimerHandle, Transport
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# From the first byte, or from the connection, to the last byte of the headers; then of the body.
HEAD_SECONDS = 15.0
BODY_SECONDS = 60.0
HEAD_BYTES = 64 * 1024
_UNLIMITED = 65_536  # files, where the system names no number
# No browser takes an answer for another type than its own.
HEADERS = [("x-content-type-options", "nosniff")]


def per_address() -> int:
    """How many connections one address may hold: never all files that this process may open. No
    smaller number, since behind a proxy a fleet of thousands has one address."""
    files = getrlimit(RLIMIT_NOFILE)[0]
    return (_UNLIMITED if files == RLIM_INFINITY else files) // 2


def server_config(app: Callable[..., Any], **options: Any) -> uvicorn.Config:
    """uvicorn's configuration for an application of ours."""
    return uvicorn.Config(app, http=BoundedProtocol, headers=HEADERS, lifespan="on", **options)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `_reading` is the part of a request that is not here as a whole."""

    _open: ClassVar[Counter[str]] = Counter()
    _reading: str | None = None
    _head_bytes = 0
    _waits_for: str | None = None
    _deadline: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self._open[self._address] += 1
        if self._open[self._address] > per_address():
            self._refuse(503, "Too many connections from this address: close some.")
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open[self._address] -= 1
        if not self._open[self._address]:
            del self._open[self._address]
        self._wait_for(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # refused
        super().data_received(data)
        if self.transport.is_closing():
            return  # no HTTP, and told so
        self._head_bytes = self._head_bytes + len(data) if self._reading == "headers" else 0
        if self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"The headers are over the limit of {HEAD_BYTES} bytes.")
        else:
            self._watch()

    def on_message_begin(self) -> None:
        self._reading = "headers"
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._reading = "body"
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._reading = None
        super().on_message_complete()

    def _watch(self) -> None:
        """Set the deadline of what is awaited now. Between two requests uvicorn has one of its own,
        which any byte ends, the first of a request or not."""
        answered = self.cycle is None or self.cycle.response_complete
        idle = answered and self.timeout_keep_alive_task is None
        self._wait_for(self._reading or ("headers" if idle else None))

    def _wait_for(self, part: str | None) -> None:
        if part == self._waits_for:
            return
        self._waits_for = part
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if part is not None:
            seconds = HEAD_SECONDS if part == "headers" else BODY_SECONDS
            self._deadline = self.loop.call_later(seconds, self._too_late, part, seconds)

    def _too_late(self, part: str, seconds: float) -> None:
        if self._reading is None:  # a browser may open a connection before it needs one
            self.transport.close()
        else:
            self._refuse(408, f"The request's {part} did not come within {seconds:g} s.")

    def _refuse(self, status: int, message: str) -> None:
        """Answer where no other answer has begun, and close."""
        if self._reading == "body":  # the headers have begun this request's cycle
            free = not self.cycle.response_started
        else:
            free = self.cycle is None or self.cycle.response_complete
        if free:
            lines = [
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
                *(f"{name}: {value}" for name, value in HEADERS),
                "content-type: text/plain; charset=utf-8",
                f"content-length: {len(message)}",
                "retry-after: 2",
                "connection: close",
                "",
                message,
            ]
            self.transport.write("\r\n".join(lines).encode())
        self.transport.close()
