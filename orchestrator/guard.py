"""ASGI middleware before the routes: who may call, how large a body may be, and retried requests.

- `Guard` refuses foreign host names and origins (403), callers with neither a token nor a session
  (401), changes by a page without its CSRF token (403), and bodies over the limit (413). It finds
  out who calls; what a caller may do is checked in front of each route (routes/access.py). It marks
  every POST body as JSON, since `curl -d` sends another Content-Type.
- `Idempotency` answers a POST that carries a known Idempotency-Key with the stored answer.
"""

import asyncio
import codecs
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus

import anyio
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator import callers, errors, schemas
from orchestrator.callers import ANONYMOUS, NOBODY, Caller
from orchestrator.routes import access, problems
from orchestrator.routes.access import replayed
from orchestrator.routes.cookies import place_of
from orchestrator.services.core.credentials import Credentials
from orchestrator.services.core.sessions import Sessions
from orchestrator.settings import Settings
from orchestrator.store.idempotency import IN_PROGRESS_SECONDS, IdempotencyStore, StoredAnswer
from orchestrator.store.scripts import nonces_from

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = "x-csrf-token"
# Their answers hold a cookie or a secret, which no stored answer may.
NEVER_STORED = frozenset({"/api/login", "/api/token/create"})
# These take a whole train.py.
SUBMIT_PATHS = frozenset({"/api/experiment/submit", "/mcp"})
# A source of 1 MiB, each byte escaped as \u0000 at worst, and the other fields.
SUBMIT_LIMIT_BYTES = 6 * schemas.SOURCE_LIMIT_BYTES + schemas.BODY_LIMIT_BYTES
# How long a duplicate waits for the answer to the first request: longer than IN_PROGRESS_SECONDS,
# after which a first request that died no longer holds its key.
DUPLICATE_WAIT_SECONDS = 10.0
LONGEST_ANSWER = 64 * 1024  # characters


class Guard:
    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        credentials: Credentials,
        sessions: Sessions,
    ) -> None:
        self._app = app
        self._credentials = credentials
        self._sessions = sessions
        self._hosts = LOOPBACK_NAMES | set(settings.allowed_hosts)
        if settings.host not in ("0.0.0.0", "::"):  # noqa: S104 - every address has no name
            self._hosts |= {settings.host.lower(), f"[{settings.host.lower()}]"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            self._check_host(headers)
            self._check_origin(scope, headers)
            caller = await self._caller(scope, headers)
            if scope["method"] == "POST":
                receive = await _limited(scope, headers, receive)
        except errors.AutoresearchError as error:
            await problems.response(error, scope["path"])(scope, receive, send)
            return
        with callers.calling(caller):
            await self._app(scope, receive, send)

    async def _caller(self, scope: Scope, headers: Mapping[str, str]) -> Caller:
        """Whose call this is. A change within a session needs the session's CSRF token."""
        authorization = headers.get("authorization")
        if authorization is None and not self._credentials.required:
            return NOBODY
        if access.is_open(scope["path"]):
            return ANONYMOUS
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return await self._session_s(scope, headers) if self._credentials.required else NOBODY
        caller = await self._credentials.caller_of(given.strip())
        if caller is None and not await self._credentials.any():
            return NOBODY  # nothing here asks for a token, as in older versions
        if caller is None:
            client = scope.get("client")
            raise self._credentials.refusal(client[0] if client else "")
        return caller

    async def _session_s(self, scope: Scope, headers: Mapping[str, str]) -> Caller:
        place = place_of(scope)
        cookie = cookie_parser(headers.get("cookie", "")).get(place.session_cookie, "")
        session = await self._sessions.find(cookie, place.origin)
        if session is None:
            raise errors.Unauthorized(
                "Send a token: Authorization: Bearer $AUTORESEARCH_TOKEN; a page logs in with"
                " POST /api/login."
            )
        caller, csrf = session
        given = headers.get(CSRF_HEADER, "")
        if scope["method"] not in SAFE_METHODS and not hmac.compare_digest(
            given.encode(), csrf.encode()
        ):
            raise errors.Forbidden(
                f"A page's call carries the header X-CSRF-Token with the value of its cookie"
                f" {place.csrf_cookie}; log in again if there is none."
            )
        return caller

    def _check_host(self, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name.lower() not in self._hosts:
            raise errors.Forbidden(
                f"Host {host!r} is not served here; name it in AUTORESEARCH_ALLOWED_HOSTS."
            )

    def _check_origin(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Browsers send these headers with each request; curl, agents and workers do not."""
        if scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate":
            return  # somebody follows a link
        site = headers.get("sec-fetch-site", "none")
        if site not in ("same-origin", "none"):
            raise errors.Forbidden("Requests from other sites' pages are refused.")
        origin = headers.get("origin")
        if origin is not None and origin.split("://")[-1] != headers.get("host"):
            raise errors.Forbidden(f"Origin {origin!r} may not call this service.")


async def _limited(scope: Scope, headers: Mapping[str, str], receive: Receive) -> Receive:
    """Read the whole body up to the limit, and mark it as JSON."""
    limit = SUBMIT_LIMIT_BYTES if scope["path"] in SUBMIT_PATHS else schemas.BODY_LIMIT_BYTES
    length = headers.get("content-length", "")
    body = bytearray()
    if length.isdigit() and int(length) > limit:
        raise errors.TooLarge(f"The body has {length} bytes; the limit here is {limit}.")
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message.get("body", b"")
        if len(body) > limit:
            raise errors.TooLarge(f"The body is over the limit of {limit} bytes.")
        if not message.get("more_body"):
            break
    if wrong := _not_plain_utf8(headers, body):
        raise errors.Invalid(wrong, errors=[{"field": "body", "message": wrong}])
    others = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
    scope["headers"] = [*others, (b"content-type", b"application/json")]
    return replayed(bytes(body), receive)


def _not_plain_utf8(headers: Mapping[str, str], body: bytearray) -> str | None:
    """What is wrong with a body in another encoding, for which a JSON parser has no good words."""
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding != "identity" or body.startswith(b"\x1f\x8b"):
        name = encoding if encoding != "identity" else "gzip"
        return f"the body is compressed ({name}); send it uncompressed"
    if body.startswith(codecs.BOM_UTF8):
        return "the body begins with a byte order mark (BOM); send JSON in UTF-8 without it"
    if b"\0" in body[:4] or body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "the body is in UTF-16 or UTF-32; send JSON in UTF-8"
    return None


def _may_be_stored(scope: Scope) -> bool:
    """True for a POST route and a known caller: nobody else may fill Redis."""
    if scope["method"] != "POST" or scope["path"] in NEVER_STORED:
        return False
    is_route = any(route.matches(scope)[0] is Match.FULL for route in scope["app"].routes)
    return is_route and callers.current() is not ANONYMOUS


class Idempotency:
    """Stores answers below 500 of POST routes under the request's key, and replays them byte for
    byte. A long answer is not stored: what answers at length only reads.

    The scripts' nonces derive from the key. So when a request that died half-way is sent again,
    each script that ran already answers as it did, and acts only once.
    """

    def __init__(self, app: ASGIApp, store: IdempotencyStore) -> None:
        self._app = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = Headers(scope=scope).get("idempotency-key") if scope["type"] == "http" else None
        if key is None or not _may_be_stored(scope):
            await self._app(scope, receive, send)
            return
        try:
            await self._once(key, scope, receive, send)
        except errors.AutoresearchError as error:
            await problems.response(error, scope["path"])(scope, receive, send)

    async def _once(self, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        if not 1 <= len(key) <= 255:
            raise errors.Invalid("Idempotency-Key holds 1 to 255 characters.")
        body = (await receive()).get("body", b"")
        # With the caller in it, since nobody gets what another token was answered.
        whole = f"{scope['path']}\n{key}\n{callers.current().identity}".rstrip("\n")
        name = hashlib.sha256(whole.encode()).hexdigest()
        fingerprint = hashlib.sha256(body).hexdigest()
        stored = await self._begin(name, fingerprint)
        if stored is not None:
            headers = {"content-type": stored.content_type, "idempotency-replayed": "true"}
            await Response(stored.body, stored.status, headers)(scope, receive, send)
            return
        messages: list[Message] = []
        try:
            answer = await self._run(name, scope, replayed(body, receive), messages)
            if (
                answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
                or len(answer.body) > LONGEST_ANSWER
            ):
                await self._store.forget(name)
            else:
                await self._store.finish(name, fingerprint, answer)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._store.forget(name)
            raise
        for message in messages:  # after storing: a retry gets the same answer
            await send(message)

    async def _begin(self, name: str, fingerprint: str) -> StoredAnswer | None:
        """The stored answer, waiting for one in progress; None if this request is the first."""
        owner = secrets.token_hex(12)
        with anyio.move_on_after(DUPLICATE_WAIT_SECONDS):
            while True:
                found = await self._store.begin(name, fingerprint, owner)
                if found == "new":
                    return None
                if found == "mismatch":
                    raise errors.Invalid("This Idempotency-Key was used with another body.")
                if isinstance(found, StoredAnswer):
                    return found
                await anyio.sleep(0.05)
        raise errors.Conflict("The same request is still being served; ask again for its answer.")

    async def _run(
        self, name: str, scope: Scope, receive: Receive, messages: list[Message]
    ) -> StoredAnswer:
        """Run the request: returns the answer to store, and appends it to `messages` to send."""

        async def keep(message: Message) -> None:
            messages.append(message)

        over = asyncio.Event()
        holding = asyncio.create_task(self._hold(name, over))
        try:
            with nonces_from(name):
                await self._app(scope, receive, keep)
        finally:
            over.set()
            # Not cancelled: an EXPIRE still in flight would shorten the life of the stored answer.
            await holding
        start = next(m for m in messages if m["type"] == "http.response.start")
        body = b"".join(m.get("body", b"") for m in messages if m["type"] == "http.response.body")
        content_type = Headers(raw=start["headers"]).get("content-type", "")
        return StoredAnswer(start["status"], content_type, body.decode())

    async def _hold(self, name: str, over: asyncio.Event) -> None:
        """Extend the hold on the key until the request is served. The hold is short, so that a
        retry can take over soon after this process dies."""
        while not over.is_set():
            with anyio.move_on_after(IN_PROGRESS_SECONDS / 3):
                await over.wait()
                return
            with suppress(errors.Unavailable):
                await self._store.hold(name)
