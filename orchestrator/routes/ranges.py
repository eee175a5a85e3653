"""Range requests on logs (RFC 9110, a single byte range)."""

import re
from collections.abc import Awaitable, Callable

from fastapi import Response

# (start, length) -> (data, actual start, total size); a negative start counts from the end.
Reader = Callable[[int, int | None], Awaitable[tuple[bytes, int, int]]]

_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
_HEADERS = {"accept-ranges": "bytes", "x-content-type-options": "nosniff"}


async def log_response(range_header: str | None, read: Reader) -> Response:
    """The whole log, or the range asked for; a header that is no byte range is ignored, and so is
    any on a log that is still empty: whoever follows it from its end need not know that."""
    match = _RANGE.fullmatch(range_header.strip()) if range_header else None
    if match is None or match.groups() == ("", ""):
        data, _, _ = await read(0, None)
        return Response(data, media_type="text/plain; charset=utf-8", headers=_HEADERS)
    first, last = match.groups()
    if first == "":
        data, start, total = await read(-int(last), None) if int(last) else await read(0, 0)
    else:
        length = int(last) - int(first) + 1 if last else None
        if length is not None and length <= 0:
            data, _, _ = await read(0, None)
            return Response(data, media_type="text/plain; charset=utf-8", headers=_HEADERS)
        data, start, total = await read(int(first), length)
    if not total:
        return Response(media_type="text/plain; charset=utf-8", headers=_HEADERS)
    if not data:
        return Response(status_code=416, headers=_HEADERS | {"content-range": f"bytes */{total}"})
    return Response(
        data,
        status_code=206,
        media_type="text/plain; charset=utf-8",
        headers=_HEADERS | {"content-range": f"bytes {start}-{start + len(data) - 1}/{total}"},
    )
