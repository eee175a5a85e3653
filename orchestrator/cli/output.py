"""What commands print and write: answers on stdout, everything else on stderr, files as a whole.

With `--json`, stdout holds JSON and nothing else, errors included.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import typer

from orchestrator.cli.errors import CommandError
from orchestrator.cli.text import escaped, visible

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console, RenderableType

# typer may carry its own copy of click, so the base class is taken from what it exports.
UsageError: type[typer.BadParameter] = typer.BadParameter.__mro__[1]

_PIPE_COLUMNS = 1000


def write_json(data: "BaseModel | dict[str, Any] | list[Any]") -> None:
    """One line of JSON on stdout, at once."""
    content = data if isinstance(data, dict | list) else data.model_dump(mode="json")
    ascii_only = not (sys.stdout.encoding or "utf").lower().startswith("utf")
    text = json.dumps(content, ensure_ascii=ascii_only, default=str)
    sys.stdout.write(escaped(text) + "\n")
    sys.stdout.flush()


def answer(text: str) -> None:
    """One line of the answer on stdout; control characters in it are spelt out."""
    sys.stdout.write(visible(text) + "\n")
    sys.stdout.flush()


def respond(
    as_json: bool, data: "BaseModel | dict[str, Any] | list[Any]", *things: "RenderableType"
) -> None:
    """The answer in the form that was asked for: `data` as JSON, or `things` for a person."""
    if as_json:
        write_json(data)
        return
    for thing in things:
        answer(thing) if isinstance(thing, str) else console().print(thing)


def note(text: str) -> None:
    """A line for the person at the terminal; no error if the terminal was closed."""
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
    """Print an error in the form that was asked for; return `code`."""
    if as_json:
        write_json({"error": message, "exit_code": code} | extra)
    else:
        note(f"error: {message}")
    return code


@contextmanager
def atomic_file(name: str) -> Iterator[BinaryIO]:
    """The file `name` to write to; `-` is stdout. It is replaced only when all is written."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    path = Path(name)
    try:
        if path.exists() and not path.is_file():  # a device or a pipe cannot be replaced
            with path.open("wb") as file:
                yield file
            return
        target = path.resolve()  # not the link, but the file it points to
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"{name} cannot be written: {error.strerror or error}") from error
