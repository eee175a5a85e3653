"""A blocking HTTP/1.1 client over one kept-alive connection: as little of its own as possible.

It sends a prepared request and reads one answer with a Content-Length, so that the server and the
loopback are timed and not a client library. No redirects, no chunks, no retries.
"""

import json
import socket
from typing import Any


class HttpError(Exception):
    """An answer other than 2xx."""


class Connection:
    """One kept-alive connection to 127.0.0.1:`port`."""

    def __init__(self, port: int, timeout: float = 60) -> None:
        self._port = port
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._socket.close()

    def prepare(self, method: str, path: str, body: object = None) -> bytes:
        """The bytes of a request, made before its time is taken."""
        data = b"" if body is None else json.dumps(body).encode()
        kind = "content-type: application/json\r\n" if data else ""
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\n{kind}"
            f"content-length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data

    def send(self, request: bytes) -> bytes:
        """Send a prepared request; answers the body."""
        self._socket.sendall(request)
        received = self._socket.recv(65536)
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        head = received[:end].lower()
        start = head.index(b"content-length:") + 15
        stop = head.find(b"\r", start)
        length = int(head[start : stop if stop > 0 else len(head)])
        parts, have = [received[end + 4 :]], len(received) - end - 4
        while have < length:
            parts.append(self._more())
            have += len(parts[-1])
        body = b"".join(parts)
        if received[9:10] != b"2":
            raise HttpError(f"{received[:end].decode()}\n{body.decode(errors='replace')}")
        return body

    def _more(self) -> bytes:
        data = self._socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data

    def post(self, path: str, **body: object) -> Any:
        return json.loads(self.send(self.prepare("POST", path, body)))

    def get(self, path: str) -> Any:
        return json.loads(self.send(self.prepare("GET", path)))
