"""`autoresearch watch`: the search as it goes, drawn on a terminal or line by line in a pipe."""

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.live import Live as LiveScreen

from orchestrator import schemas
from orchestrator.cli.client import Client, unknown_tag
from orchestrator.cli.errors import ApiError, UnreachableError
from orchestrator.cli.events import Event, Follower, Live, Lost, Missed, Sign
from orchestrator.cli.output import answer, console, write_json
from orchestrator.cli.picture import Frame, View, picture, status_lines
from orchestrator.cli.run.process import interruptible
from orchestrator.cli.text import one_line

_REFRESH_SECONDS = 1.0
# A call that takes longer makes the picture stale.
_CALL_SECONDS = 5.0
_PIPED_COLUMNS, _PIPED_LINES = 120, 60
# Runs whose progress is read, each by a call of its own; more would not fit a screen.
_SHOWN_RUNS = 16
_RECENT, _QUEUE = 40, 20


def watch(
    client: Client,
    tag: Annotated[
        str | None, typer.Argument(metavar="[TAG]", help="The one that runs by default.")
    ] = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="EVENT", help="In a pipe: the events after this one, too."),
    ] = None,
    json: bool,
) -> None:
    """Ctrl-C ends it. In a pipe, one line for each event; with --json, one object."""
    screen = console()
    view = look(client, tag)
    if once and json:
        write_json(TypeAdapter(View).dump_python(view, mode="json"))
        return
    if once:
        if not screen.is_terminal:
            screen.width, screen.height = _PIPED_COLUMNS, _PIPED_LINES
        screen.print(picture(view, _frame(screen)))
        return
    drawn = screen.is_terminal and not screen.is_dumb_terminal and not json
    with contextlib.suppress(KeyboardInterrupt), interruptible():
        if drawn:
            _draw(client, tag, view, screen)
        else:
            _print_events(client, view, tag, since, as_json=json)


def _draw(client: Client, tag: str | None, view: View, screen: Console) -> None:
    """Draw on the terminal's alternate screen until interrupted."""
    client.set_timeout(_CALL_SECONDS)
    stale = ""
    try:
        with LiveScreen(console=screen, screen=True, auto_refresh=False) as live:
            while True:
                live.update(picture(view, _frame(screen, stale)), refresh=True)
                time.sleep(_REFRESH_SECONDS)
                try:
                    view, stale = look(client, tag), ""
                except UnreachableError as error:
                    stale = error.message
    finally:
        screen.print(*status_lines(view), sep="\n")


def _frame(screen: Console, stale: str = "") -> Frame:
    unicode = screen.encoding.lower().startswith("utf")
    return Frame(screen.width, screen.height, time.time(), stale, unicode)


def look(client: Client, wanted: str | None) -> View:
    """A few reads whose cost does not grow with the number of experiments.

    CommandError for a tag that does not exist.
    """
    pool = client.pool()
    running = _runs(client, pool)
    tag = _tag(client, wanted, running)
    view = View(client.url, time.time(), pool, tag, running=running)
    if tag is None:
        return view
    name, best = tag.name, tag.best_experiment_id
    history = client.history(name, limit=_RECENT).experiments
    queue = client.export_page(name, status="queued", limit=_QUEUE).rows
    view.summary = client.summary(name)
    view.strategy = client.strategy(name)
    view.queue = sorted(queue, key=lambda row: (-row.priority, row.created_at))
    ended = (r for r in history if r.finished_at or r.status == "candidate")
    # A candidate's verdict is to come, so it stands first.
    view.recent = sorted(ended, key=lambda r: r.finished_at or "~", reverse=True)
    view.best = client.experiment(best) if best else None
    return view


def _tag(
    client: Client, wanted: str | None, running: Mapping[str, schemas.ExperimentDetail]
) -> schemas.TagInfo | None:
    """The one asked for; else that of the first run; else the newest."""
    tags = {tag.name: tag for tag in client.tags()}
    if wanted is not None:
        if wanted not in tags:
            raise unknown_tag(wanted, list(tags))
        return tags[wanted]
    of_a_run = [tags[run.tag] for run in running.values()]
    return next(iter([*of_a_run, *tags.values()]), None)


def _runs(client: Client, pool: schemas.PoolAnswer) -> dict[str, schemas.ExperimentDetail]:
    ids = [w.current_experiment_id for w in pool.workers if w.current_experiment_id]
    found = {}
    for experiment_id in ids[:_SHOWN_RUNS]:
        with contextlib.suppress(ApiError):  # a worker may have an id of another Redis
            found[experiment_id] = client.experiment(experiment_id)
    return found


def _print_events(
    client: Client, view: View, tag: str | None, since: str | None, *, as_json: bool
) -> None:
    """One line for each event, until interrupted or the reader of the pipe is gone."""
    try:
        if not as_json:
            for words in status_lines(view):
                answer(words.plain)
        for sign in Follower(client, tag, since):
            write_json(object_of(sign)) if as_json else answer(line(sign))
    except BrokenPipeError:
        # Python flushes stdout once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def line(sign: Sign) -> str:
    """A sign of the event stream in words, with the local time in front."""
    moment = datetime.now(timezone.utc)
    if isinstance(sign, Event):  # its id begins with Redis' time in milliseconds
        moment = datetime.fromtimestamp(int(sign.id.partition("-")[0]) / 1000, timezone.utc)
    return f"{moment.astimezone():%H:%M:%S} {one_line(_words(sign))}"


def object_of(sign: Sign) -> dict[str, Any]:
    """The same for a script; an event's `id` is what `--since` takes."""
    if isinstance(sign, Event):
        return {"event": sign.kind, "id": sign.id, "tag": sign.tag, "subject": sign.subject,
                **sign.data}  # fmt: skip
    name = type(sign).__name__.lower()
    return {"event": name, "why": sign.why} if isinstance(sign, Lost) else {"event": name}


def _words(sign: Sign) -> str:
    if isinstance(sign, Live):
        return "following the orchestrator's events"
    if isinstance(sign, Lost):
        return f"stale: {sign.why}; trying again"
    if isinstance(sign, Missed):
        return "some events may have been missed"
    data = sign.data
    words = [sign.kind, sign.subject or sign.tag]
    if data.get("status"):
        words.append(str(data["status"]))
    if data.get("val_bpb"):
        words.append(f"val_bpb {float(data['val_bpb']):.6f}")
    if data.get("mode"):
        words.append(f"{data['mode']}: {data.get('reason', '')}")
    if data.get("gpu_id"):
        words.append(f"on {data['gpu_id']}")
    return " ".join(words)
