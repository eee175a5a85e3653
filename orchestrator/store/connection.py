"""One Redis connection pool, and everything that lives on it. Servers: Redis >= 6.2, Valkey."""

from contextvars import ContextVar
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff

from orchestrator.errors import SetupError
from orchestrator.seals import Seals
from orchestrator.store import keys
from orchestrator.store.client import TextRedis
from orchestrator.store.dump import DumpStore
from orchestrator.store.events import EventStore
from orchestrator.store.experiments import ExperimentStore
from orchestrator.store.idempotency import IdempotencyStore
from orchestrator.store.jobs import JobStore
from orchestrator.store.journal import JournalStore
from orchestrator.store.pool import PoolStore
from orchestrator.store.race import RaceStore
from orchestrator.store.reads import ReadStore
from orchestrator.store.scripts import Scripts, redis_errors
from orchestrator.store.sentinel import Primary, is_sentinel
from orchestrator.store.sessions import SessionStore
from orchestrator.store.shared import SharedConnection
from orchestrator.store.steering import SteeringStore
from orchestrator.store.tokens import TokenStore
from orchestrator.store.uvloop_errors import translated_closed_transport

MINIMUM_VERSION = (6, 2)

_retrying: ContextVar[bool] = ContextVar("retrying", default=False)


class FlatRetry(Retry):
    """Retries on the outermost level only.

    redis-py retries a command, and within it the connect, and within that the health check. Three
    tries on each level keep the caller of a paused Redis for up to 27 time-outs.
    """

    async def call_with_retry(self, *arguments: Any, **options: Any) -> Any:
        if _retrying.get():
            return await Retry(NoBackoff(), 0).call_with_retry(*arguments, **options)
        token = _retrying.set(True)
        try:
            return await super().call_with_retry(*arguments, **options)
        finally:
            _retrying.reset(token)


class Store:
    """The whole state of the system, by what one does with it. `redis`, `scripts` and `seals` are
    for tests and benches."""

    def __init__(self, url: str, timeout_seconds: float, seals: Seals | None = None) -> None:
        """Prepare the pool for `url` (redis://, rediss://, unix://, or those of sentinel.py);
        connects on first use.
        `seals` are needed to write journals that an audit believes.

        A command is sent a second time when no answer came in `timeout_seconds`: the scripts'
        nonces make that harmless.
        """
        self._primary = Primary(url, timeout_seconds) if is_sentinel(url) else None
        url = self._primary.url if self._primary else url
        pool = BlockingConnectionPool.from_url(
            url,
            decode_responses=True,
            max_connections=64,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            health_check_interval=30,
            retry=FlatRetry(ExponentialBackoff(cap=0.5, base=0.05), 2),
        )
        redis = cast("TextRedis", Redis.from_pool(pool))
        single = ConnectionPool.from_url(
            url,
            decode_responses=True,
            protocol=2,
            socket_timeout=None,  # SharedConnection has a clock of its own
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )
        for each in (pool, single):
            if self._primary:
                each.connection_class = self._primary.connection_class(each.connection_class)
            each.connection_class = translated_closed_transport(each.connection_class)
        shared = SharedConnection(single.make_connection, timeout_seconds)
        # Apart: its reads block.
        tail = SharedConnection(single.make_connection, timeout_seconds)
        scripts = Scripts(shared, seals)
        self.redis = redis
        self.connections = (shared, tail)
        self.scripts, self.seals = scripts, seals
        self.experiments = ExperimentStore(scripts)
        self.race = RaceStore(scripts)
        self.jobs = JobStore(scripts, redis)
        self.pool = PoolStore(scripts, redis)
        self.reads = ReadStore(redis, scripts)
        self.events = EventStore(shared, tail)
        self.idempotency = IdempotencyStore(redis)
        self.journal = JournalStore(redis, shared)
        self.dump = DumpStore(redis)
        self.steering = SteeringStore(scripts, redis, self.reads)
        self.tokens = TokenStore(scripts, redis)
        self.sessions = SessionStore(redis)

    async def ping(self) -> None:
        """Raises `Unavailable` when Redis does not answer."""
        with redis_errors():
            await self.redis.ping()

    async def check_version(self) -> None:
        """Raises `SetupError` for a server older than `MINIMUM_VERSION`."""
        with redis_errors():
            info = await self.redis.info("server")
        version = str(info["redis_version"])
        if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_VERSION:
            raise SetupError(f"Redis {version} is too old; 6.2 or Valkey is the oldest that works.")

    async def check_files(self, files_id: str | None, place: str) -> None:
        """Raises `SetupError` if this Redis' orchestrators keep their files elsewhere: each would
        miss what the others wrote. The first one's are kept; `files_id` is None for an empty
        place."""
        name, own = keys.of_all("files"), f"{files_id} {place}"
        with redis_errors():
            if files_id is not None:
                await self.redis.set(name, own, nx=True)
            known_id, _, known_place = (await self.redis.get(name) or "").partition(" ")
            if known_id == files_id and known_place != place:
                await self.redis.set(name, own)  # it was moved, or is mounted elsewhere
        if known_id and known_id != files_id:
            raise SetupError(
                f"The orchestrators of this Redis keep their files in {known_place}, and {place} "
                "is another place: give this one the same --home or --store (AUTORESEARCH_HOME, "
                f"AUTORESEARCH_STORE). If those files are gone for good, delete the key {name}."
            )

    async def close(self) -> None:
        for connection in self.connections:
            await connection.aclose()
        if self._primary:
            await self._primary.aclose()
        await self.redis.aclose()  # and the pool with it: `from_pool` handed it over
