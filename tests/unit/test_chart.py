"""The chart: a PNG for any history, with crashes below every measured run."""

import struct
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from orchestrator.chart.draw import DARK, LIGHT, Look, Theme, draw
from orchestrator.chart.values import RAIL, Point, labelled, running_best, value_range


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


@pytest.mark.parametrize(
    "points",
    [
        [],
        [Point(1, "crash", None)],
        [Point(1, "keep", 1.2, "baseline")],
        [Point(1, "keep", 1.2, "baseline"), Point(2, "timeout", None), Point(3, "discard", 99.0)],
        [Point(i, "keep", 2 - i / 1000, "$\\NAME$ 0.1 → 0.2" * 3) for i in range(1, 60)],
    ],
    ids=["nothing", "only-a-crash", "one", "an-outlier", "crowded"],
)
def test_any_history_gives_a_readable_png(points: list[Point], tmp_path: Path) -> None:
    draw(points, tmp_path / "p.png", title="demo-1 $\\x$", subtitle="budget 20 s · profile cpu")
    width, height = png_size(tmp_path / "p.png")
    assert width >= 1200
    assert height >= 600


@given(
    st.lists(
        st.tuples(st.sampled_from(["keep", "discard"]), st.floats(0.1, 100)),
        min_size=1,
        max_size=30,
    )
)
def test_the_rail_of_crashes_lies_below_every_run(runs: list[tuple[str, float]]) -> None:
    points = [Point(i, status, value) for i, (status, value) in enumerate(runs)]
    low, high = value_range(points)
    assert min(value for _, value in runs) > low + 2 * RAIL * (high - low)
    assert all(value < high for status, value in runs if status == "keep")


def test_one_bad_run_does_not_flatten_the_others() -> None:
    points = [Point(i, "discard", 2 + i / 1000) for i in range(9)] + [Point(10, "discard", 50.0)]
    assert value_range(points)[1] < 2.1
