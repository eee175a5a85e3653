"""What the progress chart shows of a history: points, range, running best, labels. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from orchestrator.domain import FINISHED
from orchestrator.rules import sanitize
from orchestrator.schemas import ExportRow

# With more runs than this the x-axis is logarithmic, or the first ones would fill the chart.
LOG_ABOVE = 5_000
MAX_LABELS = 12
# Height of the rail of crashes at the bottom, as a share of the axes.
RAIL = 0.035
# Twice the default threshold of a near miss: smaller differences are noise.
_LEAST_HEIGHT = 0.004
_LABEL_BYTES = 200


@dataclass(frozen=True)
class Point:
    """One decided run; `number` is its place in the order of verdicts, from 1 on.

    `val_bpb` is None for a crash; `label` is drawn beside a keep; `hours` count from the first
    verdict.
    """

    number: int
    status: str
    val_bpb: float | None
    label: str = ""
    hours: float | None = None


def points_of(
    rows: Sequence[ExportRow], estimates: Mapping[str, float] | None = None
) -> list[Point]:
    """The decided runs in the order of verdicts, without cancelled ones and repeats. `estimates` of
    keeps, by id, stand for what one run of each has read."""
    decided = [row for row in _decided(rows) if row.status in FINISHED]
    values = {row.id: row.val_bpb for row in decided} | dict(estimates or {})
    return [
        Point(
            number,
            row.status,
            values[row.id] if row.status in ("keep", "discard") else None,
            sanitize.line(row.description, _LABEL_BYTES) if row.status == "keep" else "",
            (_seconds(row) - _seconds(decided[0])) / 3600,
        )
        for number, row in enumerate(decided, start=1)
    ]


def summary(rows: Sequence[ExportRow], estimates: Mapping[str, float] | None = None) -> str:
    """The search in one line: best, gain, training time, and on what."""
    decided = _decided(rows)
    values = [
        p.val_bpb
        for p in points_of(rows, estimates)
        if p.val_bpb is not None and p.status == "keep"
    ]
    parts = []
    if values:
        best, first = values[-1], values[0]
        gain = f" ({best - first:+.6f}, {100 * (best / first - 1):+.1f} %)" if best < first else ""
        parts.append(f"best {best:.6f}{gain}")
    hours = sum(r.training_seconds or 0 for r in decided) / 3600
    parts.append(f"{hours:.1f} hours of training" if hours >= 1 else f"{60 * hours:.0f} minutes")
    gpus = sorted({r.gpu_name for r in decided if r.gpu_name})
    return " · ".join(parts + (gpus if len(gpus) == 1 else []))


def _decided(rows: Sequence[ExportRow]) -> list[ExportRow]:
    return sorted((r for r in rows if r.finished_at), key=lambda r: r.finished_at or "")


def _seconds(row: ExportRow) -> float:
    return datetime.fromisoformat(row.finished_at or "").timestamp()


def value_range(points: Sequence[Point]) -> tuple[float, float]:
    """The y-axis: from below the best to above the first keep, so that bad runs do not flatten the
    progress. Without progress, the range of most runs.

    The lowest sixth is left to labels and to the rail of crashes.
    """
    values = sorted(p.val_bpb for p in points if p.val_bpb is not None)
    if not values:
        return 0.0, 1.0
    keeps = [p.val_bpb for p in points if p.val_bpb is not None and p.status == "keep"]
    low = values[0]
    top = max(keeps, default=low)
    if top - low < _LEAST_HEIGHT:
        # The highest run that is no outlier (Tukey's fence).
        quartile = values[(3 * (len(values) - 1)) // 4]
        fence = quartile + 1.5 * max(quartile - low, 1e-6)
        top = max(top, *(v for v in values if v <= fence))
    height = max(top - low, _LEAST_HEIGHT, 1e-3 * abs(low))
    return low - 0.25 * height, top + max(0.12 * height, low + height - top)


def running_best(points: Sequence[Point]) -> list[Point]:
    """The runs that were the best when they were decided. An estimate may be above one before it,
    which has moved since."""
    return [point for point in points if point.status == "keep"]


def labelled(points: Sequence[Point], limit: int = MAX_LABELS) -> list[Point]:
    """The keeps that get a label: the latest, the first, then those that gained most."""
    keeps = running_best(points)
    gains = {
        after.number: (before.val_bpb or 0) - (after.val_bpb or 0)
        for before, after in pairwise(keeps)
    }
    middle = sorted(keeps[1:-1], key=lambda p: -gains[p.number])
    return (keeps[-1:] + keeps[:1] * (len(keeps) > 1) + middle)[:limit]
