"""REDIS_URL by way of Sentinel: each new connection first asks the sentinels for the primary.

    redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]/NAME[/DB][?OPTIONS]

`rediss+sentinel://` is the same with TLS, to servers and sentinels. User and password are those of
the servers; sentinels are asked without. After a failover a connection to the old primary is closed
when it is lost, when it may only read, or when another connection has found the new primary: an old
one that comes back takes writes, and loses them, until Sentinel has made it a replica.
"""

import re
from typing import Any

from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError, ReadOnlyError

from orchestrator.errors import SetupError

_URL = re.compile(r"rediss?\+sentinel://(?:[^/@]*@)?([^/@?]+)/([^/?]+)(.*)")
_HOST = re.compile(r"\[?(.+?)\]?(?::(\d+))?")
_PORT = 26379


def is_sentinel(url: str) -> bool:
    return "+sentinel://" in url


class Primary:
    """Makes connections go to the server that is the primary by then; `url` has their options."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self.address: tuple[str, int] | None = None  # as it was found last
        found = _URL.fullmatch(url)
        if found is None:
            raise SetupError("REDIS_URL must be redis+sentinel://HOST:PORT,HOST:PORT/NAME")
        hosts, name, rest = found.groups()
        # redis-py reads the options as if the name were the server's host.
        self.url = url[: found.start(1)].replace("+sentinel", "") + name + rest
        tls = {k: v for k, v in parse_url(self.url).items() if k.startswith("ssl_")}
        addresses = [_address(host) for host in hosts.split(",")]
        # One that is away must leave time for the others and for the server.
        each = timeout_seconds / (len(addresses) + 1)
        self._name = name
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
            addresses,
            sentinel_kwargs=tls
            | {
                "ssl": url.startswith("rediss"),
                "socket_timeout": each,
                "socket_connect_timeout": each,
                "retry": Retry(NoBackoff(), 0),
            },
        )

    def connection_class(self, connection_class: type[Any]) -> type[Any]:
        """That class, whose connections ask first."""
        sentinel, name, primary = self._sentinel, self._name, self

        class ToPrimary(connection_class):  # type: ignore[misc]
            host: str
            port: int

            async def _connect(self) -> None:
                try:
                    primary.address = await sentinel.discover_master(name)
                except MasterNotFoundError:  # it describes each sentinel's client in full
                    raise RedisConnectionError(f"no sentinel knows a primary of {name}") from None
                self.host, self.port = primary.address
                await super()._connect()

            @property
            def has_moved(self) -> bool:
                """True once another connection has found another primary."""
                return (self.host, self.port) != primary.address

            async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
                if self.has_moved:
                    await self.disconnect(nowait=True)
                    raise RedisConnectionError(f"{self.host}:{self.port} is no primary any more")
                await super().send_packed_command(*arguments, **options)

            async def read_response(self, *arguments: Any, **options: Any) -> Any:
                try:
                    return await super().read_response(*arguments, **options)
                except ReadOnlyError as error:
                    await self.disconnect(nowait=True)
                    raise RedisConnectionError(str(error)) from error

        return ToPrimary

    async def aclose(self) -> None:
        await self._sentinel.aclose()


def _address(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None:
        raise SetupError(f"REDIS_URL names a sentinel {text!r}; HOST or HOST:PORT is one")
    return found[1], int(found[2] or _PORT)
