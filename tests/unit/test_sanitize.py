"""Text from a run's output is harmless once it went through sanitize.py."""

import json

import pytest
from hypothesis import example, given, strategies as st

from orchestrator.rules import sanitize
from tests import hostile_log as hostile

TEXTS = st.one_of(
    st.text(max_size=400),
    st.binary(max_size=400),
    st.lists(st.sampled_from(hostile.PIECES) | st.text(max_size=5), max_size=8).map("".join),
    st.text(
        alphabet=st.sampled_from(sorted(hostile.FORBIDDEN) + list('a "\\\n\t\r[];m')), max_size=80
    ),
    st.text(alphabet=st.characters(categories=["Cs", "Cf", "Cc", "Mn", "Zs", "L"]), max_size=80),
)
LIMITS = st.integers(min_value=0, max_value=300)


def json_bytes(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


@pytest.mark.parametrize("end", [False, True])
@given(value=TEXTS, limit=LIMITS)
@example(value=hostile.RUN_LOG, limit=4000)
def test_a_block_is_harmless_bounded_and_stable(value: str | bytes, limit: int, end: bool) -> None:
    """No forbidden character, no more bytes of JSON than asked for, the same the second time."""
    text = sanitize.block(value, limit, end=end)
    hostile.assert_harmless(text)
    assert json_bytes(text) <= limit
    assert sanitize.size(text) == json_bytes(text)
    assert sanitize.block(text, limit, end=end) == text


@given(value=TEXTS, limit=LIMITS)
@example(value=hostile.RUN_LOG, limit=4000)
def test_a_line_is_harmless_bounded_stable_and_one_line(value: str | bytes, limit: int) -> None:
    text = sanitize.line(value, limit)
    hostile.assert_harmless(text)
    assert json_bytes(text) <= limit
    assert "\n" not in text
    assert sanitize.line(text, limit) == text


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=100))
def test_plain_text_passes_unchanged(text: str) -> None:
    """What people write is left alone."""
    assert sanitize.line(text, 1000) == text
    assert sanitize.block(f"  {text}x\n    {text}y", 1000) == f"  {text}x\n    {text}y"


def test_text_of_other_scripts_and_symbols_stays() -> None:
    """Only what cannot be seen goes."""
    text = "größer → 更大 больше ∂L/∂w 🙂 é"
    assert sanitize.line(text, 1000) == text


def test_escape_sequences_go_as_a_whole() -> None:
    """Not only the escape character: `[31m` and a window title are no words of the run's."""
    assert sanitize.line("\x1b[1;31mred\x1b[0m", 100) == "red"
    assert (
        sanitize.line("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c\x9b2Jd\x1bPq\x1b\\e", 100)
        == "abcde"
    )
    assert sanitize.line("a\x1b]0;never ended\nb", 100) == "a b"


def test_a_rewritten_line_becomes_lines() -> None:
    """A carriage return hides nothing."""
    assert sanitize.block("val_bpb: 9\rval_bpb: 1\r\nend", 100) == "val_bpb: 9\nval_bpb: 1\nend"


def test_a_cut_is_marked_at_the_side_where_something_is_missing() -> None:
    assert sanitize.line("abcdefghij", 8) == "abcde…"
    assert sanitize.block("abcdefghij", 8, end=True) == "…fghij"


def test_a_line_of_fifty_megabytes_costs_as_little_as_a_short_one() -> None:
    """Only a window at the wanted side is looked at."""
    data = b"".join(hostile.long_line())
    assert len(data) == hostile.LONG_LINE_BYTES
    hostile.assert_harmless(sanitize.line(data, 200))
    assert sanitize.block(data + b"the end", 200, end=True).endswith("the end")
