"""Range requests on logs (RFC 9110, a single byte range)."""

import re
from collections.abc import Awaitable, Callable

from fastapi import Response

from orchestrator.files import Slice

# Start and length; a negative start counts from the end.
Reader = Callable[[int, int | None], Awaitable[Slice]]

_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
_HEADERS = {"accept-ranges": "bytes"}


async def log_response(range_header: str | None, read: Reader) -> Response:
    """The whole log, or the range asked for.

    A header that is no byte range is ignored. So is any range of an empty log, since a client may
    follow a log before its first byte.
    """
    match = _RANGE.fullmatch((range_header or "").strip())
    first, last = match.groups() if match else ("", "")
    if not (first or last) or (first and last and int(last) < int(first)):
        return _text((await read(0, None)).data)
    if first:
        found = await read(int(first), int(last) - int(first) + 1 if last else None)
    else:
        found = await read(-int(last), None) if int(last) else await read(0, 0)
    if not found.total:
        return _text(b"")
    if not found.data:
        return _text(b"", 416, f"bytes */{found.total}")
    end = found.start + len(found.data) - 1
    return _text(found.data, 206, f"bytes {found.start}-{end}/{found.total}")


def _text(data: bytes, status: int = 200, content_range: str = "") -> Response:
    headers = _HEADERS | ({"content-range": content_range} if content_range else {})
    return Response(data, status, headers, "text/plain; charset=utf-8")
