"""What a run result means for a tag that keeps by `race`: a decision on it, and on others."""

from dataclasses import replace

import pytest

from orchestrator.decisions import RunResult, Snapshot
from orchestrator.domain import INFRA_LOST, Best, Counts, Metrics, Status, Tag
from orchestrator.rules.race.decide import RaceDecision, decide, ending, unmerged
from orchestrator.rules.race.state import FinishedRun, State
from orchestrator.rules.race.verdicts import step
from orchestrator.rules.strategy import INITIAL

CRASH = RunResult("crash", error="boom")
LOST = RunResult("crash", reason=INFRA_LOST)
CANCELLED = RunResult("cancelled")
TIMEOUT = RunResult("timeout")


class Search:
    """A tag whose snapshot follows its decisions as the store does."""

    def __init__(self) -> None:
        tag = Tag("mar11", 0, 300.0, 0.002, 3, keep_rule="race")
        self.snapshot = Snapshot(tag, Counts(), INITIAL, 0, ())
        self.state = State()

    def decide(
        self,
        source: str,
        result: float | RunResult,
        seed: int = 42,
        base: str | None = None,
        merged_from: tuple[str, ...] = (),
    ) -> RaceDecision:
        """A run with another seed than 42 is a repeat."""
        if not isinstance(result, RunResult):
            result = RunResult("completed", Metrics(result))
        value = result.metrics.val_bpb if result.metrics else None
        repeat = seed != 42
        run = FinishedRun(source, seed, value, base, repeat, merged_from, ending(result))
        decision = decide(self.snapshot, result, self.state, run)
        self.state = decision.state
        best = decision.best
        tag = replace(
            self.snapshot.tag,
            best_val_bpb=best and best.val_bpb,
            best_experiment_id=best and best.experiment_id,
            consecutive_crashes=decision.consecutive_crashes,
        )
        self.snapshot = replace(self.snapshot, tag=tag)
        return decision


def searching() -> Search:
    """With a baseline of five runs."""
    search = Search()
    for seed, value in enumerate((0.9979, 0.9991, 0.9968, 0.9984, 0.9977), 42):
        search.decide("plain", value, seed)
    return search


def test_the_first_result_is_kept_and_its_repeats_move_the_best_without_a_verdict() -> None:
    search = Search()
    first = search.decide("plain", 0.9979)
    assert (first.status, first.improved, first.best) == (Status.KEEP, True, Best("plain", 0.9979))
    assert first.ruling is not None
    assert first.ruling.confirmed
    again = search.decide("plain", 0.9991, 43)
    assert (again.status, again.improved, again.ruling) == (Status.REPEAT, False, None)
    assert again.best == Best("plain", pytest.approx(0.9985))
    assert not again.counts_in_rates
    assert (again.others, again.strategy) == ((), None)


def test_a_first_run_is_kept_discarded_or_a_candidate() -> None:
    search = searching()
    kept = search.decide("batch", 0.9850)
    assert (kept.status, kept.improved, kept.near_miss) == (Status.KEEP, True, None)
    assert kept.best is not None
    assert kept.best.experiment_id == "batch"
    assert kept.best.val_bpb > 0.9850  # what is believed of it, not what it read
    bad = search.decide("wide", 1.0040)
    assert (bad.status, bad.improved, bad.counts_in_rates) == (Status.DISCARD, False, True)
    assert bad.best == kept.best
    assert bad.delta == pytest.approx(bad.best.val_bpb - 1.0040)
    open_ = searching().decide("warmup", 0.9958)
    assert (open_.status, open_.improved) == (Status.CANDIDATE, False)
    assert not open_.counts_in_rates
    assert open_.strategy is None


def test_a_discard_is_a_near_miss_by_how_much_it_reads_worse_than_the_estimate() -> None:
    near = searching().decide("near", 0.9990)
    assert near.near_miss == -near.delta == pytest.approx(0.9990 - 0.9980, abs=1e-4)
    assert searching().decide("far", 1.0000).near_miss is None
    tie = searching().decide("tie", 0.9979)
    assert (tie.status, tie.near_miss) == (Status.DISCARD, 0.0)


def test_a_repeat_that_confirms_its_candidate_is_a_verdict_on_the_other_experiment() -> None:
    search = searching()
    search.decide("warmup", 0.9958)
    more = search.decide("warmup", 0.9957, 43)
    [(who, words)] = more.others
    assert (who, words.status, words.counts_in_rates) == ("warmup", Status.CANDIDATE, False)
    last = search.decide("warmup", 0.9949, 44)
    assert last.status is Status.REPEAT
    [(who, kept)] = last.others
    assert (who, kept.status, kept.improved) == ("warmup", Status.KEEP, True)
    assert kept.best == last.best
    assert last.best is not None
    assert last.best.experiment_id == "warmup"
    assert kept.ruling is not None
    assert kept.ruling.confirmed


def test_a_keep_settles_those_that_raced_with_it() -> None:
    search = searching()
    search.decide("warmup", 0.9958)
    kept = search.decide("batch", 0.9850)
    [(who, waits)] = kept.others
    assert (who, waits.status, waits.improved, waits.near_miss) == (
        "warmup", Status.DISCARD, False, None,
    )  # fmt: skip
    assert waits.ruling is not None
    assert waits.ruling.status == "wait"


def test_a_win_over_an_old_parent_is_a_discard_that_waits_and_no_near_miss() -> None:
    search = searching()
    search.decide("batch", 0.9850)
    late = search.decide("warmup", 0.9920, base="plain")
    assert (late.status, late.near_miss) == (Status.DISCARD, None)
    assert late.ruling is not None
    assert late.ruling.status == "wait"
    assert unmerged(late.ruling.why, "no").endswith("so it waits for a merge; no")


@pytest.mark.parametrize(
    ("result", "status", "streak", "counts"),
    [
        (CRASH, Status.CRASH, 1, True),
        (TIMEOUT, Status.TIMEOUT, 1, True),
        (LOST, Status.CRASH, 0, False),
        (CANCELLED, Status.CANCELLED, 0, False),
    ],
)
def test_a_first_run_that_fails_is_decided_as_under_greedy_and_no_evidence(
    result: RunResult, status: Status, streak: int, counts: bool
) -> None:
    search = searching()
    before = search.state
    failed = search.decide("wide", result)
    assert (failed.status, failed.ruling, failed.others) == (status, None, ())
    assert (failed.consecutive_crashes, failed.counts_in_rates) == (streak, counts)
    assert replace(failed.state, runs=before.runs) == before
    assert failed.state.runs - before.runs == counts  # a run that was not had is no run
    assert failed.best == search.snapshot.tag.best


@pytest.mark.parametrize(
    ("result", "status", "words"),
    [
        (CRASH, Status.CRASH, "its run with seed 43 crashed"),
        (TIMEOUT, Status.TIMEOUT, "its run with seed 43 crashed"),
        (LOST, Status.CRASH, "its run with seed 43 was lost by its workers"),
        (CANCELLED, Status.CANCELLED, "its run with seed 43 was cancelled"),
    ],
)
def test_a_repeat_that_cannot_be_had_ends_its_candidate(
    result: RunResult, status: Status, words: str
) -> None:
    search = searching()
    search.decide("warmup", 0.9958)
    failed = search.decide("warmup", result, 43)
    assert (failed.status, failed.ruling) == (status, None)
    [(who, end)] = failed.others
    assert (who, end.status, end.counts_in_rates) == ("warmup", Status.DISCARD, True)
    assert end.ruling is not None
    assert end.ruling.why.endswith(words)


def test_the_second_crash_of_a_champion_leaves_it_a_keep_and_the_one_before_is_the_best() -> None:
    search = searching()
    plain = search.snapshot.tag.best
    search.decide("batch", 0.9850)
    for result in (CANCELLED, LOST, CANCELLED, LOST, CRASH):
        seed = len(search.state.champions[-1].source.readings) + 42
        failed = search.decide("batch", result, seed)
        assert (failed.others, failed.best and failed.best.experiment_id) == ((), "batch")
    last = search.decide("batch", CRASH, 50)
    assert last.best == plain
    [(who, words)] = last.others
    assert (who, words.status, words.improved) == ("batch", Status.KEEP, False)
    assert words.ruling is not None
    assert words.ruling.why.endswith("so plain is the champion again")


@pytest.mark.parametrize("result", [CRASH, LOST, CANCELLED])
def test_a_merge_that_cannot_be_had_ends_the_wait_of_its_parts(result: RunResult) -> None:
    search = searching()
    search.decide("batch", 0.9850)
    search.decide("warmup", 0.9920, base="plain")
    assert search.state.waiting
    failed = search.decide("merge", result, base="batch", merged_from=("warmup",))
    assert not failed.state.waiting
    assert failed.others == ()


def test_a_repeat_that_completes_ends_a_streak_of_crashes() -> None:
    search = searching()
    assert search.decide("wide", CRASH).consecutive_crashes == 1
    assert search.decide("plain", 0.9980, 47).consecutive_crashes == 0


def test_the_strategy_adapts_to_what_was_settled_and_not_to_repeats_and_candidates() -> None:
    search = searching()
    counts = Counts(keep=1, discard=20)
    recent = (Status.DISCARD,) * 10
    search.snapshot = replace(search.snapshot, counts=counts, recent=recent)
    assert search.decide("warmup", 0.9958).strategy is None
    search.snapshot = replace(search.snapshot, counts=replace(counts, candidate=1))
    assert search.decide("warmup", 0.9957, 43).strategy is None
    settled = search.decide("warmup", 0.9949, 44)
    assert settled.strategy is not None
    assert settled.strategy.mode == "explore"  # one of ten is kept


def test_a_repeat_whose_source_has_no_result_yet_is_no_evidence() -> None:
    search = Search()
    orphan = search.decide("plain", 0.9979, 43)
    assert (orphan.status, orphan.best, orphan.others) == (Status.REPEAT, None, ())
    assert not orphan.state.champions
    assert search.decide("other", 0.9990).best == Best("other", 0.9990)


def test_the_state_of_a_decision_is_the_one_that_step_makes() -> None:
    search = searching()
    before = search.state
    decision = search.decide("warmup", 0.9958)
    state, (verdict,) = step(before, decision.run)
    assert (decision.state, decision.ruling) == (state, verdict)
