"""The chart: a PNG for any history, with crashes below every measured run."""

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from orchestrator.chart.draw import DARK, LIGHT, Axis, Look, Theme, draw
from orchestrator.chart.values import RAIL, Point, labelled, points_of, running_best, value_range
from orchestrator.schemas import ExportRow


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


HISTORIES: dict[str, list[Point]] = {
    "nothing": [],
    "only-a-crash": [Point(1, "crash", None, hours=0.0)],
    "one": [Point(1, "keep", 1.2, "baseline", 0.0)],
    "an-outlier": [
        Point(1, "keep", 1.2, "baseline", 0.0),
        Point(2, "timeout", None, hours=0.1),
        Point(3, "discard", 99.0, hours=0.2),
    ],
    "crowded": [Point(i, "keep", 2 - i / 1000, "$\\NAME$ 0.1 → 0.2" * 3) for i in range(1, 60)],
    "a-strange-script": [Point(1, "keep", 1.0, "\u0d9c\u0da2 \U0001f9ea", 0.0)],
    "many": [
        Point(i, "discard" if i % 3 else "crash", 1 + i % 7 / 100 if i % 3 else None, hours=i)
        for i in range(1, 6000)
    ],
}


@pytest.mark.parametrize("points", HISTORIES.values(), ids=HISTORIES.keys())
@pytest.mark.parametrize(("theme", "by"), [(LIGHT, "order"), (DARK, "time")])
def test_any_history_gives_a_readable_png(
    points: list[Point], theme: Theme, by: Axis, tmp_path: Path
) -> None:
    look = Look("demo-1 $\\x$", "budget 20 s · profile cpu", theme, by)
    with (tmp_path / "p.png").open("wb") as file:
        draw(points, file, look)
    width, height = png_size(tmp_path / "p.png")
    assert width >= 1200
    assert height >= 600


def svg(points: list[Point]) -> str:
    file = io.BytesIO()
    draw(points, file, Look("mar11", "the subtitle"), "svg")
    return file.getvalue().decode()


def test_an_svg_is_small_its_text_is_text_and_the_same_history_gives_the_same_bytes() -> None:
    points = [Point(1, "keep", 1.2, "baseline"), Point(2, "crash", None), Point(3, "keep", 1.1)]
    text = svg(points)
    assert text == svg(points)
    for words in ("mar11", "the subtitle", "1.2000  baseline", "2 kept", "1 crashed"):
        assert f">{words}<" in text
    assert len(text) < 40_000


def test_many_dots_become_a_picture_inside_the_svg() -> None:
    assert len(svg(HISTORIES["many"])) < 300_000


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


def test_bad_runs_do_not_flatten_the_progress() -> None:
    """The range is that of the keeps, however many runs were worse than the first."""
    keeps = [Point(1, "keep", 1.0), Point(2, "keep", 0.98)]
    low, high = value_range(keeps + [Point(i, "discard", 1.5) for i in range(3, 50)])
    assert 0.97 < low < 0.98
    assert 1.0 < high < 1.01


def test_noise_is_not_blown_up_to_the_height_of_the_chart() -> None:
    low, high = value_range([Point(1, "keep", 1.0), Point(2, "keep", 0.9999)])
    assert high - low >= 0.004


def test_only_improvements_are_on_the_line() -> None:
    points = [
        Point(1, "keep", 1.0), Point(2, "crash", None), Point(3, "discard", 1.1),
        Point(4, "keep", 0.9), Point(5, "discard", 0.9),
    ]  # fmt: skip
    assert [p.number for p in running_best(points)] == [1, 4]


def test_a_race_s_chart_has_estimates_for_keeps_and_neither_repeats_nor_candidates() -> None:
    blank = dict.fromkeys(ExportRow.model_fields) | {"stopped_early": False}
    statuses = ("keep", "repeat", "cancelled", "candidate", "keep", "discard", "crash")
    rows = [
        ExportRow.model_construct(**blank | {
            "id": f"exp-{n}", "status": status, "val_bpb": 1 - n / 100,
            "finished_at": None if status == "candidate" else f"2026-01-01T00:00:0{n}Z",
            "description": "",
        })
        for n, status in enumerate(statuses)
    ]  # fmt: skip
    points = points_of(rows, {"exp-0": 1.01, "exp-4": 0.97})
    assert [(point.status, point.val_bpb) for point in points] == [
        ("keep", 1.01), ("keep", 0.97), ("discard", 0.95), ("crash", None),
    ]  # fmt: skip
    assert [point.val_bpb for point in running_best(points)] == [1.01, 0.97]


def test_the_latest_the_first_and_the_largest_gains_get_labels() -> None:
    values = [1.0, 0.99, 0.9, 0.899, 0.85, 0.849]
    points = [Point(i, "keep", v) for i, v in enumerate(values, 1)]
    assert [p.number for p in labelled(points, 4)] == [6, 1, 3, 5]
    assert [p.number for p in labelled(points[:1])] == [1]
    assert labelled([]) == []
