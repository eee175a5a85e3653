"""The rule of the early stop: what a curve's losses predict, and whom that condemns."""

import math
from dataclasses import replace
from random import Random
from statistics import fmean, stdev

import pytest
from hypothesis import given, strategies as st

from orchestrator.decisions import EarlyStops, RunResult
from orchestrator.domain import Forecast, Metrics
from orchestrator.rules.early_stop import (
    CALIBRATED,
    CONDEMN_BELOW,
    REMEMBERED,
    SPARED_OF,
    after_run,
    forecast,
    losses,
    predict,
    share_of_false_kills,
    student_t,
)
from orchestrator.schemas import CurvePoint

START = 9.0


def curve(*points: tuple[float, float]) -> list[CurvePoint]:
    return [
        CurvePoint(step=number, percent=percent, loss=loss)
        for number, (percent, loss) in enumerate(points)
    ]


def even(until: int, loss: float = 3.0, start: float = START) -> list[CurvePoint]:
    return curve((0, start), *((percent, loss) for percent in range(1, until + 1)))


def known(slope: float = 0.3, noise: float = 0.001, runs: int = 40) -> EarlyStops:
    """Runs whose loss of 3.0 to 3.2 at each mark led to a value on a line, give or take `noise`."""
    curves = []
    for number in range(runs):
        loss = 3.0 + 0.2 * number / (runs - 1)
        value = slope * loss + noise * math.sin(7 * number)
        curves.append((START, loss, loss, loss, value))
    return EarlyStops(curves=tuple(curves))


def history(seed: int, runs: int, slope: float, noise: float) -> EarlyStops:
    random = Random(seed)  # noqa: S311 - a world, not a secret
    curves = []
    for _ in range(runs):
        loss = 3 + random.gauss(0, 0.3)
        value = 1 + slope * (loss - 3) + random.gauss(0, noise)
        curves.append((START, *(loss + random.gauss(0, 0.03) for _ in range(3)), value))
    return EarlyStops(curves=tuple(curves))


histories = st.builds(
    history, st.integers(0, 10**6), st.integers(30, 50), st.floats(-0.1, 0.5), st.floats(0.001, 0.3)
)


def test_the_loss_at_a_mark_is_the_mean_of_the_tenth_of_the_budget_before_it() -> None:
    found = losses(curve((0, 9.0), (15, 5.0), (16, 4.0), (20, 3.0), (25, 2.0), (30, 1.0)))
    assert found == (9.0, 3.0)


@pytest.mark.parametrize(
    ("points", "marks"), [(even(24), 0), (even(25), 1), (even(60), 2), (even(100), 3)]
)
def test_a_curve_has_a_loss_for_each_mark_that_it_has_reached(
    points: list[CurvePoint], marks: int
) -> None:
    assert losses(points) == (START, *[3.0] * marks)


@pytest.mark.parametrize(
    "points",
    [
        [],
        curve((0, 9.0), (20, 4.0), (24, 4.0), (30, 3.9)),  # two points before the mark
        curve((12, 9.0), *((percent, 3.0) for percent in range(13, 40))),  # no beginning
        curve((0, 9.0), (20, 4.0), (18, 4.0), (24, 3.9), (30, 3.8)),  # it goes back
        even(140),  # no percent of a budget
    ],
)
def test_a_curve_with_too_few_points_or_strange_percents_says_nothing(
    points: list[CurvePoint],
) -> None:
    assert losses(points) == ()


# Quantiles of Student's t, from the tables.
@pytest.mark.parametrize(
    ("freedom", "t", "p"),
    [(1, 6.314, 0.95), (2, 4.303, 0.975), (3, 4.541, 0.99), (10, 1.812, 0.95), (28, 2.467, 0.99),
     (29, 2.462, 0.99), (98, 2.365, 0.99), (5, 0.0, 0.5)],
)  # fmt: skip
def test_students_t_is_that_of_the_tables(freedom: int, t: float, p: float) -> None:
    assert student_t(t, freedom) == pytest.approx(p, abs=5e-5)
    assert student_t(-t, freedom) == pytest.approx(1 - p, abs=5e-5)


def test_a_prediction_is_the_line_through_the_finished_runs_with_its_interval() -> None:
    stops = known(noise=0.001)
    near, far = (predict(stops, (START, loss)) for loss in (3.1, 3.0))
    assert near is not None
    assert far is not None
    assert near.mean == pytest.approx(0.93, abs=0.0005)
    assert near.freedom == 38
    # The deviation of sin is 0.71; one more run adds 1/n, and more off the middle.
    assert near.sd == pytest.approx(0.00071 * math.sqrt(1 + 1 / 40), rel=0.1)
    assert far.sd > near.sd


def test_runs_that_lie_far_off_the_line_change_no_prediction() -> None:
    """One diverged after the mark, one crossed the others, and one prints bits."""
    stops = known()
    alone = predict(stops, (START, 3.1))
    odd = ((START, 3.05, 3.05, 3.05, 1.4), (START, 3.2, 3.2, 3.2, 0.9))
    bits = (START / math.log(2), 4.5, 4.5, 4.5, 0.93)
    assert predict(replace(stops, curves=(*stops.curves, *odd, bits)), (START, 3.1)) == alone


def test_nothing_is_predicted_before_enough_runs_have_finished() -> None:
    assert predict(known(runs=CALIBRATED), (START, 3.1)) is not None
    assert predict(known(runs=CALIBRATED - 1), (START, 3.1)) is None


@pytest.mark.parametrize(
    "found",
    [
        (START,),  # no mark is reached
        (),
        (START, 3.21),  # above all that is known
        (START / math.log(2), 3.1),  # it prints bits: an untrained model begins elsewhere
    ],
)
def test_nothing_is_predicted_of_a_loss_that_is_not_like_the_others(found: tuple[float]) -> None:
    assert predict(known(), found) is None


@pytest.mark.parametrize("stops", [known(slope=0.0), known(slope=-0.3), known(noise=0.0, slope=0)])
def test_nothing_is_predicted_where_the_loss_says_nothing_of_the_end(stops: EarlyStops) -> None:
    assert predict(stops, (START, 3.1)) is None


@given(histories, st.floats(2, 5), st.floats(0, 3), st.floats(-1, 4), st.integers(1, 3))
def test_a_higher_loss_never_saves_a_run_that_a_lower_one_would_have_condemned(
    stops: EarlyStops, loss: float, more: float, below: float, mark: int
) -> None:
    finals = [curve[-1] for curve in stops.curves]
    best = fmean(finals) - below * stdev(finals)
    # Of losses between those known: above them nothing is predicted.
    higher = min(loss + more, max(curve[mark] for curve in stops.curves))
    low = forecast(stops, "exp-1", (START, *[loss] * mark), best)
    high = forecast(stops, "exp-1", (START, *[max(loss, higher)] * mark), best)
    if low is not None:
        assert high is not None
        assert high.val_bpb >= low.val_bpb


@given(histories, st.integers(0, 59), st.integers(1, 3))
def test_a_run_with_the_curve_of_the_best_is_condemned_only_where_the_best_had_more_luck(
    stops: EarlyStops, index: int, mark: int
) -> None:
    """If the champion's value lies on or above the line, no run with its curve is condemned."""
    champion = stops.curves[index % len(stops.curves)]
    found = champion[: mark + 1]
    predicted = predict(stops, found)
    if predicted is not None and predicted.mean <= champion[-1]:
        assert forecast(stops, "exp-1", found, champion[-1]) is None


@given(histories, st.floats(2, 5), st.floats(0.8, 1.5))
def test_who_is_condemned_is_better_than_the_best_with_less_than_the_probability(
    stops: EarlyStops, loss: float, best: float
) -> None:
    found = forecast(stops, "exp-1", (START, loss), best)
    if found is not None:
        assert found.probability < CONDEMN_BELOW
        assert found.val_bpb > best + 2 * found.sd
        assert (found.percent, found.loss, found.champion) == (25, loss, best)


def test_the_champions_own_curve_is_never_condemned_however_its_value_came_about() -> None:
    stops = known()
    best = min(curve[-1] for curve in stops.curves)
    for curve in stops.curves:
        if curve[-1] == best:
            assert forecast(stops, "exp-1", curve[:-1], best) is None


def test_one_in_ten_ids_is_spared() -> None:
    found = [forecast(known(), f"exp-{n}", (START, 3.2), 0.9) for n in range(500)]
    spared = sum(one is not None and one.spared for one in found)
    assert all(found)
    assert 35 < spared < 65
    assert SPARED_OF == 10


condemned = Forecast(25, 3.2, 0.96, 0.001, 0.0001, 0.9, 40, spared=True)


def completed(value: float, found: tuple[float, ...] = (START, 3.2, 3.2, 3.2)) -> RunResult:
    return RunResult("completed", metrics=Metrics(value), losses=found)


def test_a_finished_run_is_learned_from_and_the_oldest_is_forgotten() -> None:
    stops = EarlyStops()
    for number in range(REMEMBERED + 5):
        stops = after_run(stops, completed(1.0 + number), None)
    assert [curve[-1] for curve in stops.curves] == [1.0 + n for n in range(5, REMEMBERED + 5)]


@pytest.mark.parametrize(
    "result",
    [completed(0.9, (START, 3.2)), completed(0.9, ()), RunResult("crash"), RunResult("cancelled")],
)
def test_nothing_is_learned_of_a_run_without_value_or_whole_curve(result: RunResult) -> None:
    assert after_run(known(), result, None) == known()


@pytest.mark.parametrize(
    ("audited", "false", "off"),
    [(1, 1, True), (24, 1, True), (25, 1, False), (74, 2, True), (75, 2, False), (500, 0, False)],
)
def test_the_share_of_false_kills_that_switches_it_off(audited: int, false: int, off: bool) -> None:
    stops = EarlyStops(audited=audited - 1, false_kills=false - 1 if false else 0)
    after = after_run(stops, completed(0.89 if false else 0.95), condemned)
    assert (after.audited, after.false_kills) == (audited, false)
    assert after.off is off
    assert (share_of_false_kills(audited, false) > 0.02) is off


def test_once_off_it_stays_off() -> None:
    stops = replace(EarlyStops(audited=200, false_kills=1), off=True)
    assert after_run(stops, completed(0.95), condemned).off
    assert forecast(replace(known(), off=True), "exp-1", (START, 3.2), 0.9) is None


def test_nothing_is_predicted_between_two_kinds_of_curves() -> None:
    """The middle of their starts is like none of them."""
    half = [(9.0, 3.0, 3.0, 3.0, 0.9), (11.0, 3.1, 3.1, 3.1, 1.0)]
    assert predict(EarlyStops(curves=tuple(half * CALIBRATED)), (10.0, 3.0)) is None
