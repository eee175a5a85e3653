"""Tokens with roles, by their labels."""

from orchestrator.callers import Token
from orchestrator.domain import OperatorAction
from orchestrator.errors import Conflict, NotFound
from orchestrator.store import keys, records, verbs
from orchestrator.store.client import TextRedis
from orchestrator.store.scripts import Scripts, redis_errors


class TokenStore:
    def __init__(self, scripts: Scripts, redis: TextRedis) -> None:
        self._scripts = scripts
        self._redis = redis

    async def create(
        self, token: Token, expires_in_seconds: int | None, action: OperatorAction
    ) -> Token:
        """Keep a token; returns it with its times. Raises `Conflict` for a label that is taken."""
        reply = await self._scripts.run(
            verbs.CREATE_TOKEN,
            token.label,
            records.token_fields(token),
            expires_in_seconds,
            records.action_fields(action),
        )
        if reply.name == "EXISTS":
            raise Conflict(f"There is a token {token.label!r} already; revoke it first.")
        return records.token_from(token.label, reply["token"])

    async def revoke(self, label: str, action: OperatorAction) -> None:
        reply = await self._scripts.run(verbs.REVOKE_TOKEN, label, records.action_fields(action))
        if reply.name == "NO_TOKEN":
            raise NotFound(f"No token {label!r}; GET /api/token/list has them.")

    async def all(self) -> list[Token]:
        """Every token, oldest first; those that have expired too."""
        with redis_errors():
            stored = await self._redis.hgetall(keys.of_all("tokens"))
        tokens = [records.token_from(label, text) for label, text in stored.items()]
        return sorted(tokens, key=lambda token: token.created_us)
