"""The cookies of a page's session: named by port, because browsers send a host's cookies to all of
its ports, and under TLS with the prefix that lets no other host set them."""

import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope


@dataclass(frozen=True)
class Place:
    """Where a page was loaded from, as its browser sees it."""

    scheme: str
    host: str

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}".lower()

    @property
    def session_cookie(self) -> str:
        return self._named("autoresearch_session")

    @property
    def csrf_cookie(self) -> str:
        return self._named("autoresearch_csrf")

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    def _named(self, name: str) -> str:
        found = re.search(r":(\d{1,5})$", self.host)
        port = found[1] if found else "443" if self.secure else "80"
        return f"{'__Host-' if self.secure else ''}{name}_{port}"


def place_of(scope: Scope) -> Place:
    """For a request whose Host header is one that is served here."""
    return Place(scope["scheme"], Headers(scope=scope).get("host", ""))
