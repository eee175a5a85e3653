"""Who calls: the role, the tags and the label of a token; and whose request this task serves.

`Guard` sets the caller of each request. Side tasks such as the reaper have none: the orchestrator
itself may do everything.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from orchestrator.errors import Forbidden

Role = Literal["agent", "worker", "admin", "read"]


@dataclass(frozen=True)
class Caller:
    """What a credential allows. `label` names it in the audit log; empty where none was needed.
    `tags` are the only ones that it may see and change; None means all."""

    label: str
    role: Role
    tags: frozenset[str] | None = None

    def may_use(self, tag: str) -> bool:
        return self.tags is None or tag in self.tags

    @property
    def identity(self) -> str:
        """Distinct for each label with its rights; empty for NOBODY and ADMIN."""
        if self in (NOBODY, ADMIN):
            return ""
        return " ".join((self.label, self.role, *sorted(self.tags or ())))

    @property
    def worker(self) -> str:
        """The label that owns the GPUs of these calls; empty for a caller who may use all."""
        return self.label if self.role == "worker" else ""

    def check_owns(self, submitted_by: str | None, experiment_id: str) -> None:
        """Raises `Forbidden` for an agent that did not submit this experiment."""
        if self.role == "agent" and submitted_by != self.label:
            raise Forbidden(
                f"{experiment_id} was not submitted with this token: an agent cancels its own."
            )


@dataclass(frozen=True)
class Token:
    """A credential that an admin has made. `sha256` is that of its secret, which is not kept."""

    label: str
    role: Role
    sha256: str
    tags: tuple[str, ...] = ()  # none: good for all
    created_us: int = 0
    expires_us: int | None = None


NOBODY = Caller("", "admin")
# At the paths that ask for no credential, where one is needed elsewhere.
ANONYMOUS = Caller("", "read", frozenset())
# AUTORESEARCH_TOKEN's; no other token may be called so.
ADMIN = Caller("admin", "admin")

_current: ContextVar[Caller] = ContextVar("caller", default=NOBODY)


def current() -> Caller:
    """The caller of the request that this task serves."""
    return _current.get()


@contextmanager
def calling(caller: Caller) -> Iterator[None]:
    token = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(token)
