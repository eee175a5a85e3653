"""One connection to Redis that all requests of a process share, for commands that do not block.

Redis answers in the order in which it was asked, so many requests can wait on one connection.
Commands sent at the same moment travel together, and no request waits for a connection of a pool;
a command costs a third of the CPU of a pooled one (docs/log.md). redis-py opens the
connection (URL, TLS, password), hiredis packs and parses. This module matches answers to requests,
and adds time-outs and retries.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
    ReadOnlyError,
    TimeoutError as RedisTimeoutError,
)

# A command that got no answer is sent again this often; nonces make that harmless.
RETRIES = 2
PAUSE_SECONDS = 0.05


class SharedConnection:
    """Sends commands over one connection, opened on first use and again when it is lost."""

    def __init__(self, make: Callable[[], AbstractConnection], timeout_seconds: float) -> None:
        """`make` gives unconnected connections whose reads never time out."""
        self._make = make
        self._timeout = timeout_seconds
        self._connecting = asyncio.Lock()
        self._current: _Conversation | None = None
        self._closed = False

    async def evalsha(self, sha: str, numkeys: int, *args: str) -> str:
        return str(await self.ask("EVALSHA", sha, numkeys, *args))

    async def eval(self, script: str, numkeys: int, *args: str) -> str:
        return str(await self.ask("EVAL", script, numkeys, *args))

    async def aclose(self) -> None:
        """For good: requests that still wait get an error and open no other connection."""
        self._closed = True
        async with self._connecting:
            if self._current is not None:
                await self._current.close()

    async def ask(self, *command: str | int) -> Any:
        """The server's answer as RESP2 has it: text, integers, lists, None.

        Raises redis-py's errors, as redis-py does.
        """
        for retry in range(RETRIES + 1):
            try:
                conversation = self._current
                if conversation is None or conversation.over:
                    conversation = await self._open()
                return await conversation.ask(command)
            except (RedisConnectionError, RedisTimeoutError):
                if retry == RETRIES or self._closed:
                    raise
            await asyncio.sleep(PAUSE_SECONDS * 2**retry)
        raise AssertionError("the last try returns or raises")

    async def _open(self) -> "_Conversation":
        async with self._connecting:
            if self._closed:
                raise RedisConnectionError("the connection was closed")
            if self._current is None or self._current.over:
                if self._current is not None:
                    await self._current.close()
                connection = self._make()
                try:
                    await asyncio.wait_for(
                        connection.connect(),  # type: ignore[no-untyped-call]
                        self._timeout,
                    )
                except BaseException as error:  # a cancelled one may be open by now
                    await connection.disconnect(nowait=True)
                    if isinstance(error, asyncio.TimeoutError):
                        raise RedisTimeoutError("no answer while connecting") from error
                    raise
                self._current = _Conversation(connection, self._timeout)
            return self._current


class _Conversation(asyncio.Protocol):
    """The questions and answers on one open connection, until it is lost.

    It takes the transport over from redis-py's streams, with which each answer passes through two
    more tasks.
    """

    def __init__(self, connection: AbstractConnection, timeout_seconds: float) -> None:
        self._connection = connection
        self._timeout = timeout_seconds
        self._loop = asyncio.get_running_loop()
        # Who gets the next answers, in the order asked, and since when they wait.
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._parser = hiredis.Reader(replyError=DefaultParser.parse_error, encoding="utf-8")
        writer = connection._writer  # noqa: SLF001 - redis-py has no other name for it
        assert writer is not None  # noqa: S101 - it is connected
        self._transport = writer.transport
        self._transport.set_protocol(self)
        self._watchdog = self._loop.create_task(self._watch())

    @property
    def over(self) -> bool:
        """True also of a connection that was lost before it was taken over, or whose server is no
        primary any more (sentinel.py)."""
        return self._transport.is_closing() or getattr(self._connection, "has_moved", False)

    async def ask(self, command: tuple[str | int, ...]) -> Any:
        if self.over:
            raise RedisConnectionError("the connection was closed")
        answer: asyncio.Future[Any] = self._loop.create_future()
        # A tenth of the time of redis-py's. (Its stubs take tuples of one element.)
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]
        # The order here is the order on the wire.
        self._waiting.append((answer, self._loop.time()))
        self._transport.write(packed)
        return await answer

    async def close(self) -> None:
        self._end(RedisConnectionError("the connection was closed"))
        await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Give each answer to the request that waits longest."""
        self._parser.feed(data)
        while (reply := self._parser.gets()) is not False:
            if isinstance(reply, ReadOnlyError):  # it is a replica by now
                self._end(RedisConnectionError(str(reply)))
                return
            answer, _ = self._waiting.popleft()
            if answer.done():  # its request was given up
                continue
            if isinstance(reply, Exception):  # about one command, not the connection
                answer.set_exception(reply)
            else:
                answer.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(RedisConnectionError(str(error or "Connection closed by server.")))

    def _end(self, reason: Exception) -> None:
        """Every request that still waits gets `reason`."""
        self._watchdog.cancel()
        for answer, _ in self._waiting:
            if not answer.done():
                answer.set_exception(reason)
        self._waiting.clear()
        self._transport.abort()

    async def _watch(self) -> None:
        """One clock for all: a timer for each command would cost more than the command."""
        while True:
            await asyncio.sleep(self._timeout / 10)
            if self._waiting and self._loop.time() - self._waiting[0][1] > self._timeout:
                self._end(RedisTimeoutError(f"no answer in {self._timeout:g} s"))
                return
