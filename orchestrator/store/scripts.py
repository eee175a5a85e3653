"""Loads the Lua verbs and runs them: NOSCRIPT, nonces, and Redis' absence are handled here.

redis-py sends a command again when its answer did not come in time, and a paused Redis then runs
both. So every writing verb carries a nonce under which Redis keeps its reply: the second execution
answers with the first one's reply and changes nothing.
"""

import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from redis.exceptions import (
    BusyLoadingError,
    ConnectionError as RedisConnectionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
)

from orchestrator.errors import StoreBroken, Unavailable
from orchestrator.store import keys
from orchestrator.store.client import ScriptRunner

# Verbs that only read, or that are harmless twice: no nonce, no reply kept.
PLAIN = frozenset({"snapshot", "renew", "heartbeat", "pool_list", "tidy"})

NONCE_SECONDS = 120
IDEMPOTENCY_SECONDS = 86_400

# How an answer begins by which a server that lives refuses to serve for now.
_REFUSALS = ("OOM", "MISCONF", "LOADING", "MASTERDOWN", "READONLY", "BUSY", "NOREPLICAS")

_AWAY = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, ReadOnlyError, OutOfMemoryError)


@dataclass
class _RequestNonces:
    """The nonces of one HTTP request that carries an Idempotency-Key: a base, the verb and a count,
    so that the request sent again runs into the replies of the first one's scripts. It may take
    another way through them, and must not take one verb's reply for another's."""

    base: str
    used: int = 0


_request: ContextVar[_RequestNonces | None] = ContextVar("request_nonces", default=None)


@contextmanager
def nonces_from(base: str) -> Iterator[None]:
    """Derive the nonces of all verbs run inside from `base`, and keep their replies for a day."""
    token = _request.set(_RequestNonces(base))
    try:
        yield
    finally:
        _request.reset(token)


def _next_nonce(verb: str) -> tuple[str, int]:
    request = _request.get()
    if request is None:
        return secrets.token_hex(12), NONCE_SECONDS
    request.used += 1
    return f"{request.base}:{verb}:{request.used}", IDEMPOTENCY_SECONDS


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn what Redis throws when it cannot serve into `Unavailable`, and nothing else."""
    try:
        yield
    except _AWAY as error:
        raise Unavailable(f"Redis does not answer: {error}") from error
    except ResponseError as error:
        if str(error).startswith(_REFUSALS):
            raise Unavailable(f"Redis refuses writes: {error}") from error
        raise StoreBroken(f"Redis: {error}") from error


def _load(verb: str) -> str:
    folder = files("orchestrator.store") / "lua"
    prelude = (folder / "_prelude.lua").read_text("utf-8")
    body = (folder / f"{verb}.lua").read_text("utf-8")
    text = f"{keys.lua_names()}{prelude}\n"
    if verb in PLAIN:
        return text + body
    return (
        f"{text}local kept = redis.call('GET', G.nonce .. ARGV[1])\n"
        f"if kept then return kept end\n"
        f"local function verb()\n{body}\nend\n"
        f"local answer = verb()\n"
        # Other outcomes changed nothing, so the same request may well be tried again.
        f'if string.find(answer, \'"outcome":"OK"\', 1, true) then\n'
        f"  redis.call('SET', G.nonce .. ARGV[1], answer, 'EX', ARGV[2])\n"
        f"end\n"
        f"return answer\n"
    )


@dataclass(frozen=True)
class Reply:
    """A verb's named outcome and its fields."""

    outcome: str
    fields: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


class Scripts:
    """The Lua verbs on one Redis connection pool."""

    def __init__(self, redis: ScriptRunner) -> None:
        self._redis = redis
        self._texts: dict[str, tuple[str, str]] = {}

    def _script(self, verb: str) -> tuple[str, str]:
        if verb not in self._texts:
            text = _load(verb)
            sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            self._texts[verb] = text, sha
        return self._texts[verb]

    async def run(self, verb: str, *args: object, nonce: str | None = None) -> Reply:
        """Run `verb` with ARGV[3..] = `args`.

        Raises:
            Unavailable: Redis is away, loading, read-only or full; nothing is known to be written.
        """
        text, sha = self._script(verb)
        head: tuple[object, object] = ("", "")
        if verb not in PLAIN:
            head = (nonce, NONCE_SECONDS) if nonce else _next_nonce(verb)
        argv = [str(value) for value in (*head, *args)]
        with redis_errors():
            try:
                answer = await self._redis.evalsha(sha, 0, *argv)
            except NoScriptError:
                answer = await self._redis.eval(text, 0, *argv)
        fields: dict[str, Any] = json.loads(answer)
        return Reply(fields.pop("outcome"), fields)
