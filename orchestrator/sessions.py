"""Login from a page: the token once, then a cookie that is checked without stored state.

A session is a cookie that scripts cannot read, `EXPIRY.RANDOM.SIGNATURE`, signed with a key derived
from the token. So every orchestrator with this token accepts it, a restart ends no session, and a
new token ends all. The cookie alone allows reads. A change must also carry the session's CSRF
token, which our page reads from a second cookie and another site's page cannot.
"""

import hashlib
import hmac
import secrets
from collections import deque
from dataclasses import dataclass

from orchestrator.errors import TooManyTries, Unauthorized

SESSION_COOKIE = "autoresearch_session"
CSRF_COOKIE = "autoresearch_csrf"
SESSION_SECONDS = 7 * 24 * 3600

# Wrong tokens from one address before it has to wait.
TRIES = 5
TRIES_SECONDS = 60.0
_REMEMBERED_TRIES = 10_000
# Slow, so that a stolen cookie does not make it cheap to guess a short token.
_KEY_ITERATIONS = 200_000


@dataclass(frozen=True)
class Session:
    """The two cookies of a session, and when it ends, in seconds since the epoch."""

    cookie: str
    csrf: str
    expires: int


class Sessions:
    """Starts and checks the sessions of a service with this token."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._key = hashlib.pbkdf2_hmac(
            "sha256", token.encode(), b"autoresearch session", _KEY_ITERATIONS
        )
        self._wrong: deque[tuple[float, str]] = deque(maxlen=_REMEMBERED_TRIES)

    def is_token(self, given: str) -> bool:
        return equal(given, self._token)

    def login(self, given: str, address: str, now: float) -> Session:
        """Start a session. `now` is in seconds since the epoch.

        Raises:
            Unauthorized: `given` is not the token.
            TooManyTries: nor were the last ones from this address.
        """
        while self._wrong and self._wrong[0][0] < now - TRIES_SECONDS:
            self._wrong.popleft()
        if sum(where == address for _, where in self._wrong) >= TRIES:
            raise TooManyTries(
                f"{TRIES} wrong tokens from here; wait a minute, then send the orchestrator's"
                " AUTORESEARCH_TOKEN."
            )
        if not self.is_token(given):
            self._wrong.append((now, address))
            raise Unauthorized("That is not the token; the orchestrator's AUTORESEARCH_TOKEN is.")
        expires = int(now) + SESSION_SECONDS
        content = f"{expires}.{secrets.token_urlsafe(16)}"
        cookie = f"{content}.{self._signed('session', content)}"
        return Session(cookie, self._signed("csrf", cookie), expires)

    def csrf_of(self, cookie: str, now: float) -> str | None:
        """The CSRF token of a session; None if it has ended or is not ours."""
        content, _, signature = cookie.rpartition(".")
        if not equal(signature, self._signed("session", content)):
            return None
        return self._signed("csrf", cookie) if int(content.partition(".")[0]) > now else None

    def _signed(self, purpose: str, content: str) -> str:
        message = f"{purpose}:{content}".encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()


def equal(given: str, due: str) -> bool:
    """Compare secrets in constant time."""
    return hmac.compare_digest(given.encode(), due.encode())
