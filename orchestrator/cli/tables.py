"""How answers look on a terminal. Text in, text out; values come from the wire models."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from orchestrator import schemas
from orchestrator.cli.text import one_line, visible
from orchestrator.rules import failure

COLOURS = {
    "keep": "green", "discard": "default", "crash": "red", "timeout": "red", "cancelled": "yellow",
    "candidate": "magenta", "repeat": "dim",
    "running": "cyan", "queued": "default", "idle": "green", "training": "cyan", "offline": "red",
    "quarantined": "red", "unfit": "red", "draining": "yellow",
}  # fmt: skip


def coloured(status: str) -> Text:
    return Text(status, style=COLOURS.get(status, "default"))


def bpb(value: float | None) -> str:
    """A val_bpb; empty where it is unknown, which the upstream form writes as 0."""
    return f"{value:.6f}" if value else ""


def moment(at: str) -> str:
    """An RFC 3339 time to the second."""
    return at[:19].replace("T", " ")


def why(detail: schemas.ExperimentDetail) -> str:
    """The sentence of the keep rule or of the early stop on an experiment, if any; a merge conflict
    has lines of its own."""
    verdict = detail.verdict or detail.so_far
    said = isinstance(verdict, schemas.Verdict | schemas.StoppedVerdict) and verdict.why
    return visible(said) if said else ""


def verdict_line(detail: schemas.ExperimentDetail) -> str:
    """One line that says how an experiment ended."""
    if detail.val_bpb is not None and (said := why(detail)):
        return f"{detail.id} {detail.status}: val_bpb {detail.val_bpb:.6f}; {said}"
    if detail.val_bpb is not None:
        before = detail.best_val_bpb_before
        best = f", best before {before:.6f}" if before is not None else ", the first result"
        return f"{detail.id} {detail.status}: val_bpb {detail.val_bpb:.6f}{best}"
    if detail.stopped_early:
        return f"{detail.id} {detail.status}: {why(detail)}"
    cause = failure.headline(detail.error or detail.reason or "")
    return f"{detail.id} {detail.status}" + (f": {cause}" if cause else "")


def experiments_table(records: Sequence[schemas.Record]) -> Table:
    table = plain("id", "status", ">val_bpb", "category", ">GPU min", "description")
    for r in records:
        minutes = f"{r.training_seconds / 60:.1f}" if r.training_seconds else ""
        row = (one_line(r.category), minutes, one_line(r.description))
        table.add_row(r.id, coloured(r.status), bpb(r.val_bpb), *row)
    return table


def pool_table(pool: schemas.PoolAnswer) -> Table:
    table = plain("GPU", "name", "status", "sandbox", "experiment", "problem")
    for w in pool.workers:
        rest = (
            w.current_experiment_id or "",
            one_line(w.problem or w.drift or w.passed_over or ""),
        )
        table.add_row(w.id, one_line(w.gpu_name), coloured(w.status), w.sandbox or "", *rest)
    return table


def tags_table(tags: Sequence[schemas.TagInfo]) -> Table:
    table = plain(
        "tag",
        ">best val_bpb",
        ">experiments",
        ">kept",
        ">budget",
        "profile",
        "GPU model",
        "created",
    )
    for t in tags:
        counts = (str(t.total_experiments), str(t.kept_experiments))
        budget = f"{t.time_budget_seconds:g} s"
        where = (t.profile or "", "any" if t.mix_models else one_line(t.gpu_model or ""))
        name = t.name + f" ({t.keep_rule})" * (t.keep_rule != "greedy") + " (paused)" * t.paused
        table.add_row(name, bpb(t.best_val_bpb), *counts, budget, *where, moment(t.created_at))
    return table


def open_runs(stats: schemas.SummaryStats) -> str:
    """How many runs have no verdict yet; candidates only where there are some."""
    n = stats.candidates
    candidates = f", {n} candidate{'s' * (n != 1)}" if n else ""
    return f"{stats.running} running, {stats.queued} queued{candidates}"


def summary_lines(summary: schemas.SummaryAnswer) -> str:
    stats = summary.stats
    best = summary.best
    rows = {
        "best": f"{best.val_bpb:.6f}  {best.experiment_id}" if best else "no result yet",
        "decided": f"{stats.total}: {stats.kept} kept, {stats.discarded} discarded, "
        f"{stats.crashed} crashed, {stats.timed_out} timed out",
        "open": open_runs(stats),
        "keep rate": f"{100 * stats.keep_rate:.0f} %, strategy {summary.strategy}",
        "training": f"{summary.total_training_minutes:.1f} min",
        "GPUs": f"{summary.gpu_pool.total}: {summary.gpu_pool.idle} idle, "
        f"{summary.gpu_pool.training} training",
    }
    if summary.early_stop is not None:
        rows["early stop"] = summary.early_stop
    if summary.blocked is not None:
        rows["waits"] = one_line(summary.blocked)
    if summary.pause is not None:
        rows["paused"] = f"by {summary.pause.by}: {summary.pause.reason}"
    head = f"{summary.tag}  ({summary.branch})"
    return "\n".join([head, *(f"  {name:<11}{text}" for name, text in rows.items())])


def ledger_table(entries: Sequence[schemas.LedgerEntry]) -> Table:
    """A token is who did it; the name after it is what its caller said."""
    table = plain("when", "by", "action", "tag", "target", "outcome", "reason")
    for e in entries:
        by = f"{e.actor} (says {e.by})" if e.actor else e.by
        cells = (by, e.action, e.tag or "", e.target or "", e.outcome, one_line(e.reason))
        table.add_row(moment(e.at), *cells)
    return table


def plain(*columns: str, cut: bool = False) -> Table:
    """A plain table; a column's name with `>` is right-aligned. With `cut` each row is one line,
    and the last column gets the width that is left."""
    table = Table(box=None, pad_edge=False, header_style="dim" if cut else "bold", expand=cut)
    for name in columns:
        table.add_column(
            name.removeprefix(">"),
            justify="right" if name.startswith(">") else "left",
            overflow="ellipsis" if cut else "fold",
            no_wrap=cut or name == "id",
            ratio=1 if cut and name == columns[-1] else None,
        )
    return table
