"""The columns of a tag's history: pages in any order, filtered, nothing twice, nothing left out."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from orchestrator.rules.seals import JournalEntry
from orchestrator.rules.series import KEEP, NEAR, WORDS, Filter, Series, Tally

Decided = tuple[str, float | None, str]
STATUSES = ("keep", "discard", "crash", "timeout", "cancelled")


def entry(number: int, kind: str = "decided", **data: Any) -> JournalEntry:
    at = 1_700_000_000_000_000 + number * 1_000_000
    return JournalEntry(f"{number}-0", kind, f"exp-{at - 300:014x}-t", at, data)


def decided(number: int, status: str, val_bpb: float | None, category: str) -> JournalEntry:
    outcome: dict[str, Any] = {"status": "completed" if val_bpb else "crash"}
    if val_bpb is not None:
        outcome["val_bpb"] = val_bpb
    return entry(number, category=category, outcome=outcome, decision={"status": status})


runs = st.lists(
    st.tuples(st.sampled_from(STATUSES), st.floats(0.9, 1.1), st.sampled_from("abc")), max_size=60
)


def series_of(history: list[Decided]) -> Series:
    series = Series()
    for number, (status, val_bpb, category) in enumerate(history):
        result = val_bpb if status in ("keep", "discard") else None
        series.append(decided(number, status, result, category))
    return series


@given(
    runs,
    st.sampled_from(("newest", "oldest", "best", "worst")),
    st.sampled_from((None, "keep", "discard", "crash")),
    st.sampled_from((None, "a", "z")),
    st.integers(1, 7),
)
def test_pages_of_any_order_hold_every_matching_row_once(
    history: list[Decided], sort: str, word: str | None, category: str | None, size: int
) -> None:
    """Reading on from the last row of each page is the same as reading all at once."""
    series = series_of(history)
    wanted = Filter(letters=WORDS[word] if word else None, category=category)
    whole = list(series.rows(sort, None, wanted))
    paged: list[int] = []
    after = None
    while True:
        page = [row for row, _ in zip(series.rows(sort, after, wanted), range(size), strict=False)]
        if not page:
            break
        paged += page
        after = page[-1]
    assert paged == whole
    counted = [run for run in history if run[0] != "cancelled"]
    expected = [
        row
        for row, (status, _, name) in enumerate(counted)
        if (word is None or status == word)
        and (category is None or name == category)
        and (sort in ("newest", "oldest") or status in ("keep", "discard"))
    ]
    assert sorted(whole) == expected
    if sort in ("best", "worst"):
        values = [series.val_bpb[row] for row in whole]
        assert values == sorted(values, reverse=sort == "worst")


def test_rows_that_come_later_are_ranked_among_the_others() -> None:
    series = series_of([("discard", value / 1000, "a") for value in range(900, 1100)])
    assert next(series.rows("best", None, Filter())) == 0
    series.append(decided(200, "keep", 0.5, "a"))
    series.append(decided(201, "discard", 0.9995, "a"))
    ranks = list(series.rows("best", None, Filter()))
    assert ranks[0] == 200
    assert ranks[ranks.index(201) - 1] == 99


def test_near_misses_lost_runs_and_last_values_of_crashes_are_told_apart() -> None:
    series = Series()
    near = {"status": "discard", "near": 0.0001}
    series.append(entry(1, category="a", outcome={"val_bpb": 0.97}, decision=near))
    lost = {"status": "crash", "reason": "infra_lost", "val_bpb": 0.5}
    series.append(entry(2, category="a", outcome=lost, decision={"status": "crash"}))
    assert series.block(0, 2)["status"] == "nl"
    assert series.block(0, 2)["val_bpb"] == [970000, None]
    assert series.status[0] in WORDS["discard"] & WORDS["near"]
    assert series.status[0] == NEAR != KEEP


def test_a_tally_counts_verdicts_from_a_moment_on() -> None:
    """A moment belongs to what comes after it. A time-out is a crash, a near miss a discard; a run
    lost to the infrastructure is finished and nothing else."""
    statuses = ["keep", "keep", "discard", "crash", "timeout"]
    series = series_of([(status, 1.0, "a") for status in statuses])
    lost = {"status": "crash", "reason": "infra_lost"}
    series.append(entry(5, category="a", outcome=lost, decision={"status": "crash"}))
    near = {"status": "discard", "near": 0.0001}
    series.append(entry(6, category="a", outcome={"val_bpb": 0.97}, decision=near))
    second = series.finished_us[1]
    assert series.tally(series.first_since(second)) == Tally(6, keep=1, discard=2, crash=2)
    assert series.tally(series.first_since(second + 1)) == Tally(5, keep=0, discard=2, crash=2)
    assert series.tally(series.first_since(2**60)) == Tally()


def test_a_choice_of_strategy_is_told_when_the_mode_changes_and_not_with_each_reason() -> None:
    """The reason counts the last ten runs, so it changes all the time."""
    series = Series()

    def strategy(mode: str, reason: str, pinned: str = "0") -> dict[str, str]:
        return {"mode": mode, "reason": reason, "pinned": pinned}

    series.append(entry(0, "setup", settings={}, strategy=strategy("explore", "a new tag")))
    for number, (mode, reason) in enumerate(
        [("explore", "1 of 10"), ("explore", "2 of 10"), ("exploit", "4 of 10")], 1
    ):
        decision = {"status": "discard", "strategy": strategy(mode, reason)}
        series.append(entry(number, category="a", outcome={"val_bpb": 1.0}, decision=decision))
    series.append(entry(4, "strategy", strategy=strategy("exploit", "I say so", "1")))
    assert [(c.after, c.mode, c.reason, c.pinned) for c in series.choices] == [
        (0, "explore", "a new tag", False),
        (3, "exploit", "4 of 10", False),
        (3, "exploit", "I say so", True),
    ]


@given(runs)
def test_a_block_reads_back_as_what_was_decided(history: list[Decided]) -> None:
    """Differences add up to the moments; a page makes ids of them."""
    series = series_of(history)
    block = series.block(0, len(series))
    created = finished = 0
    for row in range(len(series)):
        created += block["created_us"][row]
        finished += block["finished_ms"][row]
        assert created == series.created_us[row]
        assert finished == series.finished_us[row] // 1000
        assert series.row_of(series.finished_us[row]) == row
    assert series.row_of(1) is None


@pytest.mark.parametrize("word", ["keep", "near", "discard", "crash", "timeout"])
def test_every_word_of_a_filter_stands_for_some_rows(word: str) -> None:
    assert WORDS[word]
