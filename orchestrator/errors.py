"""The error tree. What each class means is its docstring; only app.py maps them to HTTP."""

from typing import Any


class AutoresearchError(Exception):
    """A request cannot be served; the message is one line for the caller and says what to do."""

    def __init__(self, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.message = message
        self.extra = extra


class NotFound(AutoresearchError):
    """No such tag, experiment, GPU or file."""


class Conflict(AutoresearchError):
    """The request is well formed, but the state it met does not allow it."""


class LeaseLost(Conflict):
    """The caller's epoch was superseded: somebody else owns the run now. Nothing was changed."""


class Invalid(AutoresearchError):
    """The request's content cannot be used (a syntax error in train.py, say)."""


class TooLarge(AutoresearchError):
    """A body or source is over its limit."""


class Forbidden(AutoresearchError):
    """A foreign origin or host name, or a page's call without its session's CSRF token."""


class Unauthorized(AutoresearchError):
    """A token is configured, and the call carried neither it nor a session."""


class TooManyTries(AutoresearchError):
    """Too many wrong tokens from one address in a short time."""


class Unavailable(AutoresearchError):
    """Redis or the disk (`reason` is then "disk") cannot take the request now; it may be sent
    again."""


class StoreBroken(AutoresearchError):
    """The state in Redis is not what this version writes: a bug or foreign keys."""


class SetupError(AutoresearchError):
    """The service cannot start as configured; the message says what to change."""
