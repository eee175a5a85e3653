"""What commands print: answers on stdout, everything else on stderr, one JSON document on request.

With `--json`, stdout holds JSON and nothing else, errors included.
"""

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.cli.text import escaped, visible

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

# typer may carry its own copy of click, so the base class is taken from what it exports.
UsageError: type[typer.BadParameter] = typer.BadParameter.__mro__[1]

_PIPE_COLUMNS = 1000


def write_json(data: "BaseModel | dict[str, Any] | list[Any]") -> None:
    """One line of JSON on stdout, at once."""
    content = data if isinstance(data, dict | list) else data.model_dump(mode="json")
    text = json.dumps(content, ensure_ascii=False, default=str)
    sys.stdout.write(escaped(text) + "\n")
    sys.stdout.flush()


def answer(text: str) -> None:
    """One line of the answer on stdout; what a terminal would act on in it is spelt out."""
    sys.stdout.write(visible(text) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line for the person at the terminal. If that was closed, nobody misses it."""
    with contextlib.suppress(OSError):
        sys.stderr.write(visible(text) + "\n")
        sys.stderr.flush()


def console(*, stderr: bool = False) -> "Console":
    """A rich console that takes no markup from data and, in a pipe, folds no lines."""
    from rich.console import Console

    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = _PIPE_COLUMNS
    return made


def fail(message: str, code: int, *, as_json: bool, **extra: Any) -> int:
    """Print an error the way the command line asked for; give back `code`."""
    if as_json:
        write_json({"error": message, "exit_code": code} | extra)
    else:
        note(f"error: {message}")
    return code
