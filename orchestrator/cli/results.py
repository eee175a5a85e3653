"""What a demo leaves in the current folder: results.tsv, progress.png, best_train.py."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from orchestrator.chart.draw import Look, draw
from orchestrator.chart.values import Point
from orchestrator.cli.errors import CommandError
from orchestrator.schemas import ExperimentDetail

TSV, CHART, BEST = "results.tsv", "progress.png", "best_train.py"


def write_results(
    folder: Path,
    decided: Sequence[ExperimentDetail],
    *,
    tsv: str,
    best_source: str | None,
    title: str,
    subtitle: str,
) -> dict[str, str]:
    """Write what there is; what stood there under these names before is kept with a `~`."""
    contents = {TSV: (tsv + "\n").encode()}
    if best_source is not None:
        contents[BEST] = best_source.encode()
    try:
        for name, content in contents.items():
            _keep(folder / name, content)
            (folder / name).write_bytes(content)
        _keep(folder / CHART, b"")
        with (folder / CHART).open("wb") as file:
            draw(points(decided), file, Look(title=title, subtitle=subtitle))
    except OSError as error:
        raise CommandError(f"{error.filename} cannot be written: {error.strerror}") from error
    return {name: str(folder / name) for name in (*contents, CHART)}


def points(decided: Sequence[ExperimentDetail]) -> list[Point]:
    return [
        Point(number, d.status, d.val_bpb, d.description if d.status == "keep" else "")
        for number, d in enumerate(decided, start=1)
    ]


def difference(baseline: str, best: str) -> str:
    """Unified diff from the baseline to the best; empty if the baseline is the best."""
    lines = difflib.unified_diff(
        baseline.splitlines(keepends=True),
        best.splitlines(keepends=True),
        "train.py (baseline)",
        "train.py (best)",
        n=1,
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _keep(path: Path, content: bytes) -> None:
    """Somebody's own results may lie under that name: move them aside."""
    if path.exists() and path.read_bytes() != content:
        path.replace(path.with_name(f"{path.name}~"))
