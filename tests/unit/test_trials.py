"""bench.trials: what a table asks for, and what its rows say."""

from pathlib import Path
from typing import Any

import pytest

from bench import trials
from bench.trials import Run


def table(**rate: float) -> dict[str, Any]:
    """As tomllib reads it; read_plan takes it apart."""
    return {
        "budget": 30, "seeds": [42, 43], "repeats": 2,
        "today": {}, "rate": {"seeds": [42], **rate},
    }  # fmt: skip


def finished(val_bpb: float) -> dict[str, float]:
    return dict.fromkeys(
        ("num_steps", "mfu_percent", "peak_vram_mb", "wall_seconds", "training_seconds"), 1.0
    ) | {"val_bpb": val_bpb}


def test_all_variants_of_a_seed_come_before_the_next_seed(tmp_path: Path) -> None:
    """So that a table that is cut can still be compared seed by seed."""
    variants, runs = trials.read_plan(table(MATRIX_LR=0.05), tmp_path)
    assert [(run.variant, run.seed, run.repeat) for run in runs] == [
        ("today", 42, 0), ("rate", 42, 0), ("today", 43, 0), ("today", 42, 1),
    ]  # fmt: skip
    variants["rate"].write(tmp_path)
    assert "\nMATRIX_LR = 0.05 " in (tmp_path / "train.py").read_text()


def test_a_constant_that_train_py_does_not_set_is_named(tmp_path: Path) -> None:
    variants, _ = trials.read_plan(table(MATRIX_RATE=1), tmp_path)
    with pytest.raises(SystemExit, match="has 0 lines that set MATRIX_RATE"):
        variants["rate"].write(tmp_path)


def test_rows_compare_equal_seeds() -> None:
    """Here the second variant is better by 0.5 at each seed: all of the spread is the seed's."""
    values = {"today": (2.0, 3.0, 4.0), "rate": (1.5, 2.5, 3.5)}
    results = {
        Run(name, 42 + i, 30): finished(value)
        for name, three in values.items()
        for i, value in enumerate(three)
    }
    _, today, rate = trials.rows(results)
    assert today.split()[2:5] == ["3", "3.000000", "1.000000"]
    assert rate.split()[3:7] == ["2.500000", "1.000000", "-0.500000", "+1.00"]
