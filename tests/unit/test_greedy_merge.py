"""The keep rule `greedy+merge`: whose change is in no best, and so waits for a merge."""

from dataclasses import replace

from hypothesis import given, strategies as st

from orchestrator.decisions import RunResult, Snapshot
from orchestrator.domain import Counts, Metrics, Tag
from orchestrator.rules import greedy_merge
from orchestrator.rules.decide import decide
from orchestrator.rules.race import FinishedRun, State, next_merge
from orchestrator.rules.race.decide import RaceDecision, ending
from orchestrator.rules.race.state import from_json, to_json
from orchestrator.rules.race.verdicts import WAITING
from orchestrator.rules.strategy import INITIAL


class Search:
    """A tag, and what its runs amount to."""

    def __init__(self) -> None:
        tag = Tag("mar11", 0, 300.0, 0.002, 3, keep_rule="greedy+merge")
        self.snapshot = Snapshot(tag, Counts(), INITIAL, 0, ())
        self.state = State()

    def decide(
        self, source: str, value: float | None, base: str | None = None, *merged: str
    ) -> RaceDecision:
        result = RunResult("crash") if value is None else RunResult("completed", Metrics(value))
        run = FinishedRun(source, 42, value, base, merged_from=merged, ending=ending(result))
        decision = greedy_merge.decide(self.snapshot, result, self.state, run)
        assert replace(decision, why=None) == RaceDecision(
            **vars(decide(self.snapshot, result)), run=run, state=decision.state
        ), "the verdict is greedy's"
        self.state = from_json(to_json(decision.state))
        assert self.state == decision.state
        if decision.improved:
            tag = replace(self.snapshot.tag, best_val_bpb=value, best_experiment_id=source)
            self.snapshot = replace(self.snapshot, tag=tag)
        return decision

    @property
    def waiting(self) -> dict[str, float]:
        return {name: round(gain.mean, 6) for name, gain in self.state.waiting.items()}


def searching() -> Search:
    """The baseline read 1.0, and `wide` replaced it."""
    search = Search()
    search.decide("plain", 1.0)
    search.decide("wide", 0.98, "plain")
    return search


def test_a_run_waits_that_beats_its_parent_and_not_the_best_that_replaced_this() -> None:
    search = searching()
    decision = search.decide("deep", 0.99, "plain")
    assert not decision.improved
    assert decision.why is not None
    assert decision.why.startswith("0.0100 better than plain, from which it was made")
    assert search.waiting == {"deep": 0.01}


def test_the_old_best_waits_if_a_run_from_an_older_parent_replaces_it() -> None:
    search = searching()
    decision = search.decide("deep", 0.97, "plain")
    assert (decision.improved, decision.why) == (True, None)
    assert search.waiting == {"wide": 0.02}
    search.decide("last", 0.96, "plain")
    assert search.waiting == {"wide": 0.02, "deep": 0.03}


def test_nothing_waits_that_lost_nothing() -> None:
    search = searching()
    for source, value, base in (
        ("worse", 1.01, "plain"),  # than its parent
        ("tie", 1.0, "plain"),
        ("near", 0.985, "wide"),  # on the best, which it does not beat
        ("unknown", 0.985, None),
        ("crashed", None, "plain"),
    ):
        search.decide(source, value, base)
    assert search.waiting == {}
    alone = Search()
    alone.decide("plain", 1.0)
    alone.decide("other", 0.9, "gone")
    assert alone.waiting == {}, "a baseline changed nothing"


def test_four_are_merged_at_once_and_wait_no_longer_however_the_merge_ends() -> None:
    search = searching()
    for number in range(5):
        search.decide(f"win-{number}", 0.999 - number / 1000, "plain")
    assert next_merge(search.state, merge_running=True) is None
    merge = next_merge(search.state, merge_running=False)
    assert merge is not None
    assert merge.sources == ("win-4", "win-3", "win-2", "win-1")
    search.decide("merge", None, "wide", *merge.sources)
    assert search.waiting == {"win-0": 0.001}


def test_a_merge_whose_best_was_replaced_meanwhile_waits_itself() -> None:
    search = searching()
    search.decide("deep", 0.99, "plain")
    search.decide("long", 0.96, "wide")
    search.decide("merge", 0.97, "wide", "deep")
    assert search.waiting == {"merge": 0.01}


def test_a_win_that_is_smaller_than_sixteen_others_is_not_told_that_it_waits() -> None:
    search = searching()
    for number in range(WAITING):
        search.decide(f"win-{number}", 0.99, "plain")
    assert search.decide("small", 0.999, "plain").why is None
    assert len(search.waiting) == WAITING


values = st.floats(0.5, 1.5, allow_nan=False)


@given(st.lists(st.tuples(st.none() | values, st.integers(0, 40), st.booleans()), max_size=60))
def test_verdicts_are_those_of_greedy_and_the_last_champion_is_the_best(
    runs: list[tuple[float | None, int, bool]],
) -> None:
    search = Search()
    for number, (value, base, merges) in enumerate(runs):
        merge = next_merge(search.state, merge_running=not merges)
        best = search.snapshot.tag.best_experiment_id
        parent = best if merge else f"run-{base % (number + 1)}"
        decision = search.decide(f"run-{number}", value, parent, *(merge.sources if merge else ()))
        if search.snapshot.tag.best is not None:
            assert search.state.champions[-1].id == search.snapshot.tag.best_experiment_id
        assert (f"run-{number}" in search.waiting) == (decision.why is not None)
        assert len(search.waiting) <= WAITING
        assert all(gain.mean > 0 for gain in search.state.waiting.values())
