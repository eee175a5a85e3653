"""`autoresearch chart`: the progress of a tag as a picture."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from orchestrator.cli.errors import ConfigError
from orchestrator.cli.options import Json, Tag, Token, Url
from orchestrator.cli.output import answer, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.chart.draw import Axis
    from orchestrator.chart.values import Point
    from orchestrator.schemas import ExportRow

_LABEL_BYTES = 200


def chart(
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
    orchestrator: Url = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Draw a tag's progress: every run a dot, the keeps labelled, the best so far as a line."""
    from orchestrator.chart.draw import DARK, LIGHT, Look, draw
    from orchestrator.cli.config import connect
    from orchestrator.cli.export import all_rows
    from orchestrator.cli.reports import explained
    from orchestrator.cli.writing import written

    kind = Path(output).suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise ConfigError(f"-o {output}: a name that ends in .png or .svg is wanted")
    if by not in ("order", "time"):
        raise ConfigError(f"--by: '{by}' is neither order nor time")
    with connect(orchestrator, token) as client, explained(client, tag):
        rows = list(all_rows(client, tag, output))
    points = points_of(rows)
    look = Look(
        title=title or tag,
        subtitle=summary(rows) if subtitle is None else subtitle,
        theme=DARK if dark else LIGHT,
        by=cast("Axis", by), width=width, height=0.56 * width,
    )  # fmt: skip
    with written(output) as file:
        draw(points, file, look, cast('Literal["png", "svg"]', kind))
    if json:
        write_json({"file": output, "runs": len(points)})
    else:
        answer(f"{len(points)} runs in {output}")


def points_of(rows: "Sequence[ExportRow]") -> "list[Point]":
    """The decided runs in the order of verdicts; what was cancelled says nothing."""
    from orchestrator.chart.values import Point
    from orchestrator.rules import sanitize

    decided = [r for r in rows if r.finished_at and r.status != "cancelled"]
    decided.sort(key=lambda r: r.finished_at or "")
    return [
        Point(
            number,
            row.status,
            row.val_bpb if row.status in ("keep", "discard") else None,
            sanitize.line(row.description, _LABEL_BYTES) if row.status == "keep" else "",
            (_seconds(row.finished_at) - _seconds(decided[0].finished_at)) / 3600,
        )
        for number, row in enumerate(decided, start=1)
    ]


def summary(rows: "Sequence[ExportRow]") -> str:
    """The search in one line: best, gain, training time, and on what."""
    decided = sorted((r for r in rows if r.finished_at), key=lambda r: r.finished_at or "")
    values = [r.val_bpb for r in decided if r.val_bpb is not None and r.status == "keep"]
    parts = []
    if values:
        best, first = values[-1], values[0]
        gain = f" ({best - first:+.6f}, {100 * (best / first - 1):+.1f} %)" if best < first else ""
        parts.append(f"best {best:.6f}{gain}")
    hours = sum(r.training_seconds or 0 for r in decided) / 3600
    parts.append(f"{hours:.1f} hours of training" if hours >= 1 else f"{60 * hours:.0f} minutes")
    gpus = sorted({r.gpu_name for r in decided if r.gpu_name})
    if len(gpus) == 1:
        parts.append(gpus[0])
    return " · ".join(parts)


def _seconds(moment: str | None) -> float:
    return datetime.fromisoformat((moment or "").replace("Z", "+00:00")).timestamp()
