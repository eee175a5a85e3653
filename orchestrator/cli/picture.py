"""The picture that `watch` draws: from a view and a size to something rich can print. Pure.

In a small window details of the pool go first, then whole columns, then the curve; how far the
search got and what is wrong stay.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator import schemas
from orchestrator.cli.tables import coloured, open_runs, plain
from orchestrator.cli.text import one_line
from orchestrator.rules import failure

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " .:-=+*#@"
_WIDE, _MEDIUM = 110, 72
_HOT_CELSIUS = 85


@dataclass
class View:
    """The system at one moment. `tag` is None where there is none yet; `recent` has candidates
    first, then the latest decision, `queue` what comes next; `as_of` is this machine's clock, in
    seconds."""

    url: str
    as_of: float
    pool: schemas.PoolAnswer
    tag: schemas.TagInfo | None = None
    summary: schemas.SummaryAnswer | None = None
    strategy: schemas.Strategy | None = None
    running: Mapping[str, schemas.ExperimentDetail] = field(default_factory=dict)
    queue: Sequence[schemas.ExportRow] = ()
    recent: Sequence[schemas.Record] = ()
    best: schemas.ExperimentDetail | None = None


@dataclass(frozen=True)
class Frame:
    """The window, the moment (this machine's clock, in seconds), and why the view is stale."""

    width: int
    height: int
    now: float
    stale: str = ""
    unicode: bool = True

    @property
    def wide(self) -> bool:
        return self.width >= _WIDE

    @property
    def medium(self) -> bool:
        return self.width >= _MEDIUM

    @property
    def pool_rows(self) -> int:
        """Half the window at most: verdicts matter, too."""
        return max(1, self.height // 2 - 3)


def picture(view: View, frame: Frame) -> RenderableType:
    """Never taller than the frame."""
    parts: list[list[RenderableType]] = [_head(view, frame), _pool(view, frame)]
    used = sum(map(len, parts)) + min(len(view.pool.workers), frame.pool_rows)
    curve = _curve(view, frame, rows=3 if frame.height - used >= 18 else 1)
    if frame.height - used >= 6:
        parts.append(curve)
        used += len(curve)
    queue = _queue(view, rows=max(1, min(3, frame.height - used - 8)))
    if queue and frame.height - used >= 5:
        parts.append(queue)
        used += len(queue)
    parts.append(_recent(view, frame, rows=frame.height - used - 2))
    return Group(*(thing for part in parts for thing in part))


def _line(text: str, style: str = "") -> Text:
    """One line that the console cuts to its width."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _head(view: View, frame: Frame) -> list[RenderableType]:
    clock = datetime.fromtimestamp(frame.now, timezone.utc).astimezone().strftime("%H:%M:%S")
    title = Table.grid(expand=True)
    title.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    title.add_column(justify="right", no_wrap=True, overflow="ellipsis", style="dim")
    name = Text(view.tag.name if view.tag else "no tag yet", style="bold")
    right = f"{view.url}  {clock}" if frame.medium else clock
    title.add_row(name.append("  autoresearch", "not bold dim"), right)
    lines: list[RenderableType] = [title]
    if frame.stale:
        words = f"STALE, as of {ago(frame.now - view.as_of)} ago: {one_line(frame.stale)}"
        lines.append(_line(words, "bold black on yellow"))
    return [*lines, *status_lines(view)]


def status_lines(view: View) -> list[Text]:
    """How far the search got, and its present state."""
    if view.tag is None or view.summary is None:
        return [_line("`autoresearch setup NAME` creates a tag, `submit` queues the first run.")]
    stats, best, keeps = view.summary.stats, view.summary.best, view.summary.bpb_progression
    first = _line("no result yet", "dim")
    if best is not None:
        first = _line("").append(f"best {best.val_bpb:.6f}", style="bold green")
        first.append(" (an estimate)" if view.tag.keep_rule == "race" else "")
        if len(keeps) > 1:
            first.append(f"  {best.val_bpb - keeps[0].val_bpb:+.6f} since the first")
    counts = _line(f"{stats.kept} kept of {stats.total} · ")
    counts.append(open_runs(stats))
    if view.tag.paused:
        why = f" ({one_line(view.tag.pause.reason)})" if view.tag.pause else ""
        counts.append(f" · paused{why}", style="yellow")
    if stats.crashed:
        counts.append(f" · {stats.crashed} crashed", style="red")
    if view.strategy is not None:
        pinned = " (pinned)" if view.strategy.pinned else ""
        counts.append(f" · {view.strategy.mode}{pinned}")
    return [first, counts]


def _pool(view: View, frame: Frame) -> list[RenderableType]:
    if not view.pool.workers:
        return ["", _line("no GPU has registered: `autoresearch worker`", "yellow")]
    health = [">°C", "memory", ">util"] if frame.wide else [">°C"] if frame.medium else []
    table = plain("GPU", "state", *health, "run", cut=True)
    # Where not all fit, those that train or have a problem come first.
    workers, shown = view.pool.workers, frame.pool_rows
    if len(workers) > shown:
        workers = sorted(workers, key=lambda w: w.status == "idle")
    for worker in workers[:shown]:
        cells = _health(worker.health or schemas.Health())[: len(health)]
        state = coloured(worker.status)
        table.add_row(one_line(worker.id), state, *cells, _work(view, worker, frame))
    more = len(workers) - shown
    return ["", table, *([Text(f"and {more} more", style="dim")] if more > 0 else [])]


def _health(health: schemas.Health) -> list[RenderableType]:
    """Temperature, memory and utilization; empty where unknown."""
    celsius, used, total = health.temperature_c, health.memory_used_mb, health.memory_total_mb
    busy = health.utilization_percent
    hot = celsius is not None and celsius >= _HOT_CELSIUS
    return [
        Text("" if celsius is None else f"{celsius:.0f}", style="red" if hot else ""),
        "" if used is None or not total else f"{used / 1024:.1f}/{total / 1024:.0f} GiB",
        "" if busy is None else f"{busy:.0f} %",
    ]


def _work(view: View, worker: schemas.Worker, frame: Frame) -> Text:
    """What a GPU is busy with, or what keeps it from work."""
    if worker.problem:
        return Text(one_line(worker.problem), style="yellow")
    if worker.status == "offline":
        return Text(f"last heard of {when(worker.last_heartbeat, frame.now)}", style="red")
    detail = view.running.get(worker.current_experiment_id or "")
    if detail is None:
        return Text(worker.current_experiment_id or "")
    return Text(f"{_progress(detail, frame)}  {one_line(detail.description)}")


def _progress(detail: schemas.ExperimentDetail, frame: Frame) -> str:
    """Bar, percent and last loss of a run."""
    if not detail.curve:
        return "starting"
    last = detail.curve[-1]
    width = 16 if frame.wide else 8 if frame.medium else 4
    marks = ("━", "╌") if frame.unicode else ("=", "-")
    share = min(1.0, last.percent / 100)
    phase = "evaluating" if share >= 1 else f"{100 * share:3.0f} %"
    return f"{bar(share, width, *marks)} {phase}  loss {last.loss:.4f}"


def _curve(view: View, frame: Frame, rows: int) -> list[RenderableType]:
    """The learning curve of this tag's run that got furthest, or of the best."""
    name = view.tag.name if view.tag else None
    live = [d for d in view.running.values() if d.curve and name in (None, d.tag)]
    detail = max(live, key=lambda d: d.curve[-1].percent, default=view.best)
    if detail is None or not detail.curve:
        return []
    whose = f"loss of {detail.id}" if frame.medium else "loss"
    running = detail.status == "running" and detail.gpu_id
    whose += f" on {detail.gpu_id}" if running else ", the best"
    losses = [point.loss for point in detail.curve]
    columns = max(8, min(frame.width - 20, 100))
    lines = sparkline(losses, columns, rows, BLOCKS if frame.unicode else ASCII)
    first, last = f"{losses[0]:9.4f} ", f" {losses[-1]:.4f}"
    drawn: list[RenderableType] = [
        Text.assemble(" " * len(first) if i else first, (line, "cyan"), last * (i == rows - 1))
        for i, line in enumerate(lines)
    ]
    return ["", _line(one_line(whose), "dim"), *drawn]


def _queue(view: View, rows: int) -> list[RenderableType]:
    total = view.summary.stats.queued if view.summary else 0
    if not view.queue or not total:
        return []
    lines: list[RenderableType] = ["", Text(f"queued {total}", style="dim")]
    for row in view.queue[:rows]:
        priority = f"  priority {row.priority}" if row.priority else ""
        lines.append(_line("  " + one_line(f"{row.category}: {row.description}{priority}")))
    return lines


def _recent(view: View, frame: Frame, rows: int) -> list[RenderableType]:
    if not view.recent or rows < 1:
        return []
    category = ["category"] if frame.medium else []
    table = plain("verdict", "status", "val_bpb", *category, "what", cut=True)
    for record in view.recent[:rows]:
        value = f"{record.val_bpb:.6f}" if record.val_bpb else "—" if frame.unicode else "-"
        what = record.description
        if record.error and record.status in ("crash", "timeout"):
            what = f"{what}: {failure.headline(record.error)}"
        age = Text(when(record.finished_at or "", frame.now), style="dim")
        words = map(one_line, [record.category, what] if frame.medium else [what])
        table.add_row(age, coloured(record.status), value, *words)
    return ["", table]


def when(moment: str, now: float) -> str:
    """An RFC 3339 time as its distance from `now`."""
    try:
        then = datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return ""
    return f"{ago(now - then)} ago"


def ago(seconds: float) -> str:
    """The largest unit that fits, whole: 12 s, 38 min, 9 h, 3 d."""
    seconds = max(0.0, seconds)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def bar(share: float, width: int, full: str = "━", empty: str = "╌") -> str:
    """`share` (0 to 1) of `width`."""
    done = round(max(0.0, min(1.0, share)) * width)
    return full * done + empty * (width - done)


def sparkline(values: Sequence[float], width: int, rows: int = 1, ramp: str = BLOCKS) -> list[str]:
    """At most `width` columns and exactly `rows` lines, the upper first.

    The range is that of the values after the first tenth, because a loss falls so steeply at first
    that the rest would be flat. Higher values are cut at the top.
    """
    columns = _thinned([v for v in values if math.isfinite(v)], width)
    if not columns or rows < 1:
        return [""] * max(rows, 0)
    settled = columns[len(columns) // 10 :]
    low, high = min(settled), max(settled)
    steps = len(ramp) - 1
    lines = [""] * rows
    for value in columns:
        span = high / 2 - low / 2  # halves, since the whole span may be more than a float holds
        share = min(1.0, max(0.0, (value / 2 - low / 2) / span)) if span > 0 else 0.0
        level = 1 + round(share * (rows * steps - 1))  # 1 at least, so that each value is seen
        for row in range(rows):
            lines[rows - 1 - row] += ramp[max(0, min(steps, level - row * steps))]
    return lines


def _thinned(values: Sequence[float], width: int) -> list[float]:
    """Means of `width` stretches of equal length; the values themselves where they are fewer."""
    if len(values) <= width:
        return list(values)
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
