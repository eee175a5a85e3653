"""What `watch` draws and says: pure functions from a view to a picture, from an event to a line."""

import io
from typing import Any

import pytest
from hypothesis import example, given, strategies as st
from rich.console import Console

from orchestrator import schemas
from orchestrator.cli.events import Event, Live, Lost, Missed
from orchestrator.cli.picture import ASCII, Frame, View, ago, bar, picture, sparkline, when
from orchestrator.cli.watch import line, object_of
from tests import hostile_log as hostile

NOW = 1_795_557_600.0  # 2026-11-24T22:00:00Z
AT = "2026-11-24T21:58:00.000000Z"


def tag(name: str = "mar11") -> schemas.TagInfo:
    return schemas.TagInfo(
        name=name, branch=f"autoresearch/{name}", created_at=AT, time_budget_seconds=300,
        near_miss_threshold=0.002, max_consecutive_crashes=3, best_val_bpb=0.978975,
        best_experiment_id="exp-b", total_experiments=9, kept_experiments=2, profile="h100",
        prepare_sha256=None,
    )  # fmt: skip


def summary(**stats: int) -> schemas.SummaryAnswer:
    counts = {
        "total": 842, "kept": 41, "discarded": 780, "crashed": 21, "running": 2, "keep_rate": 0.05,
        "queued": 3, "timed_out": 0, "cancelled": 0, "infra_lost": 0, "abandoned": 0,
    } | stats  # fmt: skip
    keeps = [
        schemas.ProgressionPoint(id=f"exp-{i}", val_bpb=v, description="", category="", at=AT)
        for i, v in enumerate([0.9979, 0.99, 0.978975])
    ]
    return schemas.SummaryAnswer(
        tag="mar11", branch="b", stats=schemas.SummaryStats(**counts), categories={},
        best=schemas.SummaryBest(val_bpb=0.978975, commit="c", experiment_id="exp-b"),
        bpb_progression=keeps, total_training_minutes=1.0, strategy="explore",
        gpu_pool=schemas.PoolCounts(total=2, idle=0, training=2),
    )  # fmt: skip


def worker(name: str, status: Any = "training", **fields: Any) -> schemas.Worker:
    health = schemas.Health(
        temperature_c=61, memory_used_mb=46_200, memory_total_mb=81_559, utilization_percent=98
    )
    given: dict[str, Any] = {
        "id": name, "name": name, "gpu_index": 0, "gpu_name": "NVIDIA H100 80GB HBM3",
        "vram_mb": 81_559, "status": status, "registered_at": AT, "last_heartbeat": AT,
        "health": health, "current_experiment_id": f"exp-{name}" if status == "training" else None,
    } | fields  # fmt: skip
    return schemas.Worker(**given)


def detail(name: str, points: int = 60, **fields: Any) -> schemas.ExperimentDetail:
    curve = [
        schemas.CurvePoint(step=10 * i, percent=i, loss=3.2 + 6 / (1 + i)) for i in range(points)
    ]
    blank = dict.fromkeys(schemas.ExperimentDetail.model_fields)
    given = blank | {
        "id": name, "tag": "mar11", "status": "running", "commit_sha": "c",
        "description": "squared ReLU in the MLP", "hypothesis": "h", "category": "activation",
        "diff_summary": "", "gpu_id": "gpu-0", "created_at": AT, "seed": 42, "priority": 0,
        "time_budget_seconds": 300, "warnings": [], "environment": {}, "attempts": [],
        "curve": curve, "merged_from": [], "stopped_early": False,
    } | fields  # fmt: skip
    return schemas.ExperimentDetail(**given)


def record(number: int, status: str = "discard", **fields: Any) -> schemas.Record:
    given: dict[str, Any] = {
        "id": f"exp-{number}", "tag": "mar11", "parent_id": None, "commit_sha": "c",
        "description": f"idea {number}", "hypothesis": "h", "category": "optimizer",
        "val_bpb": 0.98 + number / 1000, "peak_vram_mb": 0, "training_seconds": 300,
        "total_tokens_m": 0, "mfu_percent": 0, "num_steps": 0, "num_params_m": 0, "depth": 0,
        "status": status, "gpu_id": None, "started_at": AT, "finished_at": AT, "diff_summary": "",
        "error": None,
    } | fields  # fmt: skip
    return schemas.Record(**given)


def queued(text: str) -> schemas.ExportRow:
    blank = dict.fromkeys(schemas.ExportRow.model_fields) | {"stopped_early": False}
    given = blank | {
        "id": "exp-q", "tag": "mar11", "status": "queued", "category": "attention",
        "hypothesis": "h", "description": text, "diff_summary": "", "commit_sha": "c", "seed": 42,
        "priority": 7, "time_budget_seconds": 300, "created_at": AT, "attempts": 0, "warnings": [],
    }  # fmt: skip
    return schemas.ExportRow(**given)


def busy_view(gpus: int = 2, **fields: Any) -> View:
    workers = [worker(f"gpu-{i}") for i in range(gpus)]
    pool = schemas.PoolAnswer(workers=workers, total=gpus, idle=0, training=gpus, offline=0)
    given: dict[str, Any] = {
        "tag": tag(),
        "summary": summary(),
        "strategy": schemas.Strategy(
            mode="explore", explore_ratio=0.8, temperature=1, updated_at=AT, reason="", pinned=True
        ),
        "running": {f"exp-gpu-{i}": detail(f"exp-gpu-{i}") for i in range(gpus)},
        "queue": [queued("a wider head"), queued("no bias")],
        "recent": [
            record(1, "keep"),
            record(2),
            record(3, "crash", val_bpb=0, error="Traceback…\nOutOfMemoryError: 80 GiB"),
            *(record(n) for n in range(4, 30)),
        ],
    } | fields
    return View("http://127.0.0.1:3111", NOW, pool, **given)


def drawn(view: View, width: int = 120, height: int = 40, **frame: Any) -> list[str]:
    out = Console(file=io.StringIO(), width=width, height=height, markup=False, highlight=False)
    out.print(picture(view, Frame(width, height, NOW, **frame)))
    text = out.file.getvalue()  # type: ignore[attr-defined]
    return [text_line.rstrip() for text_line in text.splitlines()]


def test_a_picture_answers_what_a_person_asks_first() -> None:
    """How far, what runs where and how far it is, what comes next, what was decided and why."""
    text = "\n".join(drawn(busy_view()))
    for words in (
        "best 0.978975", "-0.018925 since the first", "41 kept of 842", "2 running, 3 queued",
        "21 crashed", "explore (pinned)", "61", "45.1/80 GiB", "98 %", "59 %",
        "squared ReLU in the MLP", "loss of exp-gpu-0 on gpu-0", "attention: a wider head",
        "priority 7", "2 min ago", "keep", "idea 1", "OutOfMemoryError: 80 GiB",
    ):  # fmt: skip
        assert words in text, words
    assert "STALE" not in text


@pytest.mark.parametrize("width", [30, 40, 71, 72, 109, 110, 250])
@pytest.mark.parametrize("height", [6, 10, 16, 24, 60])
@pytest.mark.parametrize("gpus", [0, 1, 8, 64])
def test_a_picture_is_never_larger_than_its_window(width: int, height: int, gpus: int) -> None:
    lines = drawn(busy_view(gpus), width, height, stale="no orchestrator answers")
    assert len(lines) <= max(height, 8)
    assert max(map(len, lines)) <= width
    assert any("STALE" in text for text in lines)


def test_a_stale_picture_says_of_when_it_is_and_why() -> None:
    view = busy_view()
    assert any(
        "STALE, as of 2 min ago: no orchestrator answers" in text
        for text in drawn(
            View(view.url, NOW - 130, view.pool, view.tag, view.summary),
            stale="no orchestrator answers",
        )
    )


def test_an_empty_system_says_what_to_do_first() -> None:
    pool = schemas.PoolAnswer(workers=[], total=0, idle=0, training=0, offline=0)
    text = "\n".join(drawn(View("http://x", NOW, pool)))
    assert "autoresearch setup" in text
    assert "autoresearch worker" in text


def test_what_ails_a_gpu_stands_where_its_run_would() -> None:
    workers = [
        worker("gpu-0", "unfit", problem="0.2 GiB of disk are free\x1b[2J"),
        worker("gpu-1", "offline"),
        worker("gpu-2", "idle", health=None),
    ]
    pool = schemas.PoolAnswer(workers=workers, total=3, idle=1, training=0, offline=1)
    text = "\n".join(drawn(View("http://x", NOW, pool, tag(), summary())))
    assert "0.2 GiB of disk are free␛[2J" in text
    assert "last heard of 2 min ago" in text


def test_a_paused_tag_says_so_and_why() -> None:
    pause = schemas.OperatorHold(by="me", reason="the GPUs are needed", at=AT)
    paused = tag().model_copy(update={"paused": True, "pause": pause})
    assert any("paused (the GPUs are needed)" in text for text in drawn(busy_view(tag=paused)))


def test_of_many_gpus_those_that_work_are_shown() -> None:
    workers = [worker(f"gpu-{i}", "idle") for i in range(30)] + [worker("gpu-30")]
    pool = schemas.PoolAnswer(workers=workers, total=31, idle=30, training=1, offline=0)
    lines = drawn(View("http://x", NOW, pool, tag(), summary()), height=20)
    assert any("gpu-30" in text for text in lines)
    assert any("and 24 more" in text for text in lines)


def test_words_of_agents_and_runs_are_shown_harmlessly() -> None:
    words = hostile.RUN_LOG.decode(errors="replace")
    view = busy_view(
        1,
        running={"exp-gpu-0": detail("exp-gpu-0", description=words)},
        queue=[queued(words)],
        recent=[record(1, "crash", description=words, error=words, category=words)],
    )
    for width in (40, 80, 200):
        hostile.assert_harmless("\n".join(drawn(view, width)))


def test_a_terminal_without_unicode_gets_other_marks() -> None:
    text = "\n".join(drawn(busy_view(), unicode=False))
    assert not set(text) & set("━╌▁▂▃▄▅▆▇█—")
    assert "=====" in text


@example([1.7976931348623157e308, -9.9792015476736e291], 2, 1)
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=300),
    st.integers(1, 120), st.integers(1, 4),
)  # fmt: skip
def test_a_sparkline_fits_whatever_the_numbers(values: list[float], width: int, rows: int) -> None:
    lines = sparkline(values, width, rows, ASCII)
    assert len(lines) == rows
    assert all(len(text) <= width for text in lines)


def test_a_sparkline_shows_the_end_of_a_curve_that_began_high() -> None:
    """The first values would flatten all others."""
    [text] = sparkline([11.0, 8.0, *(4 - i / 50 for i in range(48))], 50)
    assert text.startswith("██")
    assert text.endswith("▁")
    assert len(set(text)) == 8


@pytest.mark.parametrize("values", [[], [float("nan")]])
def test_without_numbers_there_is_no_line(values: list[float]) -> None:
    assert sparkline(values, 10, 2) == ["", ""]


@pytest.mark.parametrize(
    ("share", "text"), [(-1.0, "----"), (0.5, "==--"), (1.0, "===="), (7.0, "====")]
)
def test_a_bar_is_as_long_as_its_width(share: float, text: str) -> None:
    assert bar(share, 4, "=", "-") == text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (59.9, "60 s"), (60, "1 min"), (3600, "1 h"), (9 * 86_400, "9 d")],
)
def test_ages_have_the_largest_unit_that_fits(seconds: float, words: str) -> None:
    assert ago(seconds) == words


def test_a_time_that_is_none_has_no_age() -> None:
    assert when("", NOW) == ""
    assert when(AT, NOW) == "2 min ago"


def test_a_line_says_what_happened_in_words() -> None:
    decided = Event("1795557600000-0", "decided", "t", "exp-1",
                    {"status": "keep", "val_bpb": "0.9", "gpu_id": "gpu-0"})  # fmt: skip
    assert line(decided)[8:] == " decided exp-1 keep val_bpb 0.900000 on gpu-0"
    mode = Event("1-0", "strategy", "t", "", {"mode": "exploit", "reason": "x\x1b[2J"})
    assert line(mode)[8:] == " strategy t exploit: x␛[2J"
    assert "stale: gone; trying again" in line(Lost("gone"))
    assert "missed" in line(Missed())


def test_an_object_has_what_since_takes() -> None:
    assert object_of(Event("5-1", "queued", "t", "exp-1", {"gpu_id": None})) == {
        "event": "queued", "id": "5-1", "tag": "t", "subject": "exp-1", "gpu_id": None,
    }  # fmt: skip
    assert object_of(Live()) == {"event": "live"}
    assert object_of(Lost("gone")) == {"event": "lost", "why": "gone"}
