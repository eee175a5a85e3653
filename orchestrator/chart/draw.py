"""Draws the progress chart with matplotlib: every run a dot, the keeps labelled, the best so far as
a line. Without pyplot: no global state, no display needed.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from orchestrator.chart.values import LOG_ABOVE, RAIL, Point, labelled, running_best, value_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Axis = Literal["order", "time"]

_MAX_LABEL = 38
_RASTER_ABOVE = 2_000  # more dots than this are a bitmap inside an SVG, or it has megabytes
# Where a label may be beside its dot, in points, the best place first.
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
    """Everything about a chart but its points. `width` is in inches; the height follows it."""

    title: str
    subtitle: str = ""
    theme: Theme = LIGHT
    by: Axis = "order"
    width: float = 10.0


def draw(
    points: Sequence[Point], file: BinaryIO, look: Look, kind: Literal["png", "svg"] = "png"
) -> None:
    """Write the chart. Points are in the order of verdicts; there may be none."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # The same history gives the same bytes; letters as paths would make them ten times as many.
    svg: dict[Any, Any] = {"svg.hashsalt": "autoresearch", "svg.fonttype": "none"}
    with rc_context(svg | {"text.parse_math": False}), warnings.catch_warnings():
        # Text in a script that the font lacks is shown as boxes: no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(
            figsize=(look.width, 0.56 * look.width), dpi=150, facecolor=look.theme.paper,
            layout=ConstrainedLayoutEngine(w_pad=0.18, h_pad=0.08),
        )  # fmt: skip
        canvas = FigureCanvasAgg(figure)
        chart = _Chart(figure.add_subplot(), look, points)
        chart.draw(figure)
        canvas.draw()  # type: ignore[no-untyped-call]  # lays the axes out before labels are placed
        chart.label_keeps()
        metadata: dict[str, str | None] = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(file, format=kind, metadata=metadata)


class _Chart:
    def __init__(self, axes: "Axes", look: Look, points: Sequence[Point]) -> None:
        self._axes = axes
        self._look = look
        self._theme = look.theme
        self._points = points
        self._rasterized = len(points) > _RASTER_ABOVE

    def _x(self, points: Sequence[Point]) -> list[float]:
        by_time = self._look.by == "time"
        return [(p.hours or 0.0) if by_time else float(p.number) for p in points]

    def draw(self, figure: "Figure") -> None:
        self._frame()
        self._fit()
        self._runs()
        self._best_line()
        if self._points:
            figure.legend(
                loc="outside lower center", ncols=5, frameon=False, fontsize=9,
                labelcolor=self._theme.muted, handletextpad=0.4, columnspacing=1.8,
            )  # fmt: skip

    def _frame(self) -> None:
        axes, look, theme = self._axes, self._look, self._theme
        muted: dict[str, Any] = {"color": theme.muted, "fontsize": 9.5}
        axes.set_facecolor(theme.paper)
        title = {"fontsize": 14, "fontweight": "bold", "color": theme.ink}
        axes.set_title(look.title, title, loc="left", pad=24)
        axes.text(0, 1.025, look.subtitle, transform=axes.transAxes, va="bottom", **muted)
        names = {"time": "hours since the first verdict", "order": "runs, in order of verdict"}
        axes.set_xlabel(names[look.by], **muted)
        axes.set_ylabel("val_bpb, lower is better", **muted)
        axes.grid(axis="y", color=theme.grid, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(theme.grid)
        axes.tick_params(which="both", colors=theme.muted, labelsize=9, length=0, pad=6)

    def _fit(self) -> None:
        from matplotlib.ticker import MaxNLocator, StrMethodFormatter

        axes, by_order = self._axes, self._look.by == "order"
        axes.set_ylim(*value_range(self._points))
        places = self._x(self._points) or [1.0]
        first, last = min(places), max(places)
        if by_order and len(self._points) > LOG_ABOVE:
            axes.set_xscale("log")
            axes.set_xlim(first * 0.9, last * 1.5)
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        else:
            edge = 0.02 * (last - first)
            left = max(0.5, edge) if by_order else edge
            axes.set_xlim(first - left, last + max(0.6, 0.1 * (last - first)))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=by_order, min_n_ticks=1))
        axes.ticklabel_format(axis="y", useOffset=False)

    def _runs(self) -> None:
        theme, top = self._theme, self._axes.get_ylim()[1]
        measured = [p for p in self._points if p.val_bpb is not None]
        inside = [p for p in measured if (p.val_bpb or 0) <= top]
        kept = [p for p in inside if p.status == "keep"]
        many = len(inside) > 400
        self._dots(
            [p for p in inside if p.status != "keep"], "discarded", color=theme.discard,
            s=9 if many else 24, alpha=0.45 if many else 0.75, zorder=2, linewidths=0,
        )  # fmt: skip
        self._dots(
            kept, "kept", color=theme.keep, s=34 if many else 58, zorder=4,
            edgecolors=theme.paper, linewidths=1.2, rasterized=False,
        )  # fmt: skip
        self._dots(
            [p for p in measured if (p.val_bpb or 0) > top], "off the scale", at=0.985, marker="^",
            s=22, color=theme.discard, zorder=3, clip_on=False, linewidths=0, alpha=0.6,
        )  # fmt: skip
        self._dots(
            [p for p in self._points if p.val_bpb is None and p.status == "discard"],
            "stopped early", at=RAIL, marker="_", s=22, color=theme.discard, zorder=3, alpha=0.75,
        )  # fmt: skip
        crashed = [p for p in self._points if p.val_bpb is None and p.status != "discard"]
        many = len(crashed) > 100
        self._dots(
            crashed, "crashed", at=RAIL, marker="x", s=14 if many else 30, color=theme.crash,
            zorder=3, linewidths=1.4, alpha=0.5 if many else 0.9,
        )  # fmt: skip

    def _dots(
        self, points: Sequence[Point], name: str, *, at: float | None = None, **style: Any
    ) -> None:
        """A dot for each run: at its val_bpb, or all `at` one height, as a share of the axes."""
        if not points:
            return
        options: dict[str, Any] = {"rasterized": self._rasterized, **style}
        if at is not None:
            options["transform"] = self._axes.get_xaxis_transform()
        heights = [(p.val_bpb or 0) if at is None else at for p in points]
        label = f"{len(points):,} {name}"
        self._axes.scatter(self._x(points), heights, label=label, **options)

    def _best_line(self) -> None:
        best = running_best(self._points)
        if not best:
            return
        x = [*self._x(best), max(self._x(self._points))]
        y = [p.val_bpb or 0 for p in [*best, best[-1]]]
        self._axes.plot(
            x, y, drawstyle="steps-post", color=self._theme.keep, linewidth=1.8,
            label="best so far", zorder=3, solid_capstyle="round",
        )  # fmt: skip

    def label_keeps(self) -> None:
        """Labels beside keeps, each where it covers no other label and no kept dot."""
        frame = self._axes.get_window_extent()
        kept = [p for p in self._points if p.status == "keep"]
        dots = [(x, p.val_bpb or 0) for x, p in zip(self._x(kept), kept, strict=True)]
        dots = [tuple(xy) for xy in self._axes.transData.transform(dots)] if dots else []
        taken: list[Bbox] = []
        for point in labelled(self._points):
            for place in _PLACES:
                label = self._label(point, *place)
                box = label.get_window_extent()
                inside = frame.contains(*box.min) and frame.contains(*box.max)
                free = not box.count_overlaps(taken)
                if inside and free and not box.padded(6).count_contains(dots):
                    taken.append(box.padded(2))
                    break
                label.remove()

    def _label(self, point: Point, dx: int, dy: int, side: str) -> Any:
        text = point.label if len(point.label) <= _MAX_LABEL else point.label[:_MAX_LABEL] + "…"
        return self._axes.annotate(
            f"{point.val_bpb:.4f}  {text}".rstrip(),
            (self._x([point])[0], point.val_bpb or 0),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=side,
            fontsize=8.5,
            color=self._theme.ink,
            zorder=5,
            # A halo would turn the letters of an SVG into paths.
            bbox={"facecolor": self._theme.paper, "edgecolor": "none", "alpha": 0.8, "pad": 1.2},
        )
