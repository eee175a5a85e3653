"""The bench of the early stop: it reads real runs, and ends the hopeless ones of simulated runs."""

import json
from pathlib import Path

import pytest

from bench.early_stop import world
from bench.early_stop.replay import Run, ours, read


@pytest.mark.parametrize("scale", [1, 100])
def test_a_file_of_real_runs_is_read_with_progress_as_a_share_or_in_percent(
    tmp_path: Path, scale: int
) -> None:
    curve = [[scale * share, 3.0] for share in (0.0, 0.25, 1.0)]
    rows = [{"budget": 30, "val_bpb": value, "curve": curve} for value in (0.99, None)]
    (tmp_path / "runs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(tmp_path / "runs.jsonl") == [Run(30, 0.99, [(0, 3.0), (25, 3.0), (100, 3.0)])]


@pytest.mark.slow
def test_without_crossing_curves_it_saves_a_fifth_and_ends_few_that_would_have_won() -> None:
    outs = [ours(world.runs(seed, 150, 0.0)) for seed in range(4)]
    assert sum(out.saved for out in outs) > 0.2 * sum(out.after for out in outs)
    condemned = sum(out.condemned for out in outs)
    assert condemned > 100
    assert sum(out.false_kills for out in outs) <= 0.02 * condemned
