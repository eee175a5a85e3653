"""The keep rule `race`: its beliefs, its verdicts after each run, and what runs next."""

import doctest
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import variance

import pytest
from hypothesis import given, settings, strategies as st

from orchestrator.decisions import RaceVerdict
from orchestrator.rules import merging
from orchestrator.rules.noise import MOST_SHARED, PRIOR_SD, SeedNoise
from orchestrator.rules.race import (
    FinishedRun,
    Next,
    State,
    conflicted,
    next_run,
    step,
)
from orchestrator.rules.race.beliefs import (
    IDEA,
    Belief,
    Reading,
    after_reading,
    effect,
    gap,
    idea,
    probability_better,
    stacked,
    successor,
)
from orchestrator.rules.race.queue import REPEATS
from orchestrator.rules.race.state import Ending, from_json, to_json
from orchestrator.rules.race.verdicts import (
    CHAMPIONS,
    CONFIRM,
    DISCARD_BELOW,
    ENDINGS,
    MOST_RUNS,
    WAITING,
)

BPB = st.floats(min_value=1e-6, max_value=1e6)
NEAR_ONE = st.floats(min_value=0.97, max_value=1.02)
GAPS = st.floats(min_value=-1e6, max_value=1e6)
VARIANCES = st.floats(min_value=1e-13, max_value=1e12)


def learned(values: Iterable[float], parents: Iterable[float] = ()) -> SeedNoise:
    noise, own = SeedNoise(), dict[int, float]()
    parent = dict(enumerate(parents))
    for seed, value in enumerate(values):
        noise = noise.after(seed, value, own, parent)
        own[seed] = value
    return noise


def readings(*values: float) -> tuple[Reading, ...]:
    return tuple(Reading(seed, value) for seed, value in enumerate(values, 42))


class Search:
    """A tag whose runs are decided one after the other."""

    def __init__(self, state: State | None = None) -> None:
        self.state = state or State()
        self.verdicts: tuple[RaceVerdict, ...] = ()

    def run(self, source: str, *values: float | None, base: str | None = None) -> RaceVerdict:
        """Runs of one source, with seeds that it has not had; the first verdict on the last."""
        self.runs(source, *values, base=base)
        return self.verdicts[0]

    def runs(self, source: str, *values: float | None, base: str | None = None) -> None:
        for value in values:
            known = self._seeds(source)
            seed = max(known, default=41) + 1
            ending: Ending = "crashed" if value is None else "completed"
            run = FinishedRun(source, seed, value, base, bool(known), ending=ending)
            self.state, self.verdicts = step(self.state, run)

    def _seeds(self, source: str) -> list[int]:
        state = self.state
        sources = [one.source for one in state.champions]
        sources += state.candidates.values()
        return [r.seed for one in sources if one.id == source for r in one.readings]

    @property
    def champion(self) -> str:
        return self.state.champions[-1].id

    def why(self, source: str) -> str:
        return next(verdict.why for verdict in self.verdicts if verdict.source == source)


def searching() -> Search:
    """With a baseline of five runs."""
    search = Search()
    search.runs("plain", 0.9979, 0.9991, 0.9968, 0.9984, 0.9977)
    return search


# ---- noise


@given(st.lists(NEAR_ONE, min_size=2, max_size=12))
def test_the_noise_between_seeds_pools_the_prior_and_the_repeats(values: list[float]) -> None:
    noise = learned(values)
    freedom = len(values) - 1
    pooled = (PRIOR_SD**2 + variance(values) * freedom) / (1 + freedom)
    assert noise.freedom == freedom
    assert noise.variance == pytest.approx(pooled * (1 + 2 / (1 + freedom)), rel=1e-6)


def test_the_noise_before_any_repeat_is_the_prior_made_wider() -> None:
    assert SeedNoise().sd == pytest.approx(PRIOR_SD * math.sqrt(3))
    assert SeedNoise().shared == pytest.approx(0.3)
    assert learned([0.99]) == SeedNoise()


@given(st.lists(BPB, max_size=10), st.lists(BPB, max_size=10))
def test_the_shared_part_of_the_noise_has_limits(own: list[float], parent: list[float]) -> None:
    noise = learned(own, parent)
    assert 0 <= noise.shared <= MOST_SHARED
    assert 0 < noise.variance < math.inf


def test_sources_that_move_together_share_their_noise() -> None:
    seeds = [0.001 * math.sin(5 * i) for i in range(30)]
    together = learned([1 + s for s in seeds], [1.002 + s for s in seeds])
    apart = learned([1 + s for s in seeds], [1.002 - s for s in seeds])
    assert together.shared > 0.85
    assert apart.shared == 0


# ---- beliefs


@given(GAPS, VARIANCES)
def test_a_probability_lies_between_0_and_1_however_far_the_readings_are(
    mean: float, spread: float
) -> None:
    seen = Belief(mean, spread)
    assert 0 <= probability_better(seen, IDEA) <= 1
    believed = effect(seen, IDEA)
    assert math.isfinite(believed.mean)
    assert 0 <= believed.variance < math.inf


@given(st.floats(min_value=-1e6, max_value=0), VARIANCES)
def test_what_reads_no_better_than_its_parent_is_discarded(mean: float, spread: float) -> None:
    """A tie is not better, however few runs there are."""
    assert probability_better(Belief(mean, spread), IDEA) < DISCARD_BELOW


def test_an_effect_of_nothing_is_not_better() -> None:
    assert probability_better(Belief(0.0, 1e-12), IDEA) < 0.01


@given(st.floats(min_value=0.0005, max_value=0.02))
def test_enough_runs_prove_any_gain(gain: float) -> None:
    assert probability_better(Belief(gain, (gain / 10) ** 2), IDEA) > CONFIRM
    assert effect(Belief(gain, 1e-14), IDEA).mean == pytest.approx(gain, rel=1e-3)


@given(st.lists(NEAR_ONE, min_size=1, max_size=8), st.lists(NEAR_ONE, min_size=9, max_size=9))
def test_one_run_more_narrows_every_belief(own: list[float], parents: list[float]) -> None:
    noise = learned([1.0, 1.002, 1.001], [0.999, 1.002, 1.0])
    parent = Belief(0.99, noise.variance / len(parents))
    before, after = (
        gap(readings(*values), parent, readings(*parents), noise) for values in (own, [*own, 1.0])
    )
    assert 0 < after.variance < before.variance
    assert after_reading(parent, 1.0, noise).variance < parent.variance


@given(
    st.lists(NEAR_ONE, min_size=1, max_size=6),
    st.lists(NEAR_ONE, min_size=1, max_size=6),
    st.floats(min_value=-0.5, max_value=0.5),
    st.randoms(use_true_random=False),
)
def test_a_gap_does_not_depend_on_the_scale_s_zero_or_on_the_order(
    own: list[float], parents: list[float], shift: float, chance: object
) -> None:
    noise = learned([1.0, 1.002, 1.001], [0.999, 1.002, 1.0])
    mine, theirs = readings(*own), readings(*parents)
    found = gap(mine, Belief(0.99, 1e-6), theirs, noise)
    moved = gap(
        [one._replace(value=one.value + shift) for one in reversed(mine)],
        Belief(0.99 + shift, 1e-6),
        [one._replace(value=one.value + shift) for one in reversed(theirs)],
        noise,
    )
    assert moved == pytest.approx(found, abs=1e-12)


def test_equal_seeds_say_more_where_sources_share_their_noise() -> None:
    """Worked by hand: rho 0.3, two seeds of four in common, sigma² 6.75e-6."""
    noise = SeedNoise()
    found = gap(
        readings(0.990, 0.992), Belief(0.9955, 0), readings(0.994, 0.998, 0.996, 0.996), noise
    )
    # 0.996 - 0.991, + 0.7 / 2 of (0.996 - 0.996), + the estimate less the mean of the four
    assert found.mean == pytest.approx(0.0045)
    assert found.variance == pytest.approx(6.75e-6 * (2 * 0.7 / 2 - 0.49 * 2 / 8))
    unpaired = gap(readings(0.990, 0.992), Belief(0.9955, 1e-6), readings(0.994), noise)
    assert unpaired == pytest.approx(Belief(0.0045, 1e-6 + 6.75e-6 / 2))


def test_a_new_champion_is_believed_to_be_worse_than_its_lucky_runs() -> None:
    noise = learned([1.0, 1.002, 1.001, 0.999])
    new = successor(Belief(1.0, 2e-7), readings(0.994), noise, IDEA)
    assert 0.994 < new.mean < 1.0
    assert new.variance < noise.variance


def test_a_merge_is_expected_to_keep_seven_tenths_of_each_gain() -> None:
    (part,) = stacked([Belief(0.002, 1e-6), Belief(0.001, 1e-6)])
    assert part.mean == pytest.approx(0.0021)
    assert part.variance == pytest.approx(0.49 * 2e-6 + 0.09 * (4e-6 + 1e-6 + 2e-6))


# ---- verdicts


def test_the_first_result_is_the_baseline_and_its_five_runs_are_one_estimate() -> None:
    search = Search()
    first = search.run("plain", 0.9979)
    assert (first.status, first.confirmed, first.runs) == ("keep", True, 1)
    search.runs("plain", 0.9991, 0.9968, 0.9984, 0.9977)
    (champion,) = search.state.champions
    assert champion.belief.mean == pytest.approx(0.99798)
    assert champion.belief.variance == pytest.approx(search.state.noise.variance / 5)
    assert search.state.repeats == 0


def test_a_bad_idea_is_discarded_after_one_run() -> None:
    search = searching()
    verdict = search.run("wide", 1.0040)
    assert (verdict.status, verdict.runs) == ("discard", 1)
    assert not search.state.candidates


def test_a_good_idea_is_repeated_until_it_is_confirmed() -> None:
    search = searching()
    verdict = search.run("warmup", 0.9958)
    assert verdict.status == "repeat"
    assert verdict.why == (
        "0.0022 better than the champion's estimate 0.9980; seeds alone move a run by 0.0012;"
        " better with probability 0.69 after 1 run; another seed follows"
    )
    assert search.run("warmup", 0.9957).status == "repeat"
    kept = search.run("warmup", 0.9949)
    assert (kept.status, kept.confirmed, kept.runs) == ("keep", True, 3)
    assert kept.probability >= CONFIRM
    assert search.champion == "warmup"


def test_a_gain_far_beyond_the_noise_is_confirmed_by_one_run() -> None:
    verdict = searching().run("batch", 0.9850)
    assert (verdict.status, verdict.confirmed, verdict.runs) == ("keep", True, 1)


def test_ten_runs_that_prove_nothing_are_a_discard() -> None:
    search = searching()
    verdict = search.run("warmup", *[0.9968, 0.9971] * 5)
    while verdict.status == "repeat":
        verdict = search.run("warmup", 0.9976)
    assert verdict.status == "discard"
    assert verdict.runs <= MOST_RUNS


def noisy(search: Search, spread: float = 0.003) -> Search:
    """Let the tag know that seeds move its runs much."""
    search.state = State(
        noise=SeedNoise(squares=100 * spread**2, freedom=100, pair_squares=1.0, pairs=100),
        champions=search.state.champions,
    )
    return search


def test_a_likely_gain_is_kept_provisionally_after_ten_runs_and_confirmed_later() -> None:
    search = noisy(searching())
    verdict = search.run("warmup", *[0.9951] * MOST_RUNS)
    assert (verdict.status, verdict.confirmed) == ("keep", False)
    assert "provisionally" in verdict.why
    search.runs("warmup", 0.9970)
    assert not search.verdicts
    while not search.verdicts and search.state.runs < 500:
        search.runs("warmup", 0.9951)
    assert search.verdicts[0].confirmed
    assert search.state.champions[-1].confirmed
    assert "better than plain's estimate" in search.why("warmup")


def test_a_win_over_an_old_parent_waits_and_is_never_the_champion_as_it_stands() -> None:
    search = searching()
    search.run("batch", 0.9850)
    verdict = search.run("warmup", 0.9920, base="plain")
    assert verdict.status == "wait"
    assert search.champion == "batch"
    assert list(search.state.waiting) == ["warmup"]
    bad = search.run("wide", 1.0010, base="plain")
    assert bad.status == "discard"


def test_candidates_of_a_replaced_champion_wait_or_are_discarded() -> None:
    search = searching()
    search.run("near", 0.9975)
    search.run("warmup", 0.9955)
    kept = search.run("batch", 0.9850)
    assert kept.source == "batch"
    assert [(v.source, v.status) for v in search.verdicts] == [
        ("batch", "keep"),
        ("warmup", "wait"),
    ]
    assert not search.state.candidates


def test_a_merge_is_judged_by_what_is_believed_of_its_parts() -> None:
    search = searching()
    search.run("batch", 0.9850)
    search.run("warmup", 0.9920, base="plain")
    search.runs("batch", 0.9851, 0.9849, 0.9850)
    prior = stacked(search.state.waiting.values())
    run = FinishedRun("merged", 42, 0.9845, base="batch", merged_from=("warmup",))
    state, (verdict,) = step(search.state, run)
    assert not state.waiting
    assert state.candidates["merged"].prior == prior
    assert verdict.probability > 0.6
    _, (alone,) = step(search.state, FinishedRun("other", 42, 0.9845, base="batch"))
    assert alone.probability < verdict.probability


def test_a_merge_that_cannot_be_had_or_conflicts_ends_the_wait_of_its_parts() -> None:
    search = searching()
    search.run("batch", 0.9850)
    search.run("warmup", 0.9920, base="plain")
    for ending in ENDINGS:
        run = FinishedRun("merged", 42, None, "batch", merged_from=("warmup",), ending=ending)
        state, verdicts = step(search.state, run)
        assert (state.waiting, verdicts) == ({}, ())
    assert not conflicted(search.state, ["warmup"]).waiting


def test_a_disturbed_repeat_does_not_count() -> None:
    search = searching()
    before = search.run("warmup", 0.9955)
    after = search.run("warmup", 1.2)
    assert (after.runs, after.status) == (1, "repeat")
    assert after.probability == before.probability
    assert search.state.noise == searching().state.noise


def test_a_disturbed_run_of_the_baseline_is_found_by_the_others() -> None:
    search = Search()
    search.runs("plain", 0.9979, 1.5, 0.9968, 0.9984, 0.9977)
    assert search.state.noise.sd < 0.002
    assert search.state.champions[-1].belief.mean == pytest.approx(0.9977)
    assert next_run(search.state, {}, 1, ideas=True) == Next("repeat", ("plain",), 47)


# A baseline on an H200, 60 s: the seeds 44 and 47 are bad ones, for its edits too.
SEEDS = (0.603124, 0.603589, 0.612080, 0.605141, 0.603136, 0.609612)


def test_a_run_that_seemed_disturbed_counts_once_the_seeds_explain_it() -> None:
    """So an edit that reads lower with each seed is compared with the bad one too."""
    search = Search()
    search.runs("plain", *SEEDS[:5])
    assert search.state.champions[-1].source.runs == 4
    search.runs("plain", SEEDS[5])
    champion = search.state.champions[-1]
    assert champion.source.runs == 6
    assert champion.belief.mean == pytest.approx(sum(SEEDS) / 6, abs=1e-4)
    assert search.state.noise.sd == pytest.approx(0.0041, abs=1e-4)
    verdict = search.run("floor", 0.602804, 0.602631, 0.610717)
    assert (verdict.status, verdict.runs) == ("repeat", 3)


def test_a_tag_goes_on_by_the_rules_that_it_began_with() -> None:
    """One of an older version has no number of its rules, and no run counts after all."""
    old = json.loads(to_json(State()))
    del old["rules"]
    search = Search(from_json(json.dumps(old)))
    search.runs("plain", *SEEDS)
    assert search.state.champions[-1].source.runs == 5
    assert from_json(to_json(search.state)) == search.state
    assert search.run("floor", 0.602804, 0.602631, 0.610717).status == "discard"


def test_a_second_run_with_one_seed_is_no_evidence() -> None:
    search = searching()
    search.run("warmup", 0.9955)
    again = FinishedRun("warmup", 42, 0.9, repeat=True)
    _, (verdict,) = step(search.state, again)
    assert (verdict.runs, verdict.status) == (1, "repeat")


def test_a_repeat_that_comes_after_its_source_was_settled_changes_nothing() -> None:
    search = searching()
    search.run("wide", 1.0040)
    state, verdicts = step(search.state, FinishedRun("wide", 43, 0.9, base="plain", repeat=True))
    assert not verdicts
    assert state.champions == search.state.champions


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("crashed", "its run with seed 43 crashed"),
        ("cancelled", "its run with seed 43 was cancelled"),
        ("lost", "its run with seed 43 was lost by its workers"),
    ],
)
def test_a_candidate_whose_repeat_cannot_be_had_is_discarded(ending: Ending, words: str) -> None:
    search = searching()
    before = search.run("warmup", 0.9955)
    run = FinishedRun("warmup", 43, None, repeat=True, ending=ending)
    state, (verdict,) = step(search.state, run)
    assert verdict.status == "discard"
    assert verdict.why.endswith(f"after 1 run; {words}")
    assert verdict.probability == before.probability
    assert not state.candidates
    assert state.noise == search.state.noise


def test_a_champion_whose_repeats_crash_is_dethroned_with_the_reason() -> None:
    search = searching()
    search.run("batch", 0.9850)
    search.run("warmup", 0.9835, base="batch")
    crash = FinishedRun("batch", 43, None, repeat=True, ending="crashed")
    state, _ = step(search.state, crash)
    state, (verdict, other) = step(state, replace(crash, seed=44))
    assert verdict.status == "discard"
    assert verdict.why.endswith("2 of its repeats crashed, so plain is the champion again")
    assert state.champions[-1].id == "plain"
    assert (other.source, other.status) == ("warmup", "wait")


@pytest.mark.parametrize("ending", ["cancelled", "lost"])
def test_a_champion_whose_repeats_are_cancelled_or_lost_stays_and_gets_other_seeds(
    ending: Ending,
) -> None:
    search = searching()
    search.run("batch", 0.9850)
    state, before = search.state, search.state.champions[-1]
    for seed in (43, 44, 45):
        assert next_run(state, {}, 1, ideas=False) == Next("repeat", ("batch",), seed)
        state, verdicts = step(state, FinishedRun("batch", seed, None, repeat=True, ending=ending))
        assert not verdicts
    assert state.champions[-1].id == "batch"
    assert state.champions[-1].belief == before.belief


def test_a_baseline_whose_repeats_crash_stays_since_nothing_is_better() -> None:
    search = searching()
    for seed in (50, 51, 52):
        crash = FinishedRun("plain", seed, None, repeat=True, ending="crashed")
        search.state, verdicts = step(search.state, crash)
        assert not verdicts
    assert search.champion == "plain"


def test_a_baseline_whose_repeats_all_crash_does_not_hold_up_the_search() -> None:
    search = Search()
    search.run("plain", 0.9979)
    for seed in range(43, 52):
        assert next_run(search.state, {}, 1, ideas=True) == Next("repeat", ("plain",), seed)
        search.runs("plain", None)
    assert next_run(search.state, {}, 1, ideas=True) == Next("idea")


def test_a_baseline_of_one_value_is_settled_by_ten_runs_whichever_is_the_last() -> None:
    search = Search()
    search.run("plain", 0.9979)
    search.runs("plain", *[None] * 8)
    state, verdicts = step(search.state, FinishedRun("plain", 42, 0.9979, repeat=True))
    assert not verdicts
    assert state.champions[-1].belief.mean == 0.9979
    assert next_run(state, {}, 1, ideas=True) == Next("idea")


def test_a_repeat_whose_source_has_no_result_yet_is_no_evidence() -> None:
    state, verdicts = step(State(), FinishedRun("plain", 43, 0.9, repeat=True))
    assert (state, verdicts) == (State(runs=1, repeats=1), ())


def test_an_idle_gpu_repeats_a_provisional_champion_further() -> None:
    search = noisy(searching())
    search.run("warmup", *[0.9951] * MOST_RUNS)
    state = replace(search.state, runs=100)
    assert next_run(state, {}, 1, ideas=False) == Next("repeat", ("warmup",), 52)
    assert next_run(state, {}, 1, ideas=True) == Next("idea")


def test_where_seeds_move_a_run_much_nothing_is_taken_for_disturbed_and_ideas_may_do_much() -> None:
    """Runs of 25 s, as docs/training.md measured them."""
    search = Search()
    search.runs("plain", 0.6191, 0.6432, 0.6610, 0.6269, 0.6428)
    assert search.state.champions[-1].source.runs == 5
    assert 0.015 < search.state.noise.sd < 0.022
    assert idea(search.state.noise)[0].mean > 3 * IDEA[0].mean
    search.runs("rate", 0.5790, 0.5843, 0.5811, 0.5897)
    assert search.champion == "rate"


def test_a_run_of_the_champion_decides_about_those_that_race_with_it() -> None:
    search = searching()
    search.run("warmup", 0.9958)
    search.verdicts = ()
    while not search.verdicts and search.state.runs < 50:
        search.runs("plain", 0.9951)
    (verdict,) = search.verdicts
    assert (verdict.source, verdict.status, verdict.runs) == ("warmup", "discard", 1)
    search = searching()
    search.run("warmup", 0.9957, 0.9957)
    search.runs("plain", 0.9984, 0.9985, 0.9983)
    assert search.champion == "warmup"


def test_a_state_does_not_grow_with_its_tag() -> None:
    search = searching()
    for number in range(CHAMPIONS + 5):
        search.runs(f"near-{number}", search.state.champions[-1].belief.mean - 0.0004)
        search.run(f"keep-{number}", 0.98 - 0.02 * number)
    assert len(search.state.champions) == CHAMPIONS
    old = search.state.champions[0].id
    for number in range(WAITING + 5):
        search.run(f"late-{number}", -1 + 0.01 * number, base=old)
    assert len(search.state.waiting) == WAITING
    assert "late-0" in search.state.waiting


# ---- what runs next


def test_the_baseline_has_five_runs_before_any_idea() -> None:
    assert next_run(State(), {}, 4, ideas=True) == Next("idea")
    assert next_run(State(), {"plain": [42]}, 4, ideas=True) == Next("repeat", ("plain",), 43)
    running = {"plain": [42, 43, 44, 45, 46]}
    assert next_run(State(), running, 8, ideas=True) == Next("idea")


def test_a_candidate_is_repeated_and_the_champion_keeps_up_with_it() -> None:
    search = searching()
    search.run("warmup", 0.9955)
    ideas = {f"idea-{i}": [42] for i in range(4)}
    assert next_run(search.state, ideas, 8, ideas=True) == Next("repeat", ("warmup",), 43)
    both = {"warmup": [43, 44, 45], **ideas}
    assert next_run(search.state, both, 8, ideas=True) == Next("idea")
    assert next_run(search.state, {"warmup": [43]}, 1, ideas=True) == Next("idea")
    search.runs("warmup", 0.9968, 0.9972, 0.9969)
    more = {"warmup": [46, 47]}
    assert next_run(search.state, more, 8, ideas=False) == Next("repeat", ("plain",), 47)


def test_repeats_are_at_most_two_fifths_of_all_runs_while_there_are_ideas() -> None:
    search = searching()
    search.run("warmup", 0.9955)
    many = State(**{**vars(search.state), "runs": 100, "repeats": 40})
    assert next_run(many, {}, 1, ideas=True) == Next("idea")
    assert next_run(many, {}, 1, ideas=False) == Next("repeat", ("warmup",), 43)


def test_wins_that_wait_are_merged_one_merge_at_a_time_the_largest_first() -> None:
    search = searching()
    search.run("batch", 0.9850)
    for number in range(5):
        search.run(f"win-{number}", 0.9930 - 0.001 * number, base="plain")
    do = next_run(search.state, {}, 4, ideas=True)
    assert do == Next("merge", ("win-4", "win-3", "win-2", "win-1"))
    assert next_run(search.state, {}, 4, ideas=True, merge_running=True) == Next("idea")


def test_an_idle_gpu_repeats_the_champion_up_to_ten_runs_and_no_near_miss() -> None:
    search = searching()
    assert search.run("near", 0.9975).status == "discard"
    search.state = replace(search.state, runs=100)
    for seed in range(47, 52):
        assert next_run(search.state, {}, 1, ideas=False) == Next("repeat", ("plain",), seed)
        search.runs("plain", 0.9980)
    assert next_run(search.state, {}, 1, ideas=False) is None


def test_the_champion_is_not_repeated_before_a_gpu_is_idle_or_beyond_the_share_of_repeats() -> None:
    state = replace(searching().state, runs=10, repeats=3)
    assert next_run(state, {}, 1, ideas=False) == Next("repeat", ("plain",), 47)
    assert next_run(state, {}, 1, ideas=False, idle=False) is None
    assert next_run(replace(state, repeats=4), {}, 1, ideas=False) is None


# ---- merges under greedy


def test_of_a_late_win_and_the_best_the_one_that_is_not_kept_waits_for_a_merge() -> None:
    best = merging.Reading("best", 0.990, 0.992)
    late = merging.Reading("late", 0.989, 0.993)
    assert merging.waits(late, best, improved=True) == best
    behind = late._replace(val_bpb=0.991)
    assert merging.waits(behind, best, improved=False) == behind
    assert merging.waits(late._replace(val_bpb=0.993), best, improved=False) is None
    waiting = {"a": 0.1, "b": 0.3, "c": 0.2, "d": 0.05, "e": 0.01}
    assert merging.chosen(waiting) == ("b", "c", "a", "d")


# ---- docs


def test_the_example_of_the_document_is_what_the_rules_say() -> None:
    document = Path(__file__).resolve().parents[2] / "docs/keep-rules.md"
    result = doctest.testfile(str(document), module_relative=False, encoding="utf-8")
    assert result.attempted > 10
    assert result.failed == 0


# ---- any history

History = list[tuple[int, float | Ending, bool]]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Runs by what they are drawn from: which source, what they read or how they failed, is the
    parent an old one."""
    failed = st.sampled_from(sorted(ENDINGS))
    value = st.one_of(NEAR_ONE, st.floats(min_value=0.9, max_value=1.1), failed, BPB)
    return draw(
        st.lists(st.tuples(st.integers(0, 30), value, st.booleans()), min_size=1, max_size=60)
    )


def played(history: History) -> list[FinishedRun]:
    """The journal of such a search: repeats of what is open, merges of what waits, new ideas."""
    state, journal = State(), list[FinishedRun]()
    for number, (pick, drawn, old) in enumerate(history):
        value = None if isinstance(drawn, str) else drawn
        ending: Ending = drawn if isinstance(drawn, str) else "completed"
        do = next_run(state, {}, 1 + pick % 16, ideas=pick % 3 != 0) or Next("idea")
        base = state.champions[0 if old else -1].id if state.champions else None
        if do.kind == "repeat":
            run = FinishedRun(do.sources[0], do.seed, value, repeat=True, ending=ending)
        elif do.kind == "merge":
            name, parts = f"m{number}", do.sources
            run = FinishedRun(name, 42, value, base, merged_from=parts, ending=ending)
        else:
            run = FinishedRun(f"i{number}", 42, value, base, ending=ending)
        journal.append(run)
        state, _ = step(state, run)
    return journal


@settings(max_examples=60, deadline=None)
@given(histories())
def test_any_history_leaves_a_state_that_makes_sense(
    history: History,
) -> None:
    state = State()
    for run in played(history):
        state, verdicts = step(state, run)
        assert all(0 <= verdict.probability <= 1 for verdict in verdicts)
        assert all(math.isfinite(verdict.delta) for verdict in verdicts)
        assert all(verdict.probability >= CONFIRM for verdict in verdicts if verdict.confirmed)
        assert len({verdict.source for verdict in verdicts}) == len(verdicts)
        if state.champions:
            champion = state.champions[-1]
            assert math.isfinite(champion.belief.mean)
            assert champion.belief.variance > 0
            assert all(one.base == champion.id for one in state.candidates.values())
        assert not state.candidates.keys() & state.waiting.keys()
        assert all(len(one.readings) < MOST_RUNS for one in state.candidates.values())
        assert len(state.champions) <= CHAMPIONS
        assert len(state.waiting) <= WAITING


@settings(max_examples=30, deadline=None)
@given(histories(), st.integers(0, 60))
def test_a_journal_replayed_from_any_stored_state_gives_the_same_state(
    history: History, cut: int
) -> None:
    """Stored as JSON and read again in the middle, and taken from the start."""
    journal = played(history)
    whole = stored = State()
    for number, run in enumerate(journal):
        if number == cut:
            stored = from_json(to_json(stored))
        whole, verdicts = step(whole, run)
        stored, same = step(stored, run)
        assert verdicts == same
    assert whole == stored


@settings(max_examples=40, deadline=None)
@given(histories(), st.integers(1, 16), st.booleans())
def test_a_repeat_never_has_a_seed_that_its_source_has_had(
    history: History, gpus: int, ideas: bool
) -> None:
    state = State()
    for run in played(history):
        state, _ = step(state, run)
    running: dict[str, list[int]] = {}
    for _ in range(20):
        do = next_run(state, running, gpus, ideas=ideas, merge_running=True)
        if do is None or do.kind != "repeat":
            break
        (name,) = do.sources
        sources = [one.source for one in state.champions]
        sources += state.candidates.values()
        used = {r.seed for one in sources if one.id == name for r in one.readings}
        assert do.seed not in used | set(running.get(name, ()))
        running.setdefault(name, []).append(do.seed)
    if ideas and state.champions and not state.champions[-1].source.unsettled:
        repeats = state.repeats + sum(map(len, running.values()))
        runs = state.runs + sum(map(len, running.values()))
        assert not running or repeats <= REPEATS * runs + 1e-9
