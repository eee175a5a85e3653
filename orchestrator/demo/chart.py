"""`progress.png`: every run of a tag, the keeps labelled, the best so far as a line.

Draws what it is given and asks nobody. No pyplot: no global state, no display needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox, BboxBase

_INK, _MUTED, _GRID = "#1f2933", "#8a94a0", "#e4e7eb"
_KEEP, _DISCARD, _CRASH = "#0b7a4b", "#9aa5b1", "#c0392b"
_MAX_LABEL = 36
_RAIL = 0.035  # height of the crash rail's marks, in parts of the axes
_LABEL_PLACES = ((8, 10, "left"), (8, -16, "left"), (-8, 10, "right"), (-8, -16, "right"))


@dataclass(frozen=True)
class Point:
    """One decided run. `val_bpb` is None for a crash; `label` stands beside a keep."""

    number: int
    status: str
    val_bpb: float | None
    label: str = ""


def draw(points: Sequence[Point], path: Path, *, title: str, subtitle: str = "") -> None:
    """Write the chart as a PNG. Points are in order of creation; there may be none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), dpi=150, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _frame(axes, title, subtitle)
    measured = [p for p in points if p.val_bpb is not None]
    _fit(axes, points)
    _runs(axes, measured)
    _best_line(axes, measured, last=max((p.number for p in points), default=1))
    _crashes(axes, [p for p in points if p.val_bpb is None])
    if points:
        figure.legend(
            loc="outside lower center", ncols=5, frameon=False, fontsize=9, labelcolor=_INK
        )
    canvas.draw()  # type: ignore[no-untyped-call]  # lays the axes out, so that labels can be placed
    _labels(axes, measured)
    figure.savefig(path, format="png")


def _frame(axes: "Axes", title: str, subtitle: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(
        title, loc="left", fontsize=13, fontweight="bold", color=_INK, pad=22, parse_math=False
    )
    axes.text(
        0,
        1.02,
        subtitle,
        transform=axes.transAxes,
        fontsize=9.5,
        color=_MUTED,
        va="bottom",
        parse_math=False,
    )
    axes.set_xlabel("experiment", color=_INK)
    axes.set_ylabel("val_bpb (lower is better)", color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_MUTED)
    axes.tick_params(colors=_MUTED)


def value_range(points: Sequence[Point]) -> tuple[float, float]:
    """The y-axis: all keeps and most runs, so that one bad run does not flatten the rest.

    The lowest sixth is left to labels and the crash rail.
    """
    values = sorted(p.val_bpb for p in points if p.val_bpb is not None)
    if not values:
        return 0.0, 1.0
    keeps = [p.val_bpb for p in points if p.val_bpb is not None and p.status == "keep"]
    low = values[0]
    quartile = values[(3 * (len(values) - 1)) // 4]
    fence = quartile + 1.5 * max(quartile - low, 1e-6)
    high = max([v for v in values if v <= fence] + keeps)
    height = max(high - low, 0.002 * abs(low), 1e-6)
    return low - 0.3 * height, high + 0.15 * height


def _fit(axes: "Axes", points: Sequence[Point]) -> None:
    axes.set_ylim(*value_range(points))
    last = max((p.number for p in points), default=1)
    first = min((p.number for p in points), default=1)
    axes.set_xlim(first - 0.5, last + max(0.6, 0.12 * (last - first)))


def _runs(axes: "Axes", points: Sequence[Point]) -> None:
    top = axes.get_ylim()[1]
    inside = [p for p in points if (p.val_bpb or 0) <= top]
    for status, colour, size, name in (
        ("discard", _DISCARD, 26, "discarded"),
        ("keep", _KEEP, 62, "kept"),
    ):
        chosen = [p for p in inside if (p.status == "keep") == (status == "keep")]
        if chosen:
            x, y = [p.number for p in chosen], [p.val_bpb or 0 for p in chosen]
            axes.scatter(x, y, s=size, color=colour, zorder=3, label=name, linewidths=0)
    above = [p.number for p in points if (p.val_bpb or 0) > top]
    if above:
        axes.scatter(
            above, [0.985] * len(above), transform=axes.get_xaxis_transform(), marker="^",
            s=30, color=_DISCARD, zorder=3, label="off the scale", clip_on=False,
        )  # fmt: skip


def _best_line(axes: "Axes", points: Sequence[Point], last: int) -> None:
    x: list[float] = []
    y: list[float] = []
    for point in points:
        if point.val_bpb is not None and (not y or point.val_bpb < y[-1]):
            x.append(point.number)
            y.append(point.val_bpb)
    if y:
        x, y = [*x, last + 0.4], [*y, y[-1]]
        axes.plot(x, y, drawstyle="steps-post", color=_KEEP, linewidth=1.6, label="best so far")


def _crashes(axes: "Axes", points: Sequence[Point]) -> None:
    if points:
        axes.scatter(
            [p.number for p in points], [_RAIL] * len(points), marker="x", s=42, color=_CRASH,
            transform=axes.get_xaxis_transform(), zorder=3, linewidths=1.8, label="crashed",
        )  # fmt: skip


def _labels(axes: "Axes", points: Sequence[Point]) -> None:
    """Labels beside the keeps, newest first: off the dots if possible, never on another label."""
    dots = [axes.transData.transform((p.number, p.val_bpb or 0)) for p in points]
    taken: list[Bbox] = []
    for point in reversed([p for p in points if p.status == "keep"]):
        placed = [_label(axes, point, place) for place in _LABEL_PLACES]
        boxes = [label.get_window_extent() for label in placed]
        inside = [b for b in boxes if _covers(axes.get_window_extent(), b)]
        free = [b for b in inside if not any(b.overlaps(other) for other in taken)]
        chosen = min(free, key=lambda b: b.count_contains(dots), default=None)
        for label, box in zip(placed, boxes, strict=True):
            if box is not chosen:
                label.remove()
        if chosen is not None:
            taken.append(chosen)


def _label(axes: "Axes", point: Point, place: tuple[int, int, str]) -> "Annotation":
    from matplotlib.patheffects import withStroke

    label = point.label if len(point.label) <= _MAX_LABEL else point.label[:_MAX_LABEL] + "…"
    dx, dy, side = place
    return axes.annotate(
        f"{point.val_bpb:.4f}  {label}".rstrip(),
        (point.number, point.val_bpb or 0),
        xytext=(dx, dy),
        textcoords="offset points",
        ha=side,
        fontsize=8,
        color=_INK,
        zorder=2.5,
        parse_math=False,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


def _covers(frame: "BboxBase", box: "BboxBase") -> bool:
    return frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
