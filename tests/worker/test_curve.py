"""The learning curve, read from output as it comes."""

from itertools import pairwise

from hypothesis import given, strategies as st

from gpu_worker.curve import POINTS_SENT, Curve, read_point, thin
from orchestrator.schemas import CurvePoint

LINE = (
    b"step 00123 ( 41.0%) | loss: 3.456789 | lrm: 1.00 | dt: 315ms | tok/sec: 1,664,000 "
    b"| mfu: 39.8% | epoch: 1 | remaining: 177s"
)


def test_a_progress_line_gives_step_percent_and_loss() -> None:
    """The documented form is read."""
    assert read_point(LINE) == CurvePoint(step=123, percent=41.0, loss=3.456789)


def test_lines_without_all_three_or_with_a_loss_that_is_no_number_are_skipped() -> None:
    """Nothing is guessed."""
    assert read_point(b"step 1 | loss: 3.0") is None
    assert read_point(b"(41%) | loss: 3.0") is None
    assert read_point(b"step 1 (41%)") is None
    assert read_point(b"step 1 (41%) | loss: nan") is None
    assert read_point(b"step 1 (41%) | loss: inf") is None
    assert read_point(b"step 1 (41%) | loss: ?") is None


@given(st.integers(1, 500), st.lists(st.integers(1, 400), min_size=1))
def test_a_curve_does_not_depend_on_how_its_output_was_cut(count: int, cuts: list[int]) -> None:
    """Pieces may end in the middle of a line."""
    output = b"".join(b"\rstep %d (%d%%) | loss: 2.5" % (n, n % 100) for n in range(count))
    whole, pieces = Curve(), Curve()
    whole.feed(output)
    position = 0
    for number in range(10 * count):
        size = cuts[number % len(cuts)]
        pieces.feed(output[position : position + size])
        position += size
        if position >= len(output):
            break
    pieces.feed(output[position:])
    whole.close()
    pieces.close()
    assert pieces.points() == whole.points()
    assert whole.points()[-1].step == count - 1


def test_a_long_curve_is_thinned_evenly_and_keeps_both_ends() -> None:
    """At most as many points as a report may carry, however many lines there were."""
    curve = Curve()
    for step in range(20_000):
        curve.feed(b"step %d (1%%) | loss: 2.5\r" % step)
    points = curve.points()
    assert len(points) == POINTS_SENT
    assert (points[0].step, points[-1].step) == (0, 19_999)
    gaps = [b.step - a.step for a, b in pairwise(points)]
    assert max(gaps) <= 2 * min(gaps)


def test_an_endless_line_takes_no_memory() -> None:
    """The curve goes on after it."""
    curve = Curve()
    for _ in range(100):
        curve.feed(b"x" * 100_000)
    assert len(curve._rest) <= 4096
    curve.feed(b"\nstep 1 (1%) | loss: 2.5\n")
    assert len(curve.points()) == 1


@given(st.lists(st.integers(), max_size=600), st.integers(2, 300))
def test_thinning_keeps_order_and_ends(numbers: list[int], limit: int) -> None:
    """The kept points are a subsequence with the first and the last."""
    points = [CurvePoint(step=n, percent=0, loss=v % 7) for n, v in enumerate(numbers)]
    kept = thin(points, limit)
    assert len(kept) <= limit
    steps = [point.step for point in kept]
    assert steps == sorted(set(steps))
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])


@given(st.binary(max_size=2000))
def test_no_output_breaks_the_curve(junk: bytes) -> None:
    """Any bytes may come."""
    curve = Curve()
    curve.feed(junk)
    curve.close()
    assert len(curve.points()) <= POINTS_SENT
