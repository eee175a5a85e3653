"""Who may call which route: the one table, and the check in front of each route.

A route that is not in the table keeps the application from starting. A token that is limited to
tags may call a `TAG` route for these tags only, and no `ALL` route.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator import callers, errors
from orchestrator.callers import Caller, Role
from orchestrator.ids import tag_of


class Subject(Enum):
    """What a route is about: the tags that its request names, all tags, or none of them."""

    TAG = "tag"
    ALL = "all"
    NONE = "none"


TAG, ALL, NONE = Subject.TAG, Subject.ALL, Subject.NONE


@dataclass(frozen=True)
class Access:
    """The roles that may call a route, and what it is about. An `open` one takes any caller."""

    roles: frozenset[Role]
    subject: Subject
    open: bool = False


_READERS: tuple[Role, ...] = ("read", "agent", "admin")
_EVERYONE: tuple[Role, ...] = (*_READERS, "worker")


def _access(subject: Subject, *roles: Role) -> Access:
    return Access(frozenset(roles), subject)


_OPEN = Access(frozenset(_EVERYONE), NONE, open=True)
_BY_ACCESS = {
    # The page's own files hold no data, and they ask for the token.
    _OPEN: [
        "/healthz", "/readyz", "/api/login", "/", "/compare", "/actions", "/t/{tag}",
        "/e/{experiment_id}", "/static/{name:path}",
    ],
    _access(NONE, *_EVERYONE): [
        "/api/logout", "/openapi.json", "/api/pool/list", "/api/prepare/{sha256}",
    ],
    # /api/report/tags shows a token its own tags; the tools at /mcp call the REST API.
    _access(NONE, *_READERS): ["/api/report/tags", "/api/gpu/{gpu_id}/health", "/mcp"],
    _access(ALL, *_READERS): ["/metrics", "/api/report/overview"],
    _access(TAG, *_READERS): [
        "/api/events", "/api/experiment/history", "/api/experiment/best",
        "/api/experiment/near-misses", "/api/experiment/{experiment_id}",
        "/api/experiment/{experiment_id}/wait", "/api/experiment/{experiment_id}/digest",
        "/api/experiment/{experiment_id}/log", "/api/experiment/{experiment_id}/train.py",
        "/api/experiment/{experiment_id}/diff", "/api/experiment/{experiment_id}/surroundings",
        "/api/report/summary", "/api/report/tsv", "/api/report/export", "/api/report/brief",
        "/api/report/journal", "/api/report/diff", "/api/report/series", "/api/report/runs",
        "/api/search/strategy", "/api/search/suggest", "/api/search/similar", "/api/steer/notes",
    ],
    _access(TAG, "agent", "admin"): [
        "/api/experiment/submit", "/api/experiment/{experiment_id}/cancel",
    ],
    _access(ALL, "worker", "admin"): [
        "/api/pool/register", "/api/pool/heartbeat", "/api/pool/deregister", "/api/job/claim",
        "/api/job/renew", "/api/job/progress", "/api/job/finish",
    ],
    # Who trains by hand reports its own numbers, so these are not an agent's.
    _access(TAG, "admin"): [
        "/api/experiment/setup", "/api/experiment/register", "/api/experiment/complete",
        "/api/experiment/crash", "/api/pool/acquire", "/api/gpu/{gpu_id}/train",
        "/api/experiment/{experiment_id}/requeue", "/api/experiment/{experiment_id}/priority",
        "/api/search/set-strategy", "/api/search/adapt", "/api/steer/pause", "/api/steer/resume",
        "/api/steer/race", "/api/steer/note", "/api/steer/drop-note", "/api/steer/ledger",
    ],
    _access(ALL, "admin"): [
        "/api/pool/release", "/api/pool/drain", "/api/pool/undrain", "/api/token/create",
        "/api/token/list", "/api/token/revoke",
    ],
}  # fmt: skip
ACCESS: Mapping[str, Access] = {
    path: access for access, paths in _BY_ACCESS.items() for path in paths
}
_OPEN_PATHS = frozenset(path for path in _BY_ACCESS[_OPEN] if "{" not in path)
_OPEN_FOLDERS = tuple(path.partition("{")[0] for path in _BY_ACCESS[_OPEN] if "{" in path)

# The names of fields, query parameters and parts of a path that name a tag or an experiment.
TAG_NAMES = frozenset({"tag"})
EXPERIMENT_NAMES = frozenset(
    {"experiment_id", "experiment_a", "experiment_b", "parent_id", "against", "cursor", "after"}
)


def is_open(path: str) -> bool:
    """True if a call of this path needs no credential."""
    return path in _OPEN_PATHS or path.startswith(_OPEN_FOLDERS)


def restrict(routes: Iterable[BaseRoute]) -> None:
    """Put the check in front of each route. Raises `SetupError` for one that the table lacks."""
    for route in routes:
        if not isinstance(route, Route) or route.path not in ACCESS:
            raise errors.SetupError(f"{route} has no role: name it in routes/access.py.")
        route.app = _Restricted(route.app, ACCESS[route.path])


class _Restricted:
    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = callers.current()
        if caller.role not in self._access.roles:
            may = " or ".join(sorted(self._access.roles))
            raise errors.Forbidden(
                f"This call takes a token of role {may}; this one is of role {caller.role}."
            )
        if caller.tags is not None and self._access.subject is not NONE:
            receive = await self._check_tags(caller, scope, receive)
        await self._app(scope, receive, send)

    async def _check_tags(self, caller: Caller, scope: Scope, receive: Receive) -> Receive:
        body = b""
        if scope["method"] == "POST":
            body = (await receive()).get("body", b"")
            receive = replayed(body, receive)
        named = tags_named(scope["path_params"], scope["query_string"], body)
        if self._access.subject is ALL or not named or not all(map(caller.may_use, named)):
            raise errors.Forbidden(
                f"This token is good for {', '.join(sorted(caller.tags or ()))} only: name one of"
                " these tags, or an experiment of it."
            )
        return receive


def tags_named(path: Mapping[str, object], query: bytes, body: bytes) -> set[str]:
    """Every tag that a request names, itself or by an experiment's id: of a name that comes twice
    both, since a parser may take either. Empty for a body that is no JSON."""
    pairs: list[tuple[str, object]] = [*path.items(), *parse_qsl(query.decode("latin-1"))]

    def collect(found: list[tuple[str, object]]) -> None:
        pairs.extend(found)

    if body:
        try:
            json.loads(body.decode(), object_pairs_hook=collect)
        except (ValueError, RecursionError):
            return set()  # the route refuses such a body too
    tags = set()
    for name, value in pairs:
        if name in TAG_NAMES and isinstance(value, str):
            tags.add(value)
        if name in EXPERIMENT_NAMES and isinstance(value, str):
            try:
                tags.add(tag_of(value))
            except errors.NotFound:
                continue  # no id that was ever given out, or a word such as "best"
    return tags


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives `body` once, then what `receive` gives (the disconnect)."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
