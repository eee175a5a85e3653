"""The simulated nights of docs/keep-rules.md: their world, and a slice of their table."""

import dataclasses

import pytest

from bench.nights.__main__ import Cell, rows, score
from bench.nights.play import RULES, Score, play
from bench.nights.world import Night

RUNS = 300


def test_without_noise_greedy_on_one_gpu_keeps_every_gain_and_nothing_else() -> None:
    night = Night(7, 100, 0.0, 0.0)
    played = play("greedy", Night(7, 100, 0.0, 0.0), 1, 100)
    gains = [effect for effect in night.effects[:99] if effect > 0]
    assert played.gain == pytest.approx(sum(gains))
    assert (played.keeps, played.false) == (len(gains), 0)
    assert played.optimism == pytest.approx(0)


@pytest.mark.parametrize("rule", RULES)
def test_a_night_is_the_same_each_time_it_is_played(rule: str) -> None:
    first, again = (play(rule, Night(3, 60, 0.0015, 0.3), 4, 60) for _ in range(2))
    assert dataclasses.astuple(first) == dataclasses.astuple(again)


def test_the_part_of_the_noise_that_seeds_share_is_the_same_for_all_sources() -> None:
    night = Night(1, 10, 0.001, 1.0)
    idea = night.idea(night.baseline)
    gaps = {round(night.read(night.baseline, s) - night.read(idea, s), 9) for s in (42, 43, 44)}
    assert gaps == {round(-idea.value, 9)}


def cell(rule: str, sigma: float, gpus: int) -> Cell:
    return Cell(rule, sigma, gpus, rho=0.0, runs=RUNS, nights=40, seed=100)


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "false"), [(0.0005, 0.48), (0.0015, 0.52), (0.003, 0.58)])
def test_half_of_what_greedy_keeps_is_luck_as_in_the_public_night(
    sigma: float, false: float
) -> None:
    mean = score(cell("greedy", sigma, 1))
    assert mean.false / mean.keeps == pytest.approx(false, abs=0.06)
    assert 2 * sigma < mean.optimism < 3 * sigma


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sigma", "gpus", "gain"), [(0.0005, 1, 0.88), (0.0015, 4, 1.0), (0.003, 16, 1.1)]
)
def test_the_keeps_of_race_hold_and_its_estimate_is_true(
    sigma: float, gpus: int, gain: float
) -> None:
    """Bars for 40 nights; those for 400 are in docs/keep-rules.md."""
    greedy, race = (score(cell(rule, sigma, gpus)) for rule in ("greedy", "race"))
    assert race.gain > gain * greedy.gain
    assert race.false / race.keeps < 0.3 * greedy.false / greedy.keeps
    assert race.optimism < sigma
    if gpus > 1 and sigma < 0.003:
        assert race.recovered > 0.45 * race.lost


@pytest.mark.slow
def test_gpus_of_two_models_gain_nearly_as_much_as_those_of_one() -> None:
    one, two = (score(cell(rule, 0.0015, 4)) for rule in ("race", "race-of-two-models"))
    assert two.gain > 0.85 * one.gain
    assert two.false / two.keeps < one.false / one.keeps + 0.05
    assert two.optimism < 0.0015


def test_a_row_of_the_table_compares_with_greedy() -> None:
    greedy = Score(gain=0.02, optimism=0.003, keeps=10, false=5, lost=0.01, recovered=0.004)
    better = dataclasses.replace(greedy, gain=0.022, false=1, repeats=75)
    (_, row) = rows([(cell("greedy", 0.0015, 4), greedy), (cell("race", 0.0015, 4), better)])
    assert row == "| 0.0015 | 4 | race | 0.0220 | +10.0 % | 10.0 | 0.100 | +2.00 | 0.40 | 0.25 |"
