"""Who a bearer token is: AUTORESEARCH_TOKEN's admin, or the caller of a token that an admin made.

Tokens are read from the store at most once a second, so one that was revoked at another
orchestrator is good here for a second more.
"""

import hashlib
import hmac
import logging
import secrets
import time
from collections import Counter

from orchestrator import schemas
from orchestrator.callers import ADMIN, Caller, Token
from orchestrator.errors import Conflict, TooManyTries, Unauthorized
from orchestrator.services import views
from orchestrator.services.core.steering import operator_action
from orchestrator.store.connection import Store

CACHE_SECONDS = 1.0
# Wrong tokens from one address in one period, before more get 429 and are no longer logged. A right
# token is never refused, so what keeps it safe is its length.
TRIES = 5
TRIES_SECONDS = 60.0
_REMEMBERED_ADDRESSES = 10_000

logger = logging.getLogger(__name__)


def sha256_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Credentials:
    def __init__(self, store: Store, admin_token: str | None) -> None:
        self._store = store
        self._admin_sha256 = admin_token and sha256_of(admin_token)
        self._by_sha256: dict[str, Token] = {}
        self._read_at = float("-inf")
        self._wrong = Counter[str]()  # by address, in this period
        self._period_end = float("-inf")

    @property
    def required(self) -> bool:
        """True if a call without credentials is refused."""
        return self._admin_sha256 is not None

    async def caller_of(self, secret: str) -> Caller | None:
        """Whose token this is; None for one that is wrong, revoked or expired."""
        return await self.caller_by(sha256_of(secret))

    async def caller_by(self, sha256: str) -> Caller | None:
        """The same, for the hash of a token."""
        if self._admin_sha256 and hmac.compare_digest(sha256, self._admin_sha256):
            return ADMIN
        token = (await self._tokens()).get(sha256)
        if token is None or (token.expires_us or float("inf")) <= time.time() * 1e6:
            return None
        return Caller(token.label, token.role, frozenset(token.tags) or None)

    async def any(self) -> bool:
        """True if there is any token that a call could carry."""
        return self.required or bool(await self._tokens())

    def refusal(self, address: str) -> Unauthorized | TooManyTries:
        """What a wrong token from this address is answered; each is counted and logged."""
        if time.monotonic() > self._period_end:
            self._wrong.clear()
            self._period_end = time.monotonic() + TRIES_SECONDS
        if address not in self._wrong and len(self._wrong) >= _REMEMBERED_ADDRESSES:
            address = "other addresses"
        self._wrong[address] += 1
        if self._wrong[address] > TRIES:
            return TooManyTries(
                f"{TRIES} wrong tokens came from here within a minute. Send the orchestrator's"
                " AUTORESEARCH_TOKEN, or a token that is neither revoked nor expired."
            )
        last = "; more within a minute are not logged" if self._wrong[address] == TRIES else ""
        logger.warning("A wrong token came from %s%s", address, last)
        return Unauthorized(
            "That is no token of this orchestrator: send its AUTORESEARCH_TOKEN, or a token that is"
            " neither revoked nor expired."
        )

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
        token = Token(label, request.role, sha256_of(secret), tuple(request.tags))
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
