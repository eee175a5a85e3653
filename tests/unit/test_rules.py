"""The rules on plain values: verdicts, strategy, suggestions, what becomes of a lost run."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from orchestrator.decisions import RunResult, Snapshot
from orchestrator.domain import (
    INFRA_LOST,
    Counts,
    Experiment,
    Forecast,
    Metrics,
    Mode,
    Run,
    State,
    Status,
    Tag,
    rfc3339,
)
from orchestrator.rules.decide import decide
from orchestrator.rules.report import tsv_line, tsv_row
from orchestrator.rules.retry import (
    CANCELLED,
    Requeue,
    after_handed_back_attempt,
    after_lost_attempt,
    after_stopped_attempt,
)
from orchestrator.rules.strategy import INITIAL, adapt
from orchestrator.rules.suggest import CategoryCount, advise

KEEP, DISCARD, CRASH, TIMEOUT = Status.KEEP, Status.DISCARD, Status.CRASH, Status.TIMEOUT
TAG = Tag("t", 0, 300, 0.002, 3)
SNAPSHOT = Snapshot(TAG, Counts(), INITIAL, 0, ())
BPB = st.floats(min_value=1e-6, max_value=100, allow_nan=False)


def with_best(best: float | None, **tag: object) -> Snapshot:
    return replace(SNAPSHOT, tag=replace(TAG, best_val_bpb=best, **tag))  # type: ignore[arg-type]


def completed(val_bpb: float) -> RunResult:
    return RunResult("completed", Metrics(val_bpb))


@given(best=BPB, val_bpb=BPB)
def test_a_run_is_kept_exactly_when_it_is_strictly_better(best: float, val_bpb: float) -> None:
    """Keep, improved and a positive delta say the same thing."""
    decision = decide(with_best(best), completed(val_bpb))
    assert (decision.status is KEEP) == decision.improved == (val_bpb < best)
    assert decision.delta == best - val_bpb
    assert decision.consecutive_crashes == 0


@given(best=BPB, val_bpb=BPB, threshold=st.floats(0, 1))
def test_a_near_miss_is_a_discard_within_the_threshold(
    best: float, val_bpb: float, threshold: float
) -> None:
    decision = decide(with_best(best, near_miss_threshold=threshold), completed(val_bpb))
    near = decision.near_miss is not None
    assert near == (val_bpb == best or (val_bpb > best and val_bpb - best < threshold))
    assert not (near and decision.improved)


def test_the_first_result_is_kept_with_delta_zero() -> None:
    decision = decide(SNAPSHOT, completed(7.0))
    assert (decision.status, decision.delta, decision.best_before) == (KEEP, 0.0, None)


@pytest.mark.parametrize(
    ("result", "status", "streak", "counts"),
    [
        (RunResult("crash"), CRASH, 3, True),
        (RunResult("timeout"), TIMEOUT, 3, True),
        (RunResult("crash", reason=INFRA_LOST), CRASH, 2, False),
        (RunResult("cancelled"), Status.CANCELLED, 2, False),
    ],
)
def test_only_results_of_the_run_itself_count_in_the_streak(
    result: RunResult, status: Status, streak: int, counts: bool
) -> None:
    decision = decide(with_best(1.0, consecutive_crashes=2), result)
    assert (decision.status, decision.consecutive_crashes) == (status, streak)
    assert decision.counts_in_rates is counts
    assert decision.should_abort is (streak >= 3)


def snapshot_of(recent: list[Status], finished: int, near: int = 0) -> Snapshot:
    return Snapshot(TAG, Counts(discard=finished), INITIAL, near, tuple(recent))


@pytest.mark.parametrize(
    ("recent", "finished", "near", "mode", "temperature"),
    [
        ([CRASH] * 4, 4, 0, None, None),
        ([CRASH] * 3 + [KEEP] * 2, 5, 0, "exploit", 0.3),
        ([TIMEOUT] * 6 + [KEEP] * 4, 10, 0, "exploit", 0.3),
        ([CRASH] * 5 + [DISCARD] * 5, 10, 0, "explore", 0.8),
        ([DISCARD] * 10, 20, 5, "explore", 0.8),
        ([DISCARD] * 10, 21, 2, "combine", 0.5),
        ([DISCARD] * 10, 21, 1, "ablation", 0.3),
        ([KEEP] * 3 + [DISCARD] * 7, 30, 0, "explore", 0.8),
        ([KEEP] * 4 + [DISCARD] * 6, 30, 0, "exploit", 0.5),
    ],
)
def test_the_strategy_follows_the_table(
    recent: list[Status], finished: int, near: int, mode: Mode | None, temperature: float | None
) -> None:
    """Each row is a rule of the contract or the edge of one."""
    adapted = adapt(snapshot_of(recent, finished, near))
    if mode is None:
        assert adapted is None
        return
    assert adapted is not None
    assert (adapted.mode, adapted.temperature) == (mode, temperature)
    assert adapted.explore_ratio == (0.8 if mode == "explore" else 0.3)
    assert adapted.reason


@given(st.lists(st.sampled_from([KEEP, DISCARD, CRASH, TIMEOUT]), max_size=10), st.integers(0, 99))
def test_a_pinned_strategy_never_adapts(recent: list[Status], finished: int) -> None:
    pinned = replace(snapshot_of(recent, finished), strategy=replace(INITIAL, pinned=True))
    assert adapt(pinned) is None


def test_a_decision_carries_the_strategy_that_fits_after_it() -> None:
    """The fifth result is the first that adapts, and it counts itself."""
    four = Snapshot(TAG, Counts(crash=4), INITIAL, 0, (CRASH,) * 4)
    decision = decide(four, RunResult("crash"))
    assert decision.strategy is not None
    assert decision.strategy.mode == "exploit"
    three = Snapshot(TAG, Counts(crash=3), INITIAL, 0, (CRASH,) * 3)
    assert decide(three, RunResult("crash")).strategy is None


def test_yield_and_exploration_are_counted_by_category() -> None:
    counts = {
        "attention": CategoryCount(total=3, kept=1),
        "optimizer": CategoryCount(total=10, kept=3, near=1),
        "embedding": CategoryCount(total=2, kept=2),
    }
    advice = advise(SNAPSHOT, counts, [])
    assert advice.high_yield == ["attention"]
    assert "embedding" in advice.underexplored
    assert "optimizer" not in advice.underexplored
    assert len(advice.underexplored) == 9
    assert advice.near_miss_categories == ["optimizer"]


def run(**fields: object) -> Run:
    values: dict[str, object] = {
        "experiment_id": "e", "state": State.DECIDED, "status": KEEP, "seed": 42, "priority": 0,
        "time_budget_seconds": 300.0,
    }  # fmt: skip
    return Run(**(values | fields))  # type: ignore[arg-type]


EXPERIMENT = Experiment("h", "a\tb\r\nc", "other", "0123456789", "s", id="e", tag="t", created_us=0)


STOPPED = RunResult("cancelled", error="cancelled while it ran")
FORECAST = Forecast(25, 3.0, 1.1, 0.01, 0.001, 1.0, 40, spared=False)
EARLY = {"stop": "early", "forecast": FORECAST}


def early(saved: float) -> RunResult:
    return RunResult("stopped", forecast=FORECAST, saved_seconds=saved)


LOST = RunResult("crash", error="Lost 3 times to the infrastructure", reason=INFRA_LOST)


@pytest.mark.parametrize(
    ("ending", "fields", "due"),
    [
        ("lost", {"losses": 0}, Requeue("lost", counts_as_loss=True)),
        ("lost", {"losses": 1}, Requeue("lost", counts_as_loss=True)),
        ("lost", {"losses": 2}, LOST),
        ("lost", {"losses": 2, "stop": "cancel"}, CANCELLED),
        ("lost", {"losses": 2, "stop": "requeue"}, Requeue("lost", counts_as_loss=True)),
        ("handed_back", {"losses": 2}, Requeue("handed_back")),
        ("handed_back", {"stop": "cancel"}, CANCELLED),
        ("lost", {"losses": 0} | EARLY, early(225.0)),
        ("handed_back", EARLY, early(225.0)),
        ("stopped", EARLY, early(210.0)),
        # A person put it back after it was condemned.
        ("stopped", EARLY | {"stop": "requeue"}, Requeue("requeued")),
        ("stopped", {}, STOPPED),
        ("stopped", {"stop": "cancel"}, STOPPED),
        ("stopped", {"losses": 2, "stop": "requeue"}, Requeue("requeued")),
    ],
)
def test_a_run_without_a_result_is_tried_again_unless_it_was_lost_too_often_or_is_not_wanted(
    ending: str, fields: dict[str, object], due: Requeue | RunResult
) -> None:
    rules = {
        "lost": lambda run: after_lost_attempt(run, "lost", ""),
        "handed_back": after_handed_back_attempt,
        "stopped": lambda run: after_stopped_attempt(run, STOPPED, 30.0),
    }
    assert rules[ending](run(**fields)) == due


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t=", "\r\n ="])
def test_no_cell_of_the_table_is_a_formula(begin: str) -> None:
    """A spreadsheet would run it, or send what is beside it to its author."""
    text = f"{begin}cmd|'/c calc'!A1"
    cells = tsv_line(text, "keep", 1.0, None, text).split("\t")
    assert len(cells) == 5
    assert cells[4].startswith("'")
    assert cells[0].startswith("'")


def test_a_table_row_holds_five_fields_whatever_the_text() -> None:
    row = tsv_row(EXPERIMENT, run(metrics=Metrics(0.9979, peak_vram_mb=45060.2)))
    assert row == "0123456\t0.997900\t44.0\tkeep\ta b  c"
    crashed = tsv_row(EXPERIMENT, run(status=TIMEOUT, metrics=None))
    assert crashed.split("\t")[1:4] == ["0.000000", "0.0", "crash"]


@given(st.lists(st.integers(0, 4_000_000_000_000_000), min_size=2, max_size=20))
def test_times_sort_as_text(moments: list[int]) -> None:
    """Always six decimals, so the order of the texts is the order of the moments."""
    texts = [rfc3339(moment) for moment in moments]
    assert sorted(texts) == [rfc3339(moment) for moment in sorted(moments)]
