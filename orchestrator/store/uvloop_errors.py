"""Translates uvloop's RuntimeError for a closed transport into redis-py's ConnectionError.

asyncio's own transports ignore a write after the peer has gone, and the next read fails. uvloop's
raise a RuntimeError, which redis-py passes on to the caller, keeping the dead connection.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

_CLOSED = "the handler is closed"

Method = Callable[..., Awaitable[Any]]


def translated_closed_transport(connection_class: type[Any]) -> type[Any]:
    """`connection_class`, whose connections raise redis-py's ConnectionError for uvloop's."""

    class Translating(connection_class):  # type: ignore[misc]
        send_packed_command = _translated(connection_class.send_packed_command)
        read_response = _translated(connection_class.read_response)

    return Translating


def _translated(method: Method) -> Method:
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
