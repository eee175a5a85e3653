"""What others wrote, on a terminal: nothing acts or hides, and it is seen that it was there."""

import io
import json
from contextlib import redirect_stdout
from typing import Any, get_args

import pytest
from hypothesis import given, strategies as st

from orchestrator import schemas
from orchestrator.cli import mlflow_sink, tables
from orchestrator.cli.experiments import step
from orchestrator.cli.output import answer, write_json
from orchestrator.cli.text import LINE_LIMIT, LogLines, escaped, one_line, visible
from orchestrator.schemas.base import PublicStatus
from tests import hostile_log as hostile
from tests.unit.test_cli_watch import detail


@given(st.text())
def test_any_text_becomes_harmless_and_stays_so(text: str) -> None:
    cleaned = visible(text)
    hostile.assert_harmless(cleaned)
    assert visible(cleaned) == cleaned


@given(st.text(st.characters(codec="utf-8")))
def test_escaped_json_says_what_it_said(text: str) -> None:
    said = escaped(json.dumps({"text": text}, ensure_ascii=False))
    hostile.assert_harmless(said)
    assert json.loads(said) == {"text": text}


def test_what_was_there_is_seen() -> None:
    assert visible("a\x1b[31mb\u202ec\td") == "a␛[31mb<U+202E>c    d"
    assert visible("été 日本 ✓ →") == "été 日本 ✓ →"
    assert one_line(" a\n\tb \x07") == "a b ␇"


def test_answers_pass_nothing_on() -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        answer("x\x1b]0;title\x07")
        write_json({"x": "\x9b31m\u202e"})
    hostile.assert_harmless(out.getvalue())


def lines_of(*pieces: bytes) -> list[str]:
    log = LogLines()
    done = [line for piece in pieces for line in log.feed(piece)]
    return [*done, log.line] if log.line else done


@given(st.integers(1, 50))
def test_a_hostile_log_is_harmless_however_it_is_cut(size: int) -> None:
    pieces = [hostile.RUN_LOG[i : i + size] for i in range(0, len(hostile.RUN_LOG), size)]
    lines = lines_of(*pieces)
    hostile.assert_harmless("\n".join(lines))
    assert lines == lines_of(hostile.RUN_LOG)


def test_a_progress_line_leaves_its_last_state() -> None:
    assert lines_of(b"begin\n\rstep 1", b"\rstep 2\r", b"\nend\r\n") == ["begin", "step 2", "end"]
    assert lines_of(b"\rstep 1 of 10\rstep 2") == ["step 2"]


def test_a_line_without_end_is_cut_and_costs_no_memory() -> None:
    log = LogLines()
    for piece in hostile.long_line(2_000_000):
        assert log.feed(piece) == []
        assert len(log._line) <= LINE_LIMIT
    assert log.line.endswith("more characters)")
    hostile.assert_harmless(log.line)


def test_characters_that_come_in_halves_are_whole() -> None:
    assert lines_of("é".encode()[:1], "é".encode()[1:] + b"\n") == ["é"]


def said(status: Any, **more: Any) -> schemas.Verdict:
    """What the keep rule `race` says, with a text of an agent in it."""
    return schemas.Verdict(
        experiment_id="exp-1", status=status, val_bpb=0.98, improved=status == "keep", delta=0.01,
        best_val_bpb=0.98, action="git_reset", sigma=0.001, probability=0.9, runs=2,
        why="a\nb\u202e", **more,
    )  # fmt: skip


def stopped() -> dict[str, Any]:
    """The fields of a run that was stopped early."""
    forecast = {"predicted_val_bpb": 0.99, "predicted_sd": 0.001}
    verdict = schemas.StoppedVerdict(
        experiment_id="exp-1", status="discard", stopped_early=True, improved=False,
        best_val_bpb=0.98, probability=0.001, action="git_reset", why="stopped early: its loss",
        **forecast,
    )  # fmt: skip
    fields = {"status": "discard", "val_bpb": None, "stopped_early": True, "verdict": verdict}
    return fields | forecast


WHY = "val_bpb 0.980000; a\nb<U+202E>"
BEFORE = "val_bpb 0.980000, best before 0.970000"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"status": "keep", "verdict": said("keep", confirmed=True)}, WHY),
        ({"status": "discard", "verdict": said("discard")}, WHY),
        ({"status": "candidate", "so_far": said("candidate")}, WHY),
        ({"status": "repeat", "best_val_bpb_before": 0.97}, BEFORE),
        ({"status": "keep"}, "val_bpb 0.980000, the first result"),
        ({"status": "crash", "val_bpb": None, "error": "boom"}, "boom"),
        ({"status": "cancelled", "val_bpb": None}, ""),
        (stopped(), "stopped early: its loss"),
    ],
)  # fmt: skip
def test_a_verdict_s_line_says_why_where_a_race_says_it(fields: dict[str, Any], line: str) -> None:
    words = tables.verdict_line(detail("exp-1", **{"val_bpb": 0.98} | fields))
    assert words == f"exp-1 {fields['status']}" + (f": {line}" if line else "")


def test_what_was_predicted_of_a_run_is_no_val_bpb_in_mlflow() -> None:
    ended = detail("exp-1", finished_at="2026-01-01T00:00:00.000000Z", **stopped())
    metrics = {name: value for name, value, _, _ in mlflow_sink.metrics_of(ended)}
    assert metrics["predicted_val_bpb"] == 0.99
    assert "val_bpb" not in metrics
    assert mlflow_sink.tags_of(ended)["autoresearch.reason"] == "stopped early"


@pytest.mark.parametrize("status", get_args(PublicStatus))
def test_each_status_has_a_colour(status: str) -> None:
    assert tables.coloured(status).style == tables.COLOURS[status]


@pytest.mark.parametrize(
    ("fields", "share", "words"),
    [
        ({"status": "queued", "position": 3}, None, "queued, position 3"),
        ({"status": "running", "curve": []}, None, "starting on gpu-0"),
        ({}, 0.59, "step 590, loss 3.3000, at most 123 s to train on gpu-0"),
        ({"points": 101}, None, "evaluating on gpu-0, loss 3.2594"),
        ({"status": "keep", "finished_at": "2026-01-01T00:00:00.000000Z"}, None, "keep"),
        ({"status": "candidate", "so_far": said("candidate")}, None, "candidate: a\nb<U+202E>"),
    ],
)
def test_a_wait_says_where_the_run_is(
    fields: dict[str, Any], share: float | None, words: str
) -> None:
    assert step(detail("exp-1", **fields)) == (share, words)
