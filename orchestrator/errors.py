"""The error tree: the docstring of a class is its meaning. routes/problems.py maps errors to status
codes."""

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
    """The caller does not have the lease: its epoch is over, or the lease's secret is missing.
    Nothing was changed."""


class LeaseRenewed(Conflict):
    """The lease that seemed dead was renewed after the reaper had read it. Nothing was changed."""


class Invalid(AutoresearchError):
    """The request's content cannot be used (a syntax error in train.py, say)."""


class TooLarge(AutoresearchError):
    """A body or source is over its limit."""


class Forbidden(AutoresearchError):
    """A foreign origin or host name, a page's call without its session's CSRF token, or a call that
    the caller's role, tags or ownership do not allow."""


class Unauthorized(AutoresearchError):
    """A token is configured, and the call carried neither it nor a session."""


class TooManyTries(AutoresearchError):
    """Too many wrong tokens from one address in a short time."""


class Unavailable(AutoresearchError):
    """Redis, the disk (`reason` is then "disk") or the bucket ("store") cannot take the request
    now; it may be sent again."""


class StoreBroken(AutoresearchError):
    """The state in Redis is not what this version writes: a bug or foreign keys."""


class SetupError(AutoresearchError):
    """The service cannot start as configured; the message says what to change."""


def bucket_away(error: AutoresearchError) -> bool:
    return error.extra.get("reason") == "store"


def reason(error: OSError) -> str:
    """What the operating system says, without number and file."""
    return error.strerror or str(error)


# Errors that several modules raise, so that each is worded once.


def unknown_tag(tag: str) -> NotFound:
    return NotFound(f"Unknown tag {tag!r}; create it with POST /api/experiment/setup.")


def unknown_parent(tag: str, parent_id: str) -> NotFound:
    return NotFound(f"Unknown parent_id {parent_id!r} in tag {tag!r}.")


def unknown_experiment(experiment_id: str) -> NotFound:
    return NotFound(f"Unknown experiment {experiment_id!r}.")


def unknown_gpu(gpu_id: str) -> NotFound:
    return NotFound(f"Unknown GPU {gpu_id!r}; GET /api/pool/list has those that are registered.")


def foreign_gpu(gpu_id: str) -> Forbidden:
    return Forbidden(
        f"GPU {gpu_id!r} was registered with another token; an admin takes it out with"
        " POST /api/pool/deregister."
    )


def lease_lost(experiment_id: str, epoch: int | str) -> LeaseLost:
    return LeaseLost(
        f"Epoch {epoch} of {experiment_id} is over: the run was given to another attempt."
    )


def no_lease_secret(experiment_id: str, epoch: int | str) -> LeaseLost:
    return LeaseLost(
        f"Epoch {epoch} of {experiment_id} has a secret, and this call does not carry it: send the"
        " claim's lease_secret."
    )
