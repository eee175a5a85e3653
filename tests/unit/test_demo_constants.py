"""Editing the constants of a train.py: only the right sides change, and they say what was asked."""

import ast

import pytest
from hypothesis import given, strategies as st

from orchestrator.demo.constants import (
    Derived,
    Value,
    read_constants,
    render,
    same_value,
    with_constants,
)

SOURCE = '''"""A train.py in small."""
from prepare import PROFILE

DEPTH = PROFILE.depth  # blocks
TOTAL_BATCH_SIZE = PROFILE.batch // 2
LR: float = 0.04  # größer wäre mutig
SIZE = 2 ** 19; PATTERN = "SSSL"
NEGATIVE = -(1e-3)
SUM = (
    1
    + 2
)
TWICE = 1
if PROFILE:
    TWICE = 2
BETAS = (0.8, 0.95)
ON = True
lower = 3


def f() -> float:
    LOCAL = 5
    return LR * LOCAL
'''


def values(source: str) -> dict[str, Value]:
    return {name: constant.value for name, constant in read_constants(source).items()}


def test_it_reads_literals_arithmetic_and_simple_derivations() -> None:
    assert values(SOURCE) == {
        "DEPTH": Derived("PROFILE.depth"),
        "TOTAL_BATCH_SIZE": Derived("PROFILE.batch", shift=-1),
        "LR": 0.04,
        "SIZE": 2**19,
        "PATTERN": "SSSL",
        "NEGATIVE": -0.001,
        "SUM": 3,
    }


def test_an_edit_replaces_the_right_sides_and_nothing_else() -> None:
    changes: dict[str, Value] = {
        "DEPTH": Derived("PROFILE.depth", plus=-1),
        "LR": 0.05,
        "SIZE": 2**18,
        "PATTERN": "SL",
        "SUM": 7,
    }
    expected = (
        SOURCE.replace("PROFILE.depth", "PROFILE.depth - 1")
        .replace("0.04", "0.05")
        .replace("2 ** 19", "2**18")
        .replace('"SSSL"', '"SL"')
        .replace("1\n    + 2", "7")
    )
    assert with_constants(SOURCE, changes) == expected


def test_a_value_that_is_there_already_leaves_the_file_byte_for_byte() -> None:
    assert with_constants(SOURCE, values(SOURCE)) == SOURCE


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        with_constants(SOURCE, {"TWICE": 3})


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), Derived("a.b", 1, 1), Derived("x;y")]
)
def test_a_value_that_cannot_be_written_down_is_an_error(value: Value) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (each says it in its own words)
        with_constants(SOURCE, {"LR": value})


@pytest.mark.parametrize(
    "line",
    [
        "X = 10**99", "X = 2**9999999", "X = 1 / 0", "X = (10**18)**64", "X = f(1)", "X = [1]",
        "X = 1j", "X = (-8)**0.5", "X = A", "X = a().b", "X = a.b * 3", "X = a.b * 0", "X = Y = 1",
        "X += 1", "X = None", "X = b'1'", "X = a.b + 0.5", "X: int", "del X",
    ],
)  # fmt: skip
def test_what_is_no_simple_constant_is_left_alone(line: str) -> None:
    assert read_constants(line) == {}


def test_a_syntax_error_is_told() -> None:
    with pytest.raises(SyntaxError):
        read_constants("X = = 1")


def test_a_doubtful_escape_elsewhere_in_the_file_warns_nobody() -> None:
    assert values('X = 1\nY = "\\d"\n')["X"] == 1


literals = st.one_of(
    st.integers(-(10**17), 10**17),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e17, max_value=1e17),
    st.text(max_size=8),
    st.builds(Derived, st.just("PROFILE.depth"), plus=st.integers(-9, 9)),
    st.builds(Derived, st.just("p.q.r"), shift=st.integers(-9, 9)),
)


@given(literals)
def test_a_rendered_value_reads_back_as_itself(value: Value) -> None:
    assert same_value(values(f"X = {render(value)}")["X"], value)


line_ends = st.sampled_from(["\n", "\r\n", "\r"])
comments = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=12)


@given(st.lists(st.tuples(literals, literals, comments), min_size=1, max_size=6), line_ends)
def test_an_edit_round_trips_in_any_file(rows: list[tuple[Value, Value, str]], end: str) -> None:
    """An edit and its reverse give the same bytes, for all values, comments and line ends."""
    source = "".join(
        f"N{i} = {render(old)}  # {comment}{end}" for i, (old, _, comment) in enumerate(rows)
    )
    changes = {f"N{i}": new for i, (_, new, _) in enumerate(rows)}
    edited = with_constants(source, changes)
    ast.parse(edited)
    assert all(same_value(values(edited)[name], new) for name, new in changes.items())
    back = with_constants(edited, {f"N{i}": old for i, (old, _, _) in enumerate(rows)})
    assert back == source
