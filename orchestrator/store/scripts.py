"""Loads and runs the Lua verbs: nonces, typed replies, NOSCRIPT, and errors of Redis.

redis-py sends a command again when its answer did not come in time, and a paused Redis then runs
both. So every writing verb carries a nonce under which Redis keeps its reply: the second execution
answers with the first one's reply and changes nothing.
"""

import hashlib
import itertools
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any, Generic, TypeVar, get_args

from pydantic_core import from_json, to_json
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError as RedisConnectionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
)

from orchestrator.domain import RECENT_RUNS, Tag
from orchestrator.errors import (
    AutoresearchError,
    LeaseRenewed,
    StoreBroken,
    Unavailable,
    foreign_gpu,
    lease_lost,
    no_lease_secret,
    unknown_experiment,
    unknown_gpu,
    unknown_parent,
    unknown_tag,
)
from orchestrator.seals import Seals
from orchestrator.store import keys
from orchestrator.store.client import ScriptRunner

# Verbs that only read, or that are harmless twice: no nonce, no reply kept.
PLAIN = frozenset({"snapshot", "due", "renew", "heartbeat", "pool_list", "tidy"})

NONCE_SECONDS = 120
# Each failed try means that another step of the tag went through in between.
MAX_TRIES = 500
IDEMPOTENCY_SECONDS = 86_400

# Error replies of a server that is up and cannot serve now begin with one of these.
_BUSY = ("OOM", "MISCONF", "LOADING", "MASTERDOWN", "READONLY", "BUSY", "NOREPLICAS")

_AWAY = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, ReadOnlyError, OutOfMemoryError)

# Replies that mean the same in every verb: `run` raises the error, made from the reply's fields.
REFUSALS: dict[str, Callable[..., AutoresearchError]] = {
    "UNKNOWN_TAG": unknown_tag,
    "UNKNOWN_PARENT": unknown_parent,
    "UNKNOWN_ID": unknown_experiment,
    "UNKNOWN_GPU": unknown_gpu,
    "FOREIGN_GPU": foreign_gpu,
    "LOST": lease_lost,
    "NO_SECRET": no_lease_secret,
    "RENEWED": lambda: LeaseRenewed("The lease was renewed after it was read."),
}

R = TypeVar("R", bound=str)


# The base of the nonces of an HTTP request that carries an Idempotency-Key, and their count. The
# request sent again gets the replies of the first one's scripts. It may run other verbs than the
# first one did, so a nonce names its verb.
_request: ContextVar[tuple[str, Iterator[int]] | None] = ContextVar("request", default=None)


@contextmanager
def nonces_from(base: str) -> Iterator[None]:
    """Derive the nonces of all verbs run inside from `base`, and keep their replies for a day."""
    token = _request.set((base, itertools.count(1)))
    try:
        yield
    finally:
        _request.reset(token)


def _next_nonce(verb: str) -> tuple[str, int]:
    request = _request.get()
    if request is None:
        return secrets.token_hex(12), NONCE_SECONDS
    base, numbers = request
    return f"{base}:{verb}:{next(numbers)}", IDEMPOTENCY_SECONDS


@contextmanager
def redis_errors() -> Iterator[None]:
    """Raise `Unavailable` if Redis cannot serve now, `StoreBroken` if it refuses a command."""
    try:
        yield
    except _AWAY as error:
        raise Unavailable(f"Redis does not answer: {error}") from error
    except ResponseError as error:
        if str(error).startswith(_BUSY):
            raise Unavailable(f"Redis refuses writes: {error}") from error
        raise StoreBroken(f"Redis: {error}") from error


def _load(verb: str) -> str:
    folder = files("orchestrator.store") / "lua"
    prelude = (folder / "_prelude.lua").read_text("utf-8")
    body = (folder / f"{verb}.lua").read_text("utf-8")
    text = f"{keys.lua_names()}local RECENT_RUNS = {RECENT_RUNS}\n{prelude}\n"
    if verb in PLAIN:
        return text + body
    return (
        f"{text}local kept = redis.call('GET', G.nonce .. ARGV[1])\n"
        f"if kept then return kept end\n"
        f"local function verb()\n{body}\nend\n"
        f"local answer = verb()\n"
        # Other replies changed nothing, so the same request may be tried again.
        f'if string.find(answer, \'"outcome":"OK"\', 1, true) then\n'
        f"  redis.call('SET', G.nonce .. ARGV[1], answer, 'EX', ARGV[2])\n"
        f"end\n"
        f"return answer\n"
    )


class Script(Generic[R]):
    """A Lua verb and the names of its replies: `Script[Literal["OK", "STALE"]]("set_strategy")`."""

    def __init__(self, verb: str) -> None:
        self.verb = verb

    @cached_property
    def replies(self) -> frozenset[str]:
        # typing keeps the Literal of `Script[...](...)` here, so that each name is written once.
        (names,) = get_args(self.__orig_class__)  # type: ignore[attr-defined]
        return frozenset(get_args(names))

    @cached_property
    def text(self) -> str:
        return _load(self.verb)

    @cached_property
    def sha(self) -> str:
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Reply(Generic[R]):
    """A verb's reply: its name, one of the script's, and its fields."""

    name: R
    fields: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


def _argument(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return to_json(value).decode()
    return str(int(value) if isinstance(value, bool) else value)


class Scripts:
    """The Lua verbs on one Redis connection pool. Without `seals` journals are not sealed."""

    def __init__(self, redis: ScriptRunner, seals: Seals | None = None) -> None:
        self._redis = redis
        self._seals = seals

    def entry(
        self, tag: Tag, kind: str, data: Mapping[str, Any], experiment_id: str = ""
    ) -> dict[str, str]:
        """The next journal entry of `tag` as the verbs take it: JSON, revision, seal."""
        text = to_json(data).decode()
        entry = {"entry": text, "revision": "setup" if kind == "setup" else str(tag.revision)}
        if self._seals is not None:
            entry["seal"] = self._seals.seal(tag, kind, experiment_id, text)
        return entry

    async def run(self, script: Script[R], *args: object, nonce: str | None = None) -> Reply[R]:
        """Run a verb with ARGV[3..] = `args`: None is '', a flag '1' or '0', a mapping JSON.

        Raises:
            NotFound, LeaseLost, LeaseRenewed: the reply is one of `REFUSALS`.
            StoreBroken: the reply is not one of the script's.
            Unavailable: Redis is away, loading, read-only or full; nothing is known to be written.
        """
        head: tuple[object, object] = ("", "")
        if script.verb not in PLAIN:
            head = (nonce, NONCE_SECONDS) if nonce else _next_nonce(script.verb)
        return await self._run(script, head, args)

    async def run_on_snapshot(
        self, script: Script[R], arguments: Callable[[], Awaitable[Sequence[object]]]
    ) -> Reply[R]:
        """Run a verb whose `arguments` rest on what they have read, again while that is STALE."""
        head = _next_nonce(script.verb)  # one for all tries, of which one takes effect
        for _ in range(MAX_TRIES):
            reply = await self._run(script, head, await arguments())
            if reply.name != "STALE":
                return reply
        raise Unavailable("Too many changes of this tag at once; send the request again.")

    async def _run(
        self, script: Script[R], head: tuple[object, object], args: Sequence[object]
    ) -> Reply[R]:
        argv = [_argument(value) for value in (*head, *args)]
        with redis_errors():
            try:
                answer = await self._redis.evalsha(script.sha, 0, *argv)
            except NoScriptError:
                answer = await self._redis.eval(script.text, 0, *argv)
        fields: dict[str, Any] = from_json(answer)
        name, sealed = fields.pop("outcome"), fields.pop("sealed", None)
        if sealed is not None and self._seals is not None:
            self._seals.note(**sealed)
        if name in script.replies:
            return Reply(name, fields)
        if name in REFUSALS:
            raise REFUSALS[name](**fields)
        raise StoreBroken(f"{script.verb}.lua replied {name!r}, which nothing here expects.")
