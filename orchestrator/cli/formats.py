"""The formats of `export`: rows in, bytes out, in order and with constant memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from orchestrator.cli.errors import ConfigError
from orchestrator.cli.text import escaped
from orchestrator.domain import FINISHED
from orchestrator.rules.report import TSV_HEADER, tsv_line
from orchestrator.schemas import ExportRow

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

Format = Literal["jsonl", "parquet", "tsv"]
Write = Callable[[Sequence[ExportRow]], int]

# A row group of this size is what readers of Parquet are made for.
_GROUP_ROWS = 20_000
_TIMES = ("created_at", "started_at", "finished_at")
_FINISHED = frozenset(status.value for status in FINISHED)


@contextmanager
def writer(kind: Format, file: BinaryIO) -> Iterator[Write]:
    """A function that writes rows to `file` and says how many of them it wrote."""
    if kind == "parquet":
        with _parquet(file) as write:
            yield write
        return
    if kind == "tsv":
        file.write(f"{TSV_HEADER}\n".encode())
    yield lambda rows: _text(kind, file, rows)


def ensure_possible(kind: Format) -> None:
    """ConfigError where a format needs what is not installed."""
    if kind != "parquet":
        return
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow: pip install 'n-autoresearch[parquet]', or in a checkout "
            "uv sync --extra parquet"
        ) from error


def _text(kind: Format, file: BinaryIO, rows: Sequence[ExportRow]) -> int:
    if kind == "jsonl":
        lines = [escaped(row.model_dump_json()) for row in rows]
    else:
        lines = [_results_line(row) for row in rows if row.status in _FINISHED]
    file.writelines(f"{line}\n".encode() for line in lines)
    return len(lines)


def _results_line(row: ExportRow) -> str:
    return tsv_line(row.commit_sha, row.status, row.val_bpb, row.peak_vram_mb, row.description)


@contextmanager
def _parquet(file: BinaryIO) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    waiting: list[dict[str, Any]] = []

    def flush() -> None:
        if waiting:
            table.write_table(pa.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

    def write(rows: Sequence[ExportRow]) -> int:
        waiting.extend(_typed(row) for row in rows)
        if len(waiting) >= _GROUP_ROWS:
            flush()
        return len(rows)

    with pq.ParquetWriter(file, schema, compression="zstd") as table:
        yield write
        flush()


def _typed(row: ExportRow) -> dict[str, Any]:
    from datetime import datetime

    values = row.model_dump()
    for name in _TIMES:
        if values[name] is not None:
            values[name] = datetime.fromisoformat(values[name].replace("Z", "+00:00"))
    return values


def _schema() -> "pa.Schema":
    """A column for each field of a row, in its order."""
    import pyarrow as pa

    def kind(name: str, annotation: object) -> pa.DataType:
        if name in _TIMES:
            return pa.timestamp("us", tz="UTC")
        if name == "warnings":
            return pa.list_(pa.string())
        words = str(annotation)
        if "float" in words:
            return pa.float64()
        return pa.int64() if "int" in words else pa.string()

    fields = ExportRow.model_fields
    return pa.schema([pa.field(name, kind(name, f.annotation)) for name, f in fields.items()])
