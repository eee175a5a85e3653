"""Tells redis-py of a closed transport in words that it knows.

asyncio's own transports swallow a write after the peer has gone, and the read that follows fails.
uvloop's raise a RuntimeError, which redis-py passes on to the caller, keeping the dead connection.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

_CLOSED = "the handler is closed"

Method = Callable[..., Awaitable[Any]]


def translated_closed_transport(connection_class: type[Any]) -> type[Any]:
    """`connection_class`, whose connections raise redis-py's ConnectionError for uvloop's."""

    class Telling(connection_class):  # type: ignore[misc]
        send_packed_command = _told(connection_class.send_packed_command)
        read_response = _told(connection_class.read_response)

    return Telling


def _told(method: Method) -> Method:
    @wraps(method)
    async def call(connection: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return await method(connection, *arguments, **options)
        except RuntimeError as error:
            if _CLOSED not in str(error):
                raise
            await connection.disconnect(nowait=True)
            raise RedisConnectionError(str(error)) from error

    return call
