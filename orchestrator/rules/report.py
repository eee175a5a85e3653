"""The results table as text. Pure."""

from orchestrator.domain import Experiment, Run, Status

TSV_HEADER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription"

_FORMULA = frozenset("=+-@")
_BREAKS = str.maketrans("\t\r\n", "   ")


def _cell(text: str) -> str:
    """In one line, and no formula for a spreadsheet: it shows what follows an apostrophe."""
    quote = "'" if text.lstrip()[:1] in _FORMULA else ""
    return quote + text.translate(_BREAKS)


def tsv_row(experiment: Experiment, run: Run) -> str:
    """One finished run as in upstream's results.tsv, which has three status words."""
    metrics = run.metrics
    return tsv_line(
        experiment.commit_sha,
        run.status.value,
        metrics.val_bpb if metrics else None,
        metrics.peak_vram_mb if metrics else None,
        experiment.description,
        run.forecast.val_bpb if run.stopped_early and run.forecast else None,
    )


def tsv_line(
    commit: str,
    status: str,
    val_bpb: float | None,
    peak_vram_mb: float | None,
    description: str,
    predicted: float | None = None,
) -> str:
    """The same from plain values; `predicted` is of a run that was stopped early."""
    if predicted is not None:
        description += f" (stopped early: predicted val_bpb {predicted:.6f})"
    completed = status in (Status.KEEP, Status.DISCARD)
    value = (val_bpb or 0.0) if completed else 0.0
    memory = (peak_vram_mb or 0.0) / 1024 if completed else 0.0
    word = status if completed else Status.CRASH.value
    head = f"{_cell(commit[:7])}\t{value:.6f}\t{memory:.1f}\t{word}"
    return f"{head}\t{_cell(description)}"
