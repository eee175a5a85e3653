"""Nothing that a run prints or leaves may end the daemon: each of it makes a report or is named."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from gpu_worker import metrics
from gpu_worker.channel import Result
from gpu_worker.curve import Curve
from gpu_worker.report import EndedRun, build_report
from orchestrator import schemas

JOB = schemas.Job(
    experiment_id="exp-0660f78349a45a-mar11", tag="mar11", gpu_id="gpu-0", epoch=1, seed=42,
    time_budget_seconds=300, grace_seconds=300, lease_seconds=30, train_py="",
    source_sha256="0" * 64, prepare_sha256=None,
)  # fmt: skip
NUMBERS = st.one_of(
    st.floats().map(str),
    st.integers().map(str),
    st.text(alphabet="0123456789.,eE+-_% nainf", max_size=30),
)
NAMES = st.sampled_from(["val_bpb", "num_steps", "depth", "peak_vram_mb", "total_tokens_M", "x"])
BLOCKS = st.lists(st.tuples(NAMES, NUMBERS), max_size=8).map(
    lambda rows: ("---\n" + "".join(f"{name}: {value}\n" for name, value in rows)).encode()
)
ENDED = Result("exited", 0, 1.0, 1.0)


@given(st.one_of(st.binary(), BLOCKS), st.one_of(st.binary(), NUMBERS.map(str.encode)))
def test_whatever_a_run_prints_makes_a_report(tail: bytes, measures: bytes) -> None:
    """The report passes the orchestrator's own checks, and a result has a usable val_bpb."""
    curve = Curve()
    curve.feed(tail)
    ended = EndedRun(JOB, ENDED, tail, measures, curve.points())
    report = build_report(ended)
    assert report is not None
    again = schemas.FinishRequest.model_validate_json(report.model_dump_json())
    assert again.outcome in ("completed", "crash")
    assert (again.metrics is not None) == (again.outcome == "completed")
    assert again.error or again.outcome == "completed"


@given(st.binary())
def test_whatever_lies_in_a_result_file_is_a_result_or_none(content: bytes) -> None:
    """A file that a kill or a full disk has cut says nothing: then the run counts as lost."""
    result = Result.read(content)
    assert result is None or isinstance(result, Result)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"reason": "exited"}', b"\xff"])
def test_a_cut_result_file_is_no_result(content: bytes) -> None:
    assert Result.read(content) is None


@pytest.mark.parametrize("printed", ["1234567", "1e300", "0", "-1", "nan", "inf"])
def test_a_val_bpb_out_of_range_is_a_crash_that_quotes_it(printed: str) -> None:
    report = build_report(EndedRun(JOB, ENDED, f"---\nval_bpb: {printed}\n".encode()))
    assert report is not None
    assert report.outcome == "crash"
    assert printed in report.error


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.997900", 0.9979), ("9.97900e-01", 0.9979), ("45,060.2", 45060.2),
        ("1,234,567", 1234567),
        ("39.8%", 39.8), ("39.8 %", 39.8), ("-3", -3), ("+3", 3), (".5", 0.5), ("3.", 3),
        ("0,997900", None), ("300,1", None), ("45.060,2", None), ("1_3.3", None), ("0,997", None),
        ("1,23,456", None), ("1,2345", None), ("12,", None), (",5", None), ("", None), ("%", None),
        ("1e999", None), ("nan", None), ("٣", None), ("0x10", None),
    ],
)  # fmt: skip
def test_a_number_has_whole_groups_of_thousands_or_none(text: str, value: Any) -> None:
    """A decimal comma is no separator of thousands: 0,997 must not become 997."""
    assert metrics.number(text) == value


@pytest.mark.parametrize("form", ["{:.3f}", "{:.6f}", "{:.9f}", "{:.5e}", "{:.7g}", "{}"])
def test_an_honest_result_counts_in_each_form_that_shows_three_decimals(form: str) -> None:
    measured = 0.9979123456
    tail = f"---\nval_bpb: {form.format(measured)}\n".encode()
    output = metrics.read(tail, [measured])
    assert output.problem is None
    assert output.metrics is not None


@pytest.mark.parametrize("form", ["{:.1f}", "{:.2f}", "{:.1e}"])
def test_a_result_with_too_few_digits_is_told_how_many_are_needed(form: str) -> None:
    output = metrics.read(f"---\nval_bpb: {form.format(0.9979123)}\n".encode(), [0.9979123])
    assert output.problem is not None
    assert "print 6 decimals" in output.problem


def test_an_unusable_number_is_quoted_in_a_warning() -> None:
    output = metrics.read(b"---\nval_bpb: 1.5\npeak_vram_mb: 45.060,2\n")
    assert output.metrics is not None
    assert output.metrics.peak_vram_mb is None
    assert any("45.060,2" in warning for warning in output.warnings)
