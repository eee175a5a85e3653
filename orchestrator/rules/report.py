"""Report texts from values: the results table and the difference of two runs. Pure."""

from dataclasses import dataclass

from orchestrator.domain import Experiment, Run, Status

TSV_HEADER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription"


_BREAKS = str.maketrans("\t\r\n", "   ")


def _one_line(text: str) -> str:
    return text.translate(_BREAKS)


def tsv_row(experiment: Experiment, run: Run) -> str:
    """One finished run as upstream's results.tsv has it, which knows three status words."""
    completed = run.status in (Status.KEEP, Status.DISCARD)
    val_bpb = run.metrics.val_bpb if completed and run.metrics else 0.0
    memory = (run.metrics.peak_vram_mb or 0.0) / 1024 if completed and run.metrics else 0.0
    status = run.status.value if completed else Status.CRASH.value
    commit = _one_line(experiment.commit_sha)[:7]
    description = _one_line(experiment.description)
    return f"{commit}\t{val_bpb:.6f}\t{memory:.1f}\t{status}\t{description}"


@dataclass(frozen=True)
class Deltas:
    """b - a; a metric that one side does not have counts as 0, as upstream has it."""

    bpb: float
    params_m: float
    vram_mb: float


def deltas(a: Run, b: Run) -> Deltas:
    def of(run: Run, name: str) -> float:
        return float(getattr(run.metrics, name, None) or 0.0)

    return Deltas(
        bpb=of(b, "val_bpb") - of(a, "val_bpb"),
        params_m=of(b, "num_params_m") - of(a, "num_params_m"),
        vram_mb=of(b, "peak_vram_mb") - of(a, "peak_vram_mb"),
    )
