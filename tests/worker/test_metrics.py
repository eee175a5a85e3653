"""Which result is read from a run's output."""

import pytest
from hypothesis import given, strategies as st

from gpu_worker import metrics
from gpu_worker.curve import Curve
from tests import hostile_log as hostile

BLOCK = b"""---
val_bpb: 0.997900
training_seconds: 300.1
total_seconds: 325.9
peak_vram_mb: 45060.2
mfu_percent: 39.80
total_tokens_M: 499.6
num_steps: 953
num_params_M: 50.3
depth: 8
profile: h100
torch_version: 2.9.0
"""


def test_a_whole_block_is_read_with_its_names_translated() -> None:
    """Every key of the block arrives under the name that the orchestrator uses."""
    output = metrics.read(b"noise\n" + BLOCK)
    assert output.problem is None
    assert output.warnings == []
    assert output.metrics is not None
    assert output.metrics.model_dump() == {
        "val_bpb": 0.9979,
        "peak_vram_mb": 45060.2,
        "training_seconds": 300.1,
        "total_tokens_m": 499.6,
        "mfu_percent": 39.8,
        "num_steps": 953,
        "num_params_m": 50.3,
        "depth": 8,
    }
    assert output.facts["profile"] == "h100"


def test_val_bpb_alone_is_enough() -> None:
    """Everything else in the block may be missing."""
    output = metrics.read(b"---\nval_bpb: 1.5\n")
    assert output.metrics is not None
    assert output.metrics.depth is None


def test_the_last_of_two_blocks_counts_and_is_warned_about() -> None:
    """A train.py that evaluates twice means its last result."""
    output = metrics.read(b"---\nval_bpb: 2.0\nlater\n---\nval_bpb: 1.0\n")
    assert output.metrics is not None
    assert output.metrics.val_bpb == 1.0
    assert "2 result blocks" in output.warnings[0]


def test_a_last_block_without_val_bpb_is_not_saved_by_an_earlier_one() -> None:
    """Only the last block counts."""
    output = metrics.read(b"---\nval_bpb: 2.0\n---\ndepth: 4\n")
    assert output.metrics is None
    assert output.problem == "the last result block has no val_bpb"


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1.0", "0", "-0.0", "1e999", "one", ""])
def test_a_val_bpb_that_is_no_positive_finite_number_is_refused(value: str) -> None:
    """NaN must never be compared with the best."""
    output = metrics.read(f"---\nval_bpb: {value}\n".encode())
    assert output.metrics is None
    assert output.problem is not None
    assert "val_bpb is" in output.problem


@pytest.mark.parametrize("value", ["nan", "-3", "many", "1e300"])
def test_another_invalid_value_is_left_out(value: str) -> None:
    """There is a warning, and the result counts."""
    output = metrics.read(f"---\nval_bpb: 1.0\nnum_steps: {value}\n".encode())
    assert output.metrics is not None
    assert output.metrics.num_steps is None
    assert "num_steps" in output.warnings[0]


@pytest.mark.parametrize(("passes", "warned"), [("4", 0), ("5", 1), ("12", 1), ("?", 0)])
def test_a_run_that_learned_its_text_by_heart_is_marked(passes: str, warned: int) -> None:
    output = metrics.read(f"---\nval_bpb: 1.0\nepoch: {passes}\n".encode())
    assert sum("learned it by heart" in text for text in output.warnings) == warned


def test_figures_may_have_separators_and_a_percent_sign() -> None:
    """Agents reformat what they print."""
    output = metrics.read(b"---\nval_bpb: 1.0\nnum_steps: 1,953\nmfu_percent: 39.8%\n")
    assert output.metrics is not None
    assert (output.metrics.num_steps, output.metrics.mfu_percent) == (1953, 39.8)


@pytest.mark.parametrize("output", [b"", b"---\n", b"val_bpb: 1.0\n", b"----\nval_bpb: 1.0\n"])
def test_output_without_a_block_has_no_result(output: bytes) -> None:
    """A block is `---` on a line of its own with entries below it."""
    read = metrics.read(output)
    assert read.metrics is None
    assert read.problem is not None
    assert "without a result block" in read.problem


def test_colours_carriage_returns_and_broken_text_do_no_harm() -> None:
    """The block is found behind a rewritten line and between bytes that are no text."""
    output = metrics.read(
        b"\xff\xfestep 1\rstep 2\r\x1b[32m---\x1b[0m\r\nval_bpb: \x1b[1m1.25\r\n\xf0"
    )
    assert output.metrics is not None
    assert output.metrics.val_bpb == 1.25


def test_a_block_after_an_endless_line_is_found() -> None:
    """Only the end of the output is looked at, and lines are cut before they are matched."""
    output = metrics.read(b"x" * (3 * metrics.WINDOW_BYTES) + b"\n" + BLOCK)
    assert output.metrics is not None


def test_a_block_that_a_library_prints_is_not_taken_for_the_measured_one() -> None:
    """Neither before nor after it: the one that says what prepare.py measured counts."""
    forged = hostile.FORGED_BLOCK.encode()
    output = metrics.read(forged + BLOCK + b"bye\n" + forged, [0.99790004])
    assert output.metrics is not None
    assert output.metrics.val_bpb == 0.9979
    assert output.warnings == [
        "train.py printed 3 result blocks; the last one that prepare.py measured counts"
    ]


def test_a_figure_that_nobody_measured_is_no_result() -> None:
    """The author of train.py can forge the measure, but nothing does so by mistake."""
    output = metrics.read(BLOCK, [1.25, 1.5])
    assert output.metrics is None
    assert output.problem == (
        "val_bpb is 0.997900, but evaluate_bpb of prepare.py measured 1.250000, 1.500000"
    )


@pytest.mark.parametrize("printed", ["0.9979", "0.997900", "0.99790004", "0.998"])
def test_a_measured_figure_may_be_printed_with_fewer_decimals(printed: str) -> None:
    output = metrics.read(f"---\nval_bpb: {printed}\n".encode(), [0.99790004])
    assert output.metrics is not None


@given(st.binary(max_size=300))
def test_no_file_of_measures_breaks_the_parser(text: bytes) -> None:
    """The run can write to it: other lines are skipped."""
    assert metrics.measured(b"0.5\n" + text.replace(b"\n", b"") + b"x\n1.5\n")[0] == 0.5
    metrics.read(BLOCK, metrics.measured(text))


def test_the_hostile_log_gives_its_own_last_block_and_no_curve_of_nonsense() -> None:
    """All that it forges comes before the one block that the run prints at its end."""
    output = metrics.read(hostile.RUN_LOG + b"\n" + BLOCK)
    assert output.metrics is not None
    assert output.metrics.val_bpb == 0.9979
    curve = Curve()
    curve.feed(hostile.RUN_LOG)
    curve.close()
    assert [(point.step, point.percent) for point in curve.points()] == [(1, 50.0)]
    assert len(metrics.failure(hostile.RUN_LOG)) <= metrics.ERROR_CHARACTERS


@given(st.binary(max_size=3000))
def test_no_output_breaks_the_parser(junk: bytes) -> None:
    """Any bytes are read, and before a block they change nothing but warnings."""
    metrics.read(junk)
    metrics.failure(junk)
    output = metrics.read(junk + b"\n" + BLOCK)
    assert output.metrics is not None
    assert output.metrics.val_bpb == 0.9979


@given(
    st.floats(min_value=1e-6, max_value=1e6),
    st.lists(st.sampled_from([b"\r", b"\n", b"\x1b[2K", b"step 1 (1%) | loss: 2\r", b"---\n"])),
)
def test_the_value_read_is_the_value_printed(value: float, before: list[bytes]) -> None:
    """Reading undoes printing, whatever control characters stand before the block."""
    output = metrics.read(b"".join(before) + f"\n---\nval_bpb: {value!r}\n".encode())
    assert output.metrics is not None
    assert output.metrics.val_bpb == value


def test_a_failure_is_its_last_traceback() -> None:
    """Not the first one, which may have been caught, and not the progress lines."""
    text = (
        b"Traceback (most recent call last):\n  first\nKeyError: 1\nstep 1 ( 2.0%) | loss: 3.0\r"
        b"Traceback (most recent call last):\n  second\nstep 2 (4%) | loss: 3.0\rValueError: no\n"
    )
    assert metrics.failure(text) == ("Traceback (most recent call last):\n  second\nValueError: no")


def test_a_failure_has_at_most_2000_characters_and_keeps_its_end() -> None:
    """The exception's own line comes last, so the end is what matters."""
    text = b"Traceback (most recent call last):\n" + b"  frame\n" * 1000 + b"ValueError: the end\n"
    failure = metrics.failure(text)
    assert len(failure) == metrics.ERROR_CHARACTERS
    assert failure.endswith("ValueError: the end")


def test_without_a_traceback_a_failure_is_the_fail_line_or_the_last_lines() -> None:
    """train.py prints FAIL before it gives up; other programs just stop."""
    assert metrics.failure(b"a\nFAIL: loss is nan\nb\n") == "FAIL: loss is nan\nb"
    assert metrics.failure(b"one\ntwo\n") == "one\ntwo"
