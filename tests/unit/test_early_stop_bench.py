"""The bench of the early stop: it reads real runs, and ends the hopeless ones of simulated runs."""

import json
from pathlib import Path

import pytest

from bench.early_stop import world
from bench.early_stop.replay import Run, ours, read


def test_a_log_of_trials_is_read_without_the_runs_that_failed(tmp_path: Path) -> None:
    curve = [[share, 3.0] for share in (0.0, 0.25, 1.0)]
    row = {"run": {"budget": 30}, "curve": curve}
    (tmp_path / "runs.jsonl").write_text(
        f"{json.dumps(row | {'val_bpb': 0.99})}\n{json.dumps(row)}"
    )
    assert read(tmp_path / "runs.jsonl") == [Run(30, 0.99, [(0, 3.0), (25, 3.0), (100, 3.0)])]


@pytest.mark.slow
def test_without_crossing_curves_it_saves_a_fifth_and_ends_few_that_would_have_won() -> None:
    outs = [ours(world.runs(seed, 150, 0.0)) for seed in range(4)]
    assert sum(out.saved for out in outs) > 0.2 * sum(out.after for out in outs)
    condemned = sum(out.condemned for out in outs)
    assert condemned > 100
    assert sum(out.false_kills for out in outs) <= 0.02 * condemned
