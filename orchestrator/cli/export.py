"""`autoresearch export`: a tag's results as a file for other programs."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from orchestrator.cli.errors import ConfigError
from orchestrator.cli.options import Json, Tag, Token, Url
from orchestrator.cli.output import answer, console, write_json

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.formats import Format
    from orchestrator.schemas import ExportPage, ExportRow

_FORMATS = ("jsonl", "parquet", "tsv")


def export(
    tag: Tag,
    *,
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="jsonl, parquet or tsv; by -o's ending."),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - for stdout.")
    ] = "-",
    tsv: Annotated[
        str | None, typer.Option(metavar="FILE", help="The same as --format tsv -o FILE.")
    ] = None,
    journal: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Every decision with its grounds, as JSON lines; -."),
    ] = None,
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Write a tag's experiments (jsonl and parquet: all fields; tsv: results.tsv), or its journal.

    In order of creation, page by page: memory does not grow with the tag.
    """
    from orchestrator.cli.config import connect
    from orchestrator.cli.reports import explained

    kind, file = _wanted(format_, output, tsv)
    if kind is None and journal is None:
        raise ConfigError(
            "say what to write: --format jsonl|parquet|tsv -o FILE, or --journal FILE"
        )
    if [file if kind else None, journal].count("-") + json > 1:
        raise ConfigError("only one of -o -, --journal - and --json can have stdout; name a file")
    told: dict[str, Any] = {}
    with connect(orchestrator, token) as client, explained(client, tag):
        if kind is not None:
            told |= {kind: file, "count": _rows(client, tag, kind, file)}
        if journal is not None:
            told |= {"journal": journal, "entries": _journal(client, tag, journal)}
    if json:
        write_json(told)
        return
    for place, words in ((file if kind else "-", "count"), (journal or "-", "entries")):
        if place != "-":
            answer(f"{told[words]} {'experiments' if words == 'count' else words} in {place}")


def _wanted(given: str | None, output: str, tsv: str | None) -> tuple["Format | None", str]:
    """The format and the file."""
    from orchestrator.cli.formats import ensure_possible

    if tsv is not None:
        if given not in (None, "tsv") or output != "-":
            raise ConfigError("--tsv FILE stands for --format tsv -o FILE: give one or the other")
        return "tsv", tsv
    kind = given or Path(output).suffix.removeprefix(".") or None
    if kind is None:
        return None, output
    if kind not in _FORMATS:
        raise ConfigError(f"--format: '{kind}' is none of {', '.join(_FORMATS)}")
    chosen = cast("Format", kind)
    ensure_possible(chosen)
    if chosen == "parquet" and output == "-":
        raise ConfigError("Parquet is no text: name a file with -o")
    return chosen, output


def _rows(client: "Client", tag: str, kind: "Format", file: str) -> int:
    """Write all experiments; how many."""
    from orchestrator.cli.formats import writer
    from orchestrator.cli.writing import written

    first = client.export_page(tag)  # before the file is opened: there may be no such tag
    with written(file) as out, writer(kind, out) as write:
        return sum(write(page.rows) for page in _with_bar(pages(client, tag, first), file))


def all_rows(client: "Client", tag: str, what: str) -> "Iterator[ExportRow]":
    """Every experiment of a tag in order of creation; the bar says `what` they are for."""
    for page in _with_bar(pages(client, tag, client.export_page(tag)), what):
        yield from page.rows


def pages(client: "Client", tag: str, first: "ExportPage") -> "Iterator[ExportPage]":
    """That page and all after it; an orchestrator that restarts meanwhile is waited for."""
    from orchestrator.cli.patience import patiently

    page = first
    yield page
    while page.next_after is not None:
        page = patiently(partial(client.export_page, tag, after=page.next_after))
        yield page


def _with_bar(source: "Iterator[ExportPage]", file: str) -> "Iterator[ExportPage]":
    """The same pages; stderr shows how many experiments have come by, if it is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    screen = console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not screen.is_terminal or file == "-"
    with Progress(*columns, console=screen, transient=True, disable=hidden) as bar:
        task = bar.add_task(file, total=None)
        for page in source:
            yield page
            bar.update(task, total=page.total, advance=len(page.rows))


def _journal(client: "Client", tag: str, file: str) -> int:
    """Write the journal; how many entries."""
    from orchestrator.cli.writing import written

    entries = 0
    journal = client.stream("/api/report/journal", params={"tag": tag})
    with journal as response, written(file) as out:
        for piece in response.iter_bytes():
            entries += piece.count(b"\n")
            out.write(piece)
    return entries
