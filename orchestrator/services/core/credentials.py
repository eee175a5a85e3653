"""Who a bearer token is: AUTORESEARCH_TOKEN's admin, or the caller of a token that an admin made.

Tokens are read from the store at most once a second, so one that was revoked at another
orchestrator is good here for a second more.
"""

import hashlib
import hmac
import secrets
import time

from orchestrator import schemas
from orchestrator.callers import ADMIN, Caller
from orchestrator.domain import Token
from orchestrator.errors import Conflict
from orchestrator.services import views
from orchestrator.services.core.steering import operator_action
from orchestrator.store.connection import Store

CACHE_SECONDS = 1.0


class Credentials:
    def __init__(self, store: Store, admin_token: str | None) -> None:
        self._store = store
        self._admin_token = admin_token
        self._by_sha256: dict[str, Token] = {}
        self._read_at = float("-inf")

    @property
    def required(self) -> bool:
        """True if a call without credentials is refused."""
        return self._admin_token is not None

    async def caller_of(self, secret: str) -> Caller | None:
        """Whose token this is; None for one that is wrong, revoked or expired."""
        given, admin = secret.encode(), self._admin_token
        if admin is not None and hmac.compare_digest(given, admin.encode()):
            return ADMIN
        token = (await self._tokens()).get(hashlib.sha256(given).hexdigest())
        if token is None or (token.expires_us or float("inf")) <= time.time() * 1e6:
            return None
        return Caller(token.label, token.role, frozenset(token.tags) or None)

    async def any(self) -> bool:
        """True if there is any token that a call could carry."""
        return self.required or bool(await self._tokens())

    async def _tokens(self) -> dict[str, Token]:
        if time.monotonic() - self._read_at > CACHE_SECONDS:
            self._by_sha256 = {token.sha256: token for token in await self._store.tokens.all()}
            self._read_at = time.monotonic()
        return self._by_sha256

    async def create(self, request: schemas.CreateTokenRequest) -> schemas.CreateTokenAnswer:
        label = request.label or f"{request.role}-{secrets.token_hex(3)}"
        if label == ADMIN.label:
            raise Conflict(f"{label!r} is AUTORESEARCH_TOKEN's label; choose another.")
        secret = f"ar_{secrets.token_urlsafe(32)}"
        sha256 = hashlib.sha256(secret.encode()).hexdigest()
        token = Token(label, request.role, sha256, tuple(request.tags))
        what = f"{request.role} for {', '.join(request.tags) or 'all tags'}"
        action = operator_action("create-token", request.by, what, label)
        token = await self._store.tokens.create(token, request.expires_in_seconds, action)
        self._read_at = float("-inf")
        return schemas.CreateTokenAnswer(secret=secret, token=views.token(token))

    async def revoke(self, request: schemas.RevokeTokenRequest) -> schemas.RevokeTokenAnswer:
        action = operator_action("revoke-token", request.by, "", request.label)
        await self._store.tokens.revoke(request.label, action)
        self._read_at = float("-inf")
        return schemas.RevokeTokenAnswer()

    async def list(self) -> schemas.TokensAnswer:
        tokens = await self._store.tokens.all()
        return schemas.TokensAnswer(tokens=[views.token(token) for token in tokens])
