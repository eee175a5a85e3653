"""How evenly a run took its steps, on made curves."""

import pytest
from hypothesis import given, strategies as st

from orchestrator.rules.pace import KNOWN, LEAST, RECENT, slow_part, unusual


def curve(rates: list[float], steps: int = 2000, points: int = 256) -> list[tuple[float, float]]:
    """A run that is `rates` times as fast as usual in equal parts of its time, as prepare.py's
    progress lines show it: percents with one decimal, whole steps."""
    found, at = [], 0.0
    for point in range(points + 1):
        found.append((round(100 * point / points, 1), float(int(at))))
        at += steps / points * rates[min(len(rates) - 1, point * len(rates) // points)]
    return found


@given(st.integers(400, 100_000), st.integers(40, 256))
def test_an_even_run_has_no_slow_steps(steps: int, points: int) -> None:
    slow = slow_part(curve([1.0], steps, points))
    assert slow is not None
    assert slow < LEAST


@given(
    st.floats(0.1, 0.9), st.integers(1, 12), st.randoms(use_true_random=False),
)  # fmt: skip
def test_what_a_disturbance_costs_is_found_wherever_it_is(
    rate: float, parts: int, chance: object
) -> None:
    rates = [rate] * parts + [1.0] * (19 - parts)
    chance.shuffle(rates)  # type: ignore[attr-defined]
    slow = slow_part(curve([1.0, *rates]))
    assert slow == pytest.approx(parts / 19 * (1 - rate), abs=0.06)


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e9)), max_size=60),
)
def test_whatever_a_program_prints_is_a_part_or_says_nothing(
    points: list[tuple[float, float]],
) -> None:
    slow = slow_part(points)
    assert slow is None or 0 <= slow <= 1


@pytest.mark.parametrize(
    "points",
    [[], curve([1.0], points=10), curve([1.0], steps=50), curve([1.0])[:200], curve([1.0])[100:]],
    ids=["no curve", "few points", "few steps", "an end that is missing", "no beginning"],
)
def test_a_curve_that_says_too_little_says_nothing(points: list[tuple[float, float]]) -> None:
    assert slow_part(points) is None


@given(st.lists(st.floats(0, 0.3), max_size=RECENT), st.floats(0, 1))
def test_a_run_is_unusual_only_against_enough_others_and_by_far(
    others: list[float], slow: float
) -> None:
    why = unusual(slow, others)
    if len(others) < KNOWN or slow <= sorted(others)[len(others) // 2] + LEAST - 0.3:
        assert why is None
    if len(others) >= KNOWN and len(set(others)) == 1:
        assert (why is None) == (slow <= others[0] + LEAST)


def test_the_words_say_how_much_and_why() -> None:
    assert unusual(0.21, [0.01] * 5) == (
        "slow steps cost it 21% of its training, and 1% in other runs: something else used its"
        " machine, or it waited for data"
    )
    assert unusual(None, [0.01] * 5) is None
