"""Draws the progress chart with matplotlib: every run a dot, the keeps labelled, the best so far as
a line. No pyplot: no global state, no display needed.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO, Literal

from orchestrator.chart.values import (
    LOG_ABOVE,
    RAIL,
    Point,
    labelled,
    running_best,
    value_range,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox, BboxBase

Axis = Literal["order", "time"]

_MAX_LABEL = 38
_RASTER_ABOVE = 2_000  # dots of an SVG that would be megabytes become a picture inside it
# Where a label may stand beside its dot, in points, the best place first.
_PLACES = (
    (9, 9, "left"), (9, -15, "left"), (-9, -15, "right"), (9, 24, "left"), (9, -30, "left"),
    (-9, 9, "right"), (-9, -30, "right"),
)  # fmt: skip


@dataclass(frozen=True)
class Theme:
    paper: str
    ink: str
    muted: str
    grid: str
    keep: str
    discard: str
    crash: str


LIGHT = Theme(
    "#ffffff", "#14181f", "#556070", "#e6e9ee", keep="#126857", discard="#868f9d", crash="#b81200"
)
DARK = Theme(
    "#0f1318", "#e8ecf1", "#9aa6b5", "#232a33", keep="#86eab8", discard="#6b7685", crash="#ff7a33"
)


@dataclass(frozen=True)
class Look:
    """Everything about a chart but its points. Sizes are in inches."""

    title: str
    subtitle: str = ""
    theme: Theme = LIGHT
    by: Axis = "order"
    width: float = 10.0
    height: float = 5.6
    dpi: int = 150


def draw(
    points: Sequence[Point], file: BinaryIO, look: Look, kind: Literal["png", "svg"] = "png"
) -> None:
    """Write the chart. Points are in the order of verdicts; there may be none."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # The same history gives the same bytes; letters as paths would make them ten times as many.
    style = rc_context({"svg.hashsalt": "autoresearch", "svg.fonttype": "none"})
    with style, warnings.catch_warnings():
        # Text in a script that the font lacks is shown as boxes: no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(
            figsize=(look.width, look.height), dpi=look.dpi, facecolor=look.theme.paper,
            layout=ConstrainedLayoutEngine(w_pad=0.18, h_pad=0.08),
        )  # fmt: skip
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _Chart(axes, look, points).draw(figure)
        canvas.draw()  # type: ignore[no-untyped-call]  # lays the axes out, so that labels can be placed
        _labels(axes, look, points)
        metadata: dict[str, str | None] = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(file, format=kind, metadata=metadata)


def position(point: Point, look: Look) -> float:
    """Where a run stands on the x-axis."""
    return (point.hours or 0.0) if look.by == "time" else float(point.number)


class _Chart:
    def __init__(self, axes: "Axes", look: Look, points: Sequence[Point]) -> None:
        self._axes = axes
        self._look = look
        self._theme = look.theme
        self._points = points
        self._measured = [p for p in points if p.val_bpb is not None]
        self._rasterized = len(points) > _RASTER_ABOVE

    def draw(self, figure: "Figure") -> None:
        self._frame()
        self._fit()
        self._runs()
        self._best_line()
        self._crashes()
        if self._points:
            figure.legend(
                loc="outside lower center", ncols=5, frameon=False, fontsize=9,
                labelcolor=self._theme.muted, handletextpad=0.4, columnspacing=1.8,
            )  # fmt: skip

    def _frame(self) -> None:
        axes, look, theme = self._axes, self._look, self._theme
        axes.set_facecolor(theme.paper)
        axes.set_title(
            look.title, loc="left", fontsize=14, fontweight="bold", color=theme.ink, pad=24,
            parse_math=False,
        )  # fmt: skip
        axes.text(
            0, 1.025, look.subtitle, transform=axes.transAxes, fontsize=9.5, color=theme.muted,
            va="bottom", parse_math=False,
        )  # fmt: skip
        words = (
            "hours since the first verdict" if look.by == "time" else "runs, in order of verdict"
        )
        axes.set_xlabel(words, color=theme.muted, fontsize=9.5)
        axes.set_ylabel("val_bpb, lower is better", color=theme.muted, fontsize=9.5)
        axes.grid(axis="y", color=theme.grid, linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(theme.grid)
        axes.tick_params(which="both", colors=theme.muted, labelsize=9, length=0, pad=6)

    def _fit(self) -> None:
        from matplotlib.ticker import MaxNLocator, StrMethodFormatter

        axes = self._axes
        axes.set_ylim(*value_range(self._points))
        places = [position(p, self._look) for p in self._points] or [1.0]
        first, last = min(places), max(places)
        if self._look.by == "order" and len(self._points) > LOG_ABOVE:
            axes.set_xscale("log")
            axes.set_xlim(first * 0.9, last * 1.5)
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        else:
            edge = 0.02 * (last - first)
            axes.set_xlim(first - max(0.5, edge) if self._look.by == "order" else first - edge,
                          last + max(0.6, 0.1 * (last - first)))  # fmt: skip
            whole = self._look.by == "order"
            axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=whole, min_n_ticks=1))
        axes.ticklabel_format(axis="y", useOffset=False)

    def _runs(self) -> None:
        axes, theme = self._axes, self._theme
        top = axes.get_ylim()[1]
        inside = [p for p in self._measured if (p.val_bpb or 0) <= top]
        many = len(inside) > 400
        self._dots(
            [p for p in inside if p.status != "keep"], "discarded", theme.discard,
            size=9 if many else 24, alpha=0.45 if many else 0.75, zorder=2,
        )  # fmt: skip
        self._dots(
            [p for p in inside if p.status == "keep"], "kept", theme.keep,
            size=34 if many else 58, alpha=1.0, zorder=4,
        )  # fmt: skip
        above = [p for p in self._measured if (p.val_bpb or 0) > top]
        if above:
            axes.scatter(
                [position(p, self._look) for p in above], [0.985] * len(above), marker="^", s=22,
                transform=axes.get_xaxis_transform(), color=theme.discard, zorder=3, clip_on=False,
                label=f"{len(above):,} off the scale", linewidths=0, rasterized=self._rasterized,
                alpha=0.6,
            )  # fmt: skip

    def _dots(
        self, points: Sequence[Point], name: str, colour: str, *, size: float, alpha: float,
        zorder: float,
    ) -> None:  # fmt: skip
        if points:
            edge = self._theme.paper if name == "kept" else "none"
            self._axes.scatter(
                [position(p, self._look) for p in points], [p.val_bpb or 0 for p in points], s=size,
                color=colour, alpha=alpha, zorder=zorder, label=f"{len(points):,} {name}",
                edgecolors=edge, linewidths=1.2 if edge != "none" else 0,
                rasterized=self._rasterized and name != "kept",
            )  # fmt: skip

    def _best_line(self) -> None:
        best = running_best(self._points)
        if not best:
            return
        x = [position(p, self._look) for p in best]
        y = [p.val_bpb or 0 for p in best]
        end = max(position(p, self._look) for p in self._points)
        self._axes.plot(
            [*x, end], [*y, y[-1]], drawstyle="steps-post", color=self._theme.keep, linewidth=1.8,
            label="best so far", zorder=3, solid_capstyle="round",
        )  # fmt: skip

    def _crashes(self) -> None:
        crashed = [p for p in self._points if p.val_bpb is None]
        if crashed:
            many = len(crashed) > 100
            self._axes.scatter(
                [position(p, self._look) for p in crashed], [RAIL] * len(crashed), marker="x",
                s=14 if many else 30, color=self._theme.crash, zorder=3, linewidths=1.4,
                transform=self._axes.get_xaxis_transform(), label=f"{len(crashed):,} crashed",
                alpha=0.5 if many else 0.9, rasterized=self._rasterized,
            )  # fmt: skip


# ---------------------------------------------------------------------------------------- labels


def _labels(axes: "Axes", look: Look, points: Sequence[Point]) -> None:
    """Labels beside keeps: never on another label or a kept dot, if possible off the rest."""
    kept = _pixels(axes, look, [p for p in points if p.status == "keep"])
    others = [p for p in points if p.val_bpb is not None and p.status != "keep"]
    hidden = _corners(_pixels(axes, look, running_best(points)))
    if len(others) <= _RASTER_ABOVE:  # more cannot be kept clear
        hidden += _pixels(axes, look, others)
    taken: list[Bbox] = []
    for point in labelled(points):
        placed = [_label(axes, look, point, place) for place in _PLACES]
        boxes = [label.get_window_extent() for label in placed]
        free = [
            box
            for box in boxes
            if _covers(axes.get_window_extent(), box)
            and not any(box.overlaps(other) for other in taken)
            and not box.padded(6).count_contains(kept)
        ]
        chosen = min(free, key=lambda b: b.count_contains(hidden) if hidden else 0, default=None)
        for label, box in zip(placed, boxes, strict=True):
            if box is not chosen:
                label.remove()
        if chosen is not None:
            taken.append(chosen.padded(2))


def _pixels(axes: "Axes", look: Look, points: Sequence[Point]) -> list[tuple[float, float]]:
    places = [(position(p, look), p.val_bpb or 0) for p in points]
    return [tuple(xy) for xy in axes.transData.transform(places)] if places else []


def _corners(dots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Places along the step line through `dots`, some ten pixels apart."""
    along: list[tuple[float, float]] = []
    for (x, y), (next_x, next_y) in pairwise(dots):
        along += [(x + step, y) for step in range(0, int(next_x - x), 10)]
        along += [(next_x, y - step) for step in range(0, int(y - next_y), 10)]
    return along


def _label(axes: "Axes", look: Look, point: Point, place: tuple[int, int, str]) -> "Annotation":
    text = point.label if len(point.label) <= _MAX_LABEL else point.label[:_MAX_LABEL] + "…"
    dx, dy, side = place
    return axes.annotate(
        f"{point.val_bpb:.4f}  {text}".rstrip(),
        (position(point, look), point.val_bpb or 0),
        xytext=(dx, dy),
        textcoords="offset points",
        ha=side,
        fontsize=8.5,
        color=look.theme.ink,
        zorder=5,
        parse_math=False,
        # A halo would turn the letters of an SVG into paths.
        bbox={"facecolor": look.theme.paper, "edgecolor": "none", "alpha": 0.8, "pad": 1.2},
    )


def _covers(frame: "BboxBase", box: "BboxBase") -> bool:
    return frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
