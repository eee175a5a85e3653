"""`autoresearch export` and `chart`: a tag's results as files, read page by page."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, cast

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from orchestrator.chart.draw import DARK, LIGHT, Axis, Look, draw
from orchestrator.chart.values import points_of, summary
from orchestrator.cli.client import Client, retried
from orchestrator.cli.errors import ConfigError, needs
from orchestrator.cli.options import Tag
from orchestrator.cli.output import answer, atomic_file, console, respond, write_json
from orchestrator.cli.text import escaped
from orchestrator.domain import FINISHED
from orchestrator.rules.report import TSV_HEADER, tsv_line
from orchestrator.schemas import ExportPage, ExportRow

_FORMATS = ("jsonl", "parquet", "tsv")
_TIMES = ("created_at", "started_at", "finished_at")
_Write = Callable[[Sequence[ExportRow]], int]


def export(
    client: Client,
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
    json: bool,
) -> None:
    """jsonl and parquet have all fields, tsv is results.tsv. In order of creation, page by page:
    memory does not grow with the tag."""
    kind, file = _format_and_file(format_, output, tsv)
    if kind is None and journal is None:
        raise ConfigError(
            "say what to write: --format jsonl|parquet|tsv -o FILE, or --journal FILE"
        )
    if [file if kind else None, journal].count("-") + json > 1:
        raise ConfigError("only one of -o -, --journal - and --json can have stdout; name a file")
    told: dict[str, Any] = {}
    if kind is not None:
        told |= {kind: file, "count": _write_rows(client, tag, kind, file)}
    if journal is not None:
        told |= {"journal": journal, "entries": _write_journal(client, tag, journal)}
    if json:
        write_json(told)
        return
    if kind is not None and file != "-":
        answer(f"{told['count']} experiments in {file}")
    if journal not in (None, "-"):
        answer(f"{told['entries']} entries in {journal}")


def _format_and_file(given: str | None, output: str, tsv: str | None) -> tuple[str | None, str]:
    if tsv is not None:
        if given not in (None, "tsv") or output != "-":
            raise ConfigError("--tsv FILE stands for --format tsv -o FILE: give one or the other")
        return "tsv", tsv
    kind = given or Path(output).suffix.removeprefix(".") or None
    if kind is None:
        return None, output
    if kind not in _FORMATS:
        raise ConfigError(f"--format: '{kind}' is not one of {', '.join(_FORMATS)}")
    if kind == "parquet":
        needs("pyarrow.parquet", "Parquet needs pyarrow", "parquet")
        if output == "-":
            raise ConfigError("Parquet is no text: name a file with -o")
    return kind, output


def _write_rows(client: Client, tag: str, kind: str, file: str) -> int:
    """Write all experiments; how many."""
    first = client.export_page(tag)  # before the file is opened: there may be no such tag
    writer = _parquet if kind == "parquet" else _jsonl if kind == "jsonl" else _tsv
    with atomic_file(file) as out, writer(out) as write:
        return sum(write(page.rows) for page in _pages(client, tag, first, file))


def all_rows(client: Client, tag: str, what: str = "-") -> Iterator[ExportRow]:
    """Every experiment of a tag in order of creation; a bar names `what` unless that is `-`."""
    for page in _pages(client, tag, client.export_page(tag), what):
        yield from page.rows


def _pages(client: Client, tag: str, page: ExportPage, file: str) -> Iterator[ExportPage]:
    """That page and all after it; a bar shows how many experiments were read."""
    screen = console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not screen.is_terminal or file == "-"
    with Progress(*columns, console=screen, transient=True, disable=hidden) as bar:
        task = bar.add_task(file, total=None)
        while True:
            yield page
            bar.update(task, total=page.total, advance=len(page.rows))
            if page.next_after is None:
                return
            page = retried(partial(client.export_page, tag, after=page.next_after))


def _write_journal(client: Client, tag: str, file: str) -> int:
    """Write the journal; how many entries."""
    entries = 0
    journal = client.stream("/api/report/journal", params={"tag": tag})
    with journal as response, atomic_file(file) as out:
        for piece in response.iter_bytes():
            entries += piece.count(b"\n")
            out.write(piece)
    return entries


@contextmanager
def _jsonl(file: BinaryIO) -> Iterator[_Write]:
    def write(rows: Sequence[ExportRow]) -> int:
        file.writelines(f"{escaped(row.model_dump_json())}\n".encode() for row in rows)
        return len(rows)

    yield write


@contextmanager
def _tsv(file: BinaryIO) -> Iterator[_Write]:
    def write(rows: Sequence[ExportRow]) -> int:
        done = [row for row in rows if row.status in FINISHED]
        for r in done:
            predicted = r.predicted_val_bpb if r.stopped_early else None
            values = (r.val_bpb, r.peak_vram_mb, r.description, predicted)
            line = tsv_line(r.commit_sha, r.status, *values)
            file.write(f"{line}\n".encode())
        return len(done)

    file.write(f"{TSV_HEADER}\n".encode())
    yield write


@contextmanager
def _parquet(file: BinaryIO) -> Iterator[_Write]:
    """A row group for each page, a column for each field of a row."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    def column(name: str, annotation: str) -> pa.DataType:
        if name in _TIMES:
            return pa.timestamp("us", tz="UTC")
        if name == "warnings":
            return pa.list_(pa.string())
        if "float" in annotation:
            return pa.float64()
        if "bool" in annotation:
            return pa.bool_()
        return pa.int64() if "int" in annotation else pa.string()

    fields = ExportRow.model_fields
    schema = pa.schema([(name, column(name, str(f.annotation))) for name, f in fields.items()])

    def write(rows: Sequence[ExportRow]) -> int:
        values = [row.model_dump() for row in rows]
        for row in values:
            row |= {name: datetime.fromisoformat(row[name].replace("Z", "+00:00"))
                    for name in _TIMES if row[name] is not None}  # fmt: skip
        table.write_table(pa.Table.from_pylist(values, schema=schema))
        return len(rows)

    with pq.ParquetWriter(file, schema, compression="zstd") as table:
        yield write


def chart(
    client: Client,
    tag: Tag,
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="A .png or .svg file.")
    ] = "progress.png",
    dark: Annotated[bool, typer.Option("--dark", help="For a dark page.")] = False,
    by: Annotated[str, typer.Option(metavar="order|time", help="What the x-axis is.")] = "order",
    title: Annotated[str | None, typer.Option(help="Instead of the tag's name.")] = None,
    subtitle: Annotated[
        str | None, typer.Option(help="Instead of best, training time and GPU.")
    ] = None,
    width: Annotated[
        float, typer.Option(min=4, max=40, metavar="INCHES", help="150 dots an inch.")
    ] = 10,
    json: bool,
) -> None:
    """Every run is a dot, the best so far a line; the keeps that gained most have labels."""
    needs("matplotlib", "the chart needs matplotlib", "demo")
    kind = Path(output).suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise ConfigError(f"-o {output}: a name that ends in .png or .svg is wanted")
    if by not in ("order", "time"):
        raise ConfigError(f"--by: '{by}' is neither order nor time")
    rows = list(all_rows(client, tag, output))
    told = client.summary(tag)
    estimates = {keep.id: keep.val_bpb for keep in told.bpb_progression}
    if told.best is not None:
        estimates[told.best.experiment_id] = told.best.val_bpb
    points = points_of(rows, estimates)
    look = Look(
        title=title or tag,
        subtitle=summary(rows, estimates) if subtitle is None else subtitle,
        theme=DARK if dark else LIGHT,
        by=cast("Axis", by),
        width=width,
    )
    with atomic_file(output) as file:
        draw(points, file, look, cast('Literal["png", "svg"]', kind))
    respond(json, {"file": output, "runs": len(points)}, f"{len(points)} runs in {output}")
