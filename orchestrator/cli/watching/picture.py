"""The picture that `watch` draws: from a view and a size to something rich can print. Pure.

What is dropped first as the window gets smaller: details of the pool, then whole columns, then the
curve; how far the search got and what is wrong stay.
"""

from dataclasses import dataclass
from datetime import datetime, timezone

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator import schemas
from orchestrator.cli.tables import coloured
from orchestrator.cli.text import one_line
from orchestrator.cli.watching.gather import View
from orchestrator.cli.watching.spark import ASCII, BLOCKS, bar, sparkline
from orchestrator.rules import failure

_WIDE, _MEDIUM = 110, 72
_HOT_CELSIUS = 85


@dataclass(frozen=True)
class Frame:
    """The window, the moment (this machine's clock, in seconds), and whether the view is still
    kept up to date: `stale` says why not."""

    width: int
    height: int
    now: float
    stale: str = ""
    unicode: bool = True


def picture(view: View, frame: Frame) -> RenderableType:
    """Never taller than the frame."""
    parts: list[list[RenderableType]] = [_head(view, frame), _pool(view, frame)]
    used = sum(map(len, parts)) + min(len(view.pool.workers), _pool_rows(frame))
    curve = _curve(view, frame, rows=3 if frame.height - used >= 18 else 1)
    if frame.height - used >= 6:
        parts.append(curve)
        used += len(curve)
    queue = _queue(view, frame, rows=max(1, min(3, frame.height - used - 8)))
    if queue and frame.height - used >= 5:
        parts.append(queue)
        used += len(queue)
    parts.append(_recent(view, frame, rows=frame.height - used - 2))
    return Group(*(thing for part in parts for thing in part))


# ------------------------------------------------------------------------------------------- head


def _head(view: View, frame: Frame) -> list[RenderableType]:
    name = view.tag.name if view.tag else "no tag yet"
    clock = datetime.fromtimestamp(frame.now, timezone.utc).astimezone().strftime("%H:%M:%S")
    title = Text.assemble((name, "bold"), ("  autoresearch", "dim"))
    right = Text(f"{view.url}  {clock}" if frame.width >= _MEDIUM else clock, style="dim")
    lines: list[RenderableType] = [_ends(title, right, frame.width)]
    if frame.stale:
        age = ago(frame.now - view.as_of)
        words = f"STALE, as of {age} ago: {one_line(frame.stale)}"
        lines.append(_cut(Text(words, style="bold black on yellow"), frame.width))
    lines += [_cut(line, frame.width) for line in standing(view)]
    return lines


def standing(view: View) -> list[Text]:
    """How far the search got, and where it stands."""
    if view.tag is None or view.summary is None:
        return [Text("`autoresearch setup NAME` creates a tag, `submit` queues the first run.")]
    stats, best = view.summary.stats, view.summary.best
    line = Text()
    if best is None:
        line.append("no result yet", style="dim")
    else:
        line.append(f"best {best.val_bpb:.6f}", style="bold green")
        line.append(_gain(view.summary))
    counts = Text(f"{stats.kept} kept of {stats.total} · ")
    counts.append(f"{stats.running} running, {stats.queued} queued")
    if view.tag.paused:
        why = f" ({one_line(view.tag.pause.reason)})" if view.tag.pause else ""
        counts.append(f" · paused{why}", style="yellow")
    if stats.crashed:
        counts.append(f" · {stats.crashed} crashed", style="red")
    if view.strategy is not None:
        pinned = " (pinned)" if view.strategy.pinned else ""
        counts.append(f" · {view.strategy.mode}{pinned}")
    return [line, counts]


def _gain(summary: schemas.SummaryAnswer) -> str:
    """What has been gained since the oldest keep that is told."""
    keeps = summary.bpb_progression
    if summary.best is None or len(keeps) < 2:
        return ""
    return f"  {summary.best.val_bpb - keeps[0].val_bpb:+.6f} since the first"


# ------------------------------------------------------------------------------------------- pool


def _pool_rows(frame: Frame) -> int:
    """Half the window at most: verdicts matter, too."""
    return max(1, frame.height // 2 - 3)


def _pool(view: View, frame: Frame) -> list[RenderableType]:
    if not view.pool.workers:
        words = Text("no GPU has registered: `autoresearch worker`", style="yellow")
        return ["", _cut(words, frame.width)]
    table = _plain_table()
    wide, medium = frame.width >= _WIDE, frame.width >= _MEDIUM
    columns = ["GPU", "state", *(["°C", "memory", "util"] if wide else ["°C"] if medium else [])]
    for name in (*columns, "run"):
        table.add_column(name, no_wrap=True, overflow="ellipsis",
                         justify="right" if name in ("°C", "util") else "left",
                         ratio=1 if name == "run" else None)  # fmt: skip
    shown = _pool_rows(frame)
    # Where not all fit, those that work or that something ails come first.
    workers = sorted(view.pool.workers, key=lambda w: w.status == "idle")
    for worker in workers[:shown] if len(workers) > shown else view.pool.workers:
        health = worker.health or schemas.Health()
        cells = [Text(one_line(worker.id)), coloured(worker.status)]
        if medium:
            cells.append(_temperature(health))
        if wide:
            cells += [Text(_similar(health)), Text(_percent(health.utilization_percent))]
        table.add_row(*cells, _work(view, worker, frame))
    more = len(workers) - shown
    return ["", table, *([Text(f"and {more} more", style="dim")] if more > 0 else [])]


def _work(view: View, worker: schemas.Worker, frame: Frame) -> Text:
    """What a GPU is busy with, or what keeps it from work."""
    if worker.problem:
        return Text(one_line(worker.problem), style="yellow")
    if worker.status == "offline":
        return Text(f"last heard of {when(worker.last_heartbeat, frame.now)}", style="red")
    if worker.current_experiment_id is None:
        return Text("")
    detail = view.running.get(worker.current_experiment_id)
    if detail is None:
        return Text(worker.current_experiment_id)
    return Text.assemble(progress(detail, frame), "  ", one_line(detail.description))


def progress(detail: schemas.ExperimentDetail, frame: Frame) -> str:
    """Bar, percent and last loss of a run."""
    if not detail.curve:
        return "starting"
    last = detail.curve[-1]
    width = 16 if frame.width >= _WIDE else 8 if frame.width >= _MEDIUM else 4
    marks = ("━", "╌") if frame.unicode else ("=", "-")
    share = min(1.0, last.percent / 100)
    phase = "evaluating" if share >= 1 else f"{100 * share:3.0f} %"
    return f"{bar(share, width, *marks)} {phase}  loss {last.loss:.4f}"


def _temperature(health: schemas.Health) -> Text:
    if health.temperature_c is None:
        return Text("")
    hot = health.temperature_c >= _HOT_CELSIUS
    return Text(f"{health.temperature_c:.0f}", style="red" if hot else "")


def _similar(health: schemas.Health) -> str:
    if health.memory_used_mb is None or not health.memory_total_mb:
        return ""
    return f"{health.memory_used_mb / 1024:.1f}/{health.memory_total_mb / 1024:.0f} GiB"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} %"


# ------------------------------------------------------------------------------- curve and queue


def _curve(view: View, frame: Frame, rows: int) -> list[RenderableType]:
    detail = view.curve_of
    if detail is None:
        return []
    whose = f"loss of {detail.id}" if frame.width >= _MEDIUM else "loss"
    whose += (
        f" on {detail.gpu_id}" if detail.status == "running" and detail.gpu_id else ", the best"
    )
    losses = [point.loss for point in detail.curve]
    room = max(8, min(frame.width - 20, 100))
    lines = sparkline(losses, room, rows, BLOCKS if frame.unicode else ASCII)
    ends = [f"{losses[0]:9.4f} ", f" {losses[-1]:.4f}"]
    drawn: list[RenderableType] = [
        Text.assemble(" " * len(ends[0]) if i else ends[0], (line, "cyan"),
                      ends[1] if i == rows - 1 else "")
        for i, line in enumerate(lines)
    ]  # fmt: skip
    return ["", _cut(Text(one_line(whose), style="dim"), frame.width), *drawn]


def _queue(view: View, frame: Frame, rows: int) -> list[RenderableType]:
    total = view.summary.stats.queued if view.summary else 0
    if not view.queue or not total:
        return []
    shown = view.queue[:rows]
    head = Text(f"queued {total}", style="dim")
    lines: list[RenderableType] = ["", head]
    for row in shown:
        priority = f"  priority {row.priority}" if row.priority else ""
        line = one_line(f"{row.category}: {row.description}{priority}")
        lines.append(_cut(Text(f"  {line}"), frame.width))
    return lines


# ----------------------------------------------------------------------------------------- recent


def _recent(view: View, frame: Frame, rows: int) -> list[RenderableType]:
    if not view.recent or rows < 1:
        return []
    medium = frame.width >= _MEDIUM
    table = _plain_table()
    for name in ("verdict", "status", "val_bpb", *(["category"] if medium else []), "what"):
        table.add_column(
            name, no_wrap=True, overflow="ellipsis", ratio=1 if name == "what" else None
        )
    for record in view.recent[:rows]:
        value = f"{record.val_bpb:.6f}" if record.val_bpb else "—" if frame.unicode else "-"
        what = record.description
        if record.error and record.status in ("crash", "timeout"):
            what = f"{what}: {failure.headline(record.error)}"
        cells = [Text(when(record.finished_at or "", frame.now), style="dim"),
                 coloured(record.status), Text(value)]  # fmt: skip
        if medium:
            cells.append(Text(one_line(record.category)))
        table.add_row(*cells, Text(one_line(what)))
    return ["", table]


# ----------------------------------------------------------------------------------------- pieces


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


def _plain_table() -> Table:
    return Table(box=None, pad_edge=False, header_style="dim", expand=True)


def _ends(left: Text, right: Text, width: int) -> Text:
    """Two texts at the two ends of a line; the right one gives way."""
    gap = width - left.cell_len - right.cell_len
    if gap < 1:
        return _cut(left, width)
    return Text.assemble(left, " " * gap, right)


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text
