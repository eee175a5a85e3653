"""`autoresearch watch`: the search as it goes, on a screen or line by line."""

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import Json, Token, Url
from orchestrator.cli.output import answer, console, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.cli.client import Client
    from orchestrator.cli.watching.gather import Gatherer, View
    from orchestrator.cli.watching.picture import Frame

_CLOCK_SECONDS = 1.0
_PIPED_COLUMNS = 120
_PIPED_LINES = 60


def watch(
    tag: Annotated[
        str | None, typer.Argument(metavar="[TAG]", help="The one that runs by default.")
    ] = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="EVENT", help="In a pipe: the events after this one, too."),
    ] = None,
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """The search as it goes: GPUs, queue, best, learning curve, verdicts. Ctrl-C ends it.

    In a pipe, one line for each thing that happens; with --json, one object.
    """
    from orchestrator.cli.config import connect
    from orchestrator.cli.serve import interruptible
    from orchestrator.cli.watching.gather import Gatherer

    screen = console()
    with connect(orchestrator, token) as client:
        gatherer = Gatherer(client, tag)
        view = gatherer.look()
        if once:
            _show_once(view, screen, as_json=json)
            return
        drawn = screen.is_terminal and not screen.is_dumb_terminal and not json
        with contextlib.suppress(KeyboardInterrupt), interruptible():
            if drawn:
                _live(client, gatherer, view, screen)
            else:
                _lines(client, view, tag, since, as_json=json)


def _live(client: "Client", gatherer: "Gatherer", view: "View", screen: "Console") -> None:
    """Draw on the terminal's other screen until told to stop; this one is then as it was."""
    from rich.live import Live

    from orchestrator.cli.events import Follower
    from orchestrator.cli.watching.follow import Watcher
    from orchestrator.cli.watching.picture import picture, standing

    watcher = Watcher(gatherer, Follower(client), view)
    try:
        with Live(console=screen, screen=True, auto_refresh=False) as live, watcher:
            while watcher.failure is None:
                frame = _frame(screen, watcher.stale)
                live.update(picture(watcher.view, frame), refresh=True)
                watcher.changed.wait(_CLOCK_SECONDS)
                watcher.changed.clear()
    finally:
        screen.print(*standing(watcher.view), sep="\n")
    raise watcher.failure


def _lines(
    client: "Client", view: "View", tag: str | None, since: str | None, *, as_json: bool
) -> None:
    """One line for each thing that happens, until told to stop or nobody reads any more."""
    from orchestrator.cli.events import Follower
    from orchestrator.cli.watching.lines import line, object_of
    from orchestrator.cli.watching.picture import standing

    try:
        if not as_json:
            for words in standing(view):
                answer(words.plain)
        for sign in Follower(client, tag, since):
            write_json(object_of(sign)) if as_json else answer(line(sign))
    except BrokenPipeError:
        # Python flushes stdout once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_once(view: "View", screen: "Console", *, as_json: bool) -> None:
    from orchestrator.cli.watching.picture import picture

    if as_json:
        write_json(view.as_dict())
        return
    if not screen.is_terminal:
        screen.width, screen.height = _PIPED_COLUMNS, _PIPED_LINES
    screen.print(picture(view, _frame(screen)))


def _frame(screen: "Console", stale: str = "") -> "Frame":
    from orchestrator.cli.watching.picture import Frame

    unicode = screen.encoding.lower().startswith("utf")
    return Frame(screen.width, screen.height, time.time(), stale, unicode)
