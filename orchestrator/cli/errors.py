"""How a command fails. Each class has its exit code; messages say what to do."""

from importlib import import_module
from typing import Any

from orchestrator.errors import AutoresearchError

FAILED, USAGE, UNREACHABLE, DISCARDED, UNDECIDED, INTERRUPTED = 1, 2, 3, 4, 5, 130


class CommandError(AutoresearchError):
    """The thing that was asked for failed."""

    exit_code = FAILED


class ConfigError(CommandError):
    """A setting, a flag or a file on this machine must be changed first."""

    exit_code = USAGE


class UnreachableError(CommandError):
    """No orchestrator answers, or it cannot serve at the moment."""

    exit_code = UNREACHABLE


class UndecidedError(CommandError):
    """The time to wait is over, and the run goes on."""

    exit_code = UNDECIDED


class ApiError(CommandError):
    """The orchestrator refused: HTTP `status`, its one-line `error`, and the whole `body`."""

    def __init__(self, status: int, error: str, body: dict[str, Any]) -> None:
        super().__init__(error, **{k: v for k, v in body.items() if k != "error"})
        self.status = status
        self.error = error
        self.body = body
        # A body that it cannot use, or a missing token, is for the caller to change.
        self.exit_code = USAGE if status in (400, 401, 403, 422) else FAILED


def needs(module: str, what: str, extra: str) -> None:
    """ConfigError that names the extra to install, if `module` cannot be imported."""
    try:
        import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{what}: pip install 'n-autoresearch[{extra}]', or in a checkout "
            f"uv sync --extra {extra}"
        ) from error
