"""The asyncio sibling of wire.py: one kept-alive connection, one request at a time.

A bare Protocol, since thousands of them share one client process with the clock that times them.
"""

import asyncio
import json
from typing import Any, cast

from bench.harness.wire import HttpError


class Channel(asyncio.Protocol):
    """A connection to 127.0.0.1:`port`, opened with the first request."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._received = b""

    async def post(self, path: str, **body: object) -> Any:
        """Send `body`; the answer's JSON."""
        loop = asyncio.get_running_loop()
        if self._transport is None:
            await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        assert self._transport is not None
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        self._answer = loop.create_future()
        self._transport.write(head.encode() + data)
        return json.loads(await self._answer)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end].lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r")[0])
        if len(self._received) < end + 4 + length:
            return
        body, status = self._received[end + 4 :], self._received[9:12]
        self._received = b""
        assert self._answer is not None
        if self._answer.done():
            return
        if status[:1] == b"2":
            self._answer.set_result(body)
        else:
            self._answer.set_exception(HttpError(f"{status!r}: {body!r}"))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the server closed it"))
