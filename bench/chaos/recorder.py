"""Recent requests of the workers, to be sent again, late or out of order.

A tap of a proxy that knows just enough HTTP to cut POST requests with a body out of a stream.
"""

import json
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_KEPT = 400
_HEAD_END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(rb"POST (\S+) HTTP")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """One POST that a worker sent; `at` is monotonic."""

    path: str
    body: dict[str, Any]
    at: float


class Recorder:
    """The most recent requests of all workers."""

    def __init__(self) -> None:
        self._requests: deque[Request] = deque(maxlen=_KEPT)

    def since(self, seconds: float, path: str = "/api/") -> list[Request]:
        """Those of the last `seconds` whose path begins with `path`, oldest first."""
        start = time.monotonic() - seconds
        return [r for r in self._requests if r.at >= start and r.path.startswith(path)]

    def tap(self) -> Callable[[bytes], None]:
        """A listener for one connection."""
        buffer = bytearray()

        def listen(data: bytes) -> None:
            buffer.extend(data)
            while (found := _first_request(buffer)) is not None:
                size, request = found
                del buffer[:size]
                if request is not None:
                    self._requests.append(request)

        return listen


def _first_request(stream: bytearray) -> tuple[int, Request | None] | None:
    """The length of the first request and, of a POST, its content; None if it is not whole."""
    head, separator, rest = bytes(stream).partition(_HEAD_END)
    if not separator:
        return None
    length = _LENGTH.search(head)
    size = int(length[1]) if length else 0
    if len(rest) < size:
        return None
    line = _REQUEST_LINE.match(head)
    request = None
    if line is not None and size:
        request = Request(line[1].decode(), json.loads(rest[:size]), time.monotonic())
    return len(head) + len(separator) + size, request
