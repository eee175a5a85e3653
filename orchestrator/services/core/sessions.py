"""Login from a page: a token once, then a cookie that scripts cannot read.

The store has a record of each session, so every orchestrator knows it, a restart ends none, and
logging out does. It lasts no longer than its token. The cookie alone allows reads. A change must
also carry the session's CSRF token, which our page reads from a second cookie and another site's
page cannot.
"""

import hashlib
import secrets
from dataclasses import dataclass

from orchestrator.callers import Caller
from orchestrator.services.core.credentials import Credentials, sha256_of
from orchestrator.store.connection import Store
from orchestrator.store.sessions import StoredSession

SESSION_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Session:
    """The values of a session's two cookies."""

    cookie: str
    csrf: str


class Sessions:
    def __init__(self, store: Store, credentials: Credentials) -> None:
        self._store = store
        self._credentials = credentials

    async def start(self, secret: str, origin: str, address: str) -> Session:
        """Raises `Unauthorized` or `TooManyTries` for a wrong token."""
        if await self._credentials.caller_of(secret) is None:
            raise self._credentials.refusal(address)
        cookie = secrets.token_urlsafe(32)
        session = StoredSession(sha256_of(secret), origin)
        await self._store.sessions.start(sha256_of(cookie), session, SESSION_SECONDS)
        return Session(cookie, _csrf_of(cookie))

    async def find(self, cookie: str, origin: str) -> tuple[Caller, str] | None:
        """Whose session this is, and its CSRF token; None if it has ended or belongs elsewhere."""
        session = await self._store.sessions.get(sha256_of(cookie)) if cookie else None
        if session is None or session.origin != origin:
            return None
        caller = await self._credentials.caller_by(session.token_sha256)
        return None if caller is None else (caller, _csrf_of(cookie))

    async def end(self, cookie: str) -> None:
        await self._store.sessions.end(sha256_of(cookie))


def _csrf_of(cookie: str) -> str:
    return hashlib.sha256(f"csrf:{cookie}".encode()).hexdigest()
