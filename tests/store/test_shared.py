"""The connection that all requests of a process share: who gets which answer, also in trouble."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
)

from orchestrator.store.shared import SharedConnection
from orchestrator.store.uvloop_errors import translated_closed_transport

pytestmark = pytest.mark.anyio

TIMEOUT_SECONDS = 0.3


@pytest.fixture
async def shared(each_redis_url: str) -> AsyncIterator[SharedConnection]:
    pool = ConnectionPool.from_url(
        each_redis_url, decode_responses=True, protocol=2, socket_timeout=None
    )
    shared = SharedConnection(pool.make_connection, TIMEOUT_SECONDS)
    yield shared
    await shared.aclose()


async def test_each_of_many_who_ask_at_once_gets_its_own_answer(shared: SharedConnection) -> None:
    answers = await asyncio.gather(*(shared.ask("ECHO", str(n)) for n in range(500)))
    assert answers == [str(n) for n in range(500)]


async def test_a_request_that_is_given_up_does_not_shift_the_answers_of_others(
    shared: SharedConnection,
) -> None:
    await shared.ask("PING")
    calls = [asyncio.ensure_future(shared.ask("ECHO", str(n))) for n in range(9)]
    await asyncio.sleep(0)
    calls[3].cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers.pop(3), asyncio.CancelledError)
    assert answers == [str(n) for n in range(9) if n != 3]


async def test_a_refused_command_fails_alone(shared: SharedConnection) -> None:
    refused, answer = await asyncio.gather(
        shared.ask("NO-SUCH-COMMAND"), shared.ask("ECHO", "x"), return_exceptions=True
    )
    assert isinstance(refused, ResponseError)
    assert answer == "x"


async def test_a_connection_that_is_lost_is_opened_again_for_the_next_request(
    shared: SharedConnection, each_redis_url: str
) -> None:
    name = await shared.ask("CLIENT", "ID")
    async with Redis.from_url(each_redis_url) as other:
        await other.client_kill_filter(_id=name)
    assert await shared.ask("ECHO", "again") == "again"


async def test_who_waits_when_it_is_closed_gets_an_error_and_opens_no_other_connection(
    shared: SharedConnection, each_redis_url: str
) -> None:
    own = await shared.ask("CLIENT", "ID")
    waiting = asyncio.ensure_future(shared.ask("BLPOP", "nothing", 5))
    await asyncio.sleep(0)
    await shared.aclose()
    with pytest.raises(RedisConnectionError, match="the connection was closed"):
        await waiting
    with pytest.raises(RedisConnectionError, match="the connection was closed"):
        await shared.ask("PING")
    async with Redis.from_url(each_redis_url) as other:
        found = [int(client["id"]) for client in await other.client_list()]
        newest = await other.client_id()
    assert [client for client in found if own < client < newest] == []


async def test_a_request_that_is_cancelled_while_it_connects_leaves_nothing_open(
    each_redis_url: str,
) -> None:
    pool = ConnectionPool.from_url(each_redis_url, decode_responses=True, protocol=2)
    made: list[AbstractConnection] = []
    connected = asyncio.Event()

    class Slow(pool.connection_class):  # type: ignore[misc, name-defined]
        async def connect(self) -> None:
            made.append(self)
            await super().connect()
            connected.set()
            await asyncio.sleep(5)

    pool.connection_class = Slow
    shared = SharedConnection(pool.make_connection, 10)
    asking = asyncio.ensure_future(shared.ask("PING"))
    await connected.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not made[0].is_connected


async def test_a_connection_that_is_lost_as_it_opens_is_opened_again(each_redis_url: str) -> None:
    pool = ConnectionPool.from_url(each_redis_url, decode_responses=True, protocol=2)
    made: list[AbstractConnection] = []

    class Dying(pool.connection_class):  # type: ignore[misc, name-defined]
        async def connect(self) -> None:
            await super().connect()
            made.append(self)
            if len(made) == 1:
                self._writer.transport.abort()
                await asyncio.sleep(0.05)

    pool.connection_class = Dying
    shared = SharedConnection(pool.make_connection, 10)
    assert await shared.ask("ECHO", "again") == "again"
    await shared.aclose()
    assert [connection.is_connected for connection in made] == [False, False]


async def test_a_silent_server_is_a_time_out_and_later_answers_go_to_nobody_else(
    shared: SharedConnection,
) -> None:
    """Every command sent while it was silent fails in time; afterwards answers are right."""
    await shared.ask("PING")
    await shared.ask("CLIENT", "PAUSE", int(TIMEOUT_SECONDS * 8 * 1000))
    with pytest.raises(RedisTimeoutError):
        await shared.ask("ECHO", "lost")
    await asyncio.sleep(TIMEOUT_SECONDS * 6)
    assert await shared.ask("ECHO", "found") == "found"


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("unable to perform operation on <X>; the handler is closed", RedisConnectionError),
        ("something else", RuntimeError),
    ],
)
async def test_a_closed_transport_of_uvloop_is_a_lost_connection_and_nothing_else_is(
    said: str, heard: type[Exception]
) -> None:
    class Failing(Connection):
        async def send_packed_command(self, *_: object, **__: object) -> None:
            raise RuntimeError(said)

    with pytest.raises(heard, match=said[-10:]):
        await translated_closed_transport(Failing)().send_packed_command(b"PING")
