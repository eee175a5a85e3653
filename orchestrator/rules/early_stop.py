"""Early stop: ends runs whose training loss says that they will not be better than the best. Pure.

At 25, 50 and 75 % of a run's budget its training loss is compared with those of the tag's finished
runs at the same mark. Least squares over these gives a line from loss to final val_bpb, and the
prediction interval of one more run (Draper & Smith, Applied Regression Analysis, ch. 1.4, 3.1).
Runs that lie further off the line than FAR_OFF deviations (1.4826 times the median distance) are
left out and the line is drawn again, until there are none: a run that diverged late, or whose
warm-down crosses the others, says nothing of the rest.

    y = a + b x,  s² = Σ (yᵢ - a - b xᵢ)² / (n - 2),  sd² = s² (1 + 1/n + (x - x̄)² / Σ (xᵢ - x̄)²)

(best - y) / sd has Student's t distribution with n - 2 degrees of freedom. A run is condemned if it
is better than the best with a probability below CONDEMN_BELOW, and if the slope b is positive with
the same confidence: then a higher loss never saves a run that a lower one would have condemned.

Nothing is predicted of a loss above all known ones, or of a curve that begins elsewhere than the
others: such a train.py may print something else. What the rule cannot see, the audit measures: one
condemned run in SPARED_OF finishes, and when too many of those beat the best of the moment at which
they were condemned, the early stop switches itself off.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from statistics import fmean, median
from typing import NamedTuple, Protocol

from orchestrator.decisions import Decision, EarlyStops, RunResult, Snapshot
from orchestrator.domain import Forecast, Tag
from orchestrator.rules.race.state import State

MARKS = (25, 50, 75)  # percent of the budget
WINDOW, FEWEST_POINTS = 10.0, 3  # the loss at a mark is the mean of the last 10 percent before it
START = 10.0  # a curve begins before
SAME_START = 0.05  # relative: an untrained model's loss is the logarithm of the vocabulary's size
CALIBRATED = 30  # finished runs with curves, before which nothing is condemned
FEWEST_ON_LINE = 15
REMEMBERED = 200
FAR_OFF = 4.0
CONDEMN_BELOW = 0.01
SPARED_OF = 10
# The share of false kills is estimated as (false + PRIOR_AUDITED * CONDEMN_BELOW) /
# (audited + PRIOR_AUDITED): what the rule allows itself counts like fifty audited runs. So one
# false kill among the first 24 audited runs switches it off, two among 74, three among 124.
PRIOR_AUDITED = 50
MOST_FALSE = 0.02


class Point(Protocol):
    @property
    def percent(self) -> float: ...
    @property
    def loss(self) -> float: ...


def losses(curve: Sequence[Point]) -> tuple[float, ...]:
    """The training loss at the start, and at each mark that the curve has reached. Empty for a
    curve with too few points, or with percents that are none."""
    percents = [point.percent for point in curve]
    if not curve or percents[0] > START or percents[-1] > 100 or percents != sorted(percents):
        return ()
    found = [curve[0].loss]
    for mark in MARKS:
        if percents[-1] < mark:
            break
        window = [point.loss for point in curve if mark - WINDOW < point.percent <= mark]
        if len(window) < FEWEST_POINTS:
            return ()
        found.append(fmean(window))
    return tuple(round(loss, 6) for loss in found)  # what train.py prints; a tag keeps many


class Prediction(NamedTuple):
    """The final val_bpb that a loss at a mark speaks for: mean, deviation, degrees of freedom."""

    mean: float
    sd: float
    freedom: int

    def below(self, value: float) -> float:
        """The probability that the run reads less than `value`."""
        return student_t((value - self.mean) / self.sd, self.freedom)


def predict(stops: EarlyStops, found: Sequence[float]) -> Prediction | None:
    """What a run with these `losses` will read, by its last mark. None if nothing can be said."""
    mark = len(found) - 1
    if mark < 1 or len(stops.curves) < CALIBRATED:
        return None
    usual = median(curve[0] for curve in stops.curves)

    def alike(start: float) -> bool:
        return abs(start - usual) <= SAME_START * abs(usual)

    known = [(curve[mark], curve[-1]) for curve in stops.curves if alike(curve[0])]
    # Between two kinds of curves the usual start may be like none of them.
    if not known or not alike(found[0]) or found[mark] > max(loss for loss, _ in known):
        return None
    line = _line(known)
    return line and line.prediction(found[mark])


class Line(NamedTuple):
    """Least squares over n runs: through (x, y), with what the formula above calls s² and Σ."""

    n: int
    x: float
    y: float
    slope: float
    variance: float
    spread: float

    def off(self, run: tuple[float, float]) -> float:
        return run[1] - self.y - self.slope * (run[0] - self.x)

    def prediction(self, loss: float) -> Prediction | None:
        """None where the slope may be chance."""
        if self.variance == 0:
            return None
        slope_t = self.slope * math.sqrt(self.spread / self.variance)
        if student_t(-slope_t, self.n - 2) > CONDEMN_BELOW:
            return None
        away = loss - self.x
        sd = math.sqrt(self.variance * (1 + 1 / self.n + away**2 / self.spread))
        return Prediction(self.y + self.slope * away, sd, self.n - 2)


def _line(runs: Sequence[tuple[float, float]]) -> Line | None:
    """The line through (loss, val_bpb) of runs, without those far off; None for too few runs."""
    while len(runs) >= FEWEST_ON_LINE:
        line = _least_squares(runs)
        if line is None:
            return None
        limit = FAR_OFF * 1.4826 * median(abs(line.off(run)) for run in runs)
        near = [run for run in runs if abs(line.off(run)) <= limit]
        if len(near) == len(runs) or limit == 0:
            return line
        runs = near
    return None


def _least_squares(runs: Sequence[tuple[float, float]]) -> Line | None:
    x, y = fmean(loss for loss, _ in runs), fmean(final for _, final in runs)
    spread = sum((loss - x) ** 2 for loss, _ in runs)
    if spread == 0:
        return None
    slope = sum((loss - x) * (final - y) for loss, final in runs) / spread
    line = Line(len(runs), x, y, slope, 0.0, spread)
    squares = sum(line.off(run) ** 2 for run in runs)
    return line._replace(variance=squares / (len(runs) - 2))


def student_t(t: float, freedom: int) -> float:
    """P(T <= t) of Student's t distribution with so many degrees of freedom (Abramowitz & Stegun
    26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine = math.cos(angle) ** 2
    term, total = 1.0, 0.0
    for k in range(freedom // 2):
        total += term
        term *= cosine * (2 * k + 1 + freedom % 2) / (2 * k + 2 + freedom % 2)
    if freedom % 2:
        inside = 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * total)
    else:
        inside = math.sin(angle) * total
    return (1 + inside) / 2


def may_condemn(snapshot: Snapshot) -> bool:
    """True if the early stop may end the snapshot's run.

    A repeat goes on, because it is there to be measured, and so does a merge, which has the wins of
    several runs in it. A run is condemned once: one that a person puts back then runs to its end.
    """
    run, experiment = snapshot.run, snapshot.experiment
    if not snapshot.tag.early_stop or run is None or run.forecast is not None:
        return False
    return experiment is not None and not (experiment.repeat_of or experiment.merged_from)


def judged_against(tag: Tag, race: State, base: str | None) -> float | None:
    """The value that a run must beat: the best's; where wins over an old champion are merged onto
    the best, what is believed of the champion `base` that it was made from."""
    if tag.keep_rule != "greedy" and race.champions:
        return race.parent(base).belief.mean
    return tag.best_val_bpb


def forecast(
    stops: EarlyStops, experiment_id: str, found: Sequence[float], best: float | None
) -> Forecast | None:
    """The forecast for a run with these `losses`, if it condemns the run."""
    predicted = None if stops.off or best is None else predict(stops, found)
    if predicted is None or best is None:
        return None
    probability = predicted.below(best)
    if probability >= CONDEMN_BELOW:
        return None
    return Forecast(
        percent=MARKS[len(found) - 2],
        loss=found[-1],
        val_bpb=predicted.mean,
        sd=predicted.sd,
        probability=probability,
        champion=best,
        runs=predicted.freedom + 2,
        spared=int(sha256(experiment_id.encode()).hexdigest(), 16) % SPARED_OF == 0,
    )


def after_condemned(stops: EarlyStops) -> EarlyStops:
    return replace(stops, condemned=stops.condemned + 1)


def after_run(stops: EarlyStops, result: RunResult, condemned_by: Forecast | None) -> EarlyStops:
    """What is known after a run."""
    if result.kind == "stopped":
        saved = stops.saved_seconds + (result.saved_seconds or 0.0)
        return replace(stops, stopped=stops.stopped + 1, saved_seconds=saved)
    if result.metrics is None:
        return stops
    value = result.metrics.val_bpb
    if len(result.losses) > len(MARKS):
        curves = (*stops.curves, (*result.losses, value))[-REMEMBERED:]
        stops = replace(stops, curves=curves)
    if condemned_by is None:
        return stops
    audited = stops.audited + 1
    false = stops.false_kills + (value < condemned_by.champion)
    off = stops.off or share_of_false_kills(audited, false) > MOST_FALSE
    return replace(stops, audited=audited, false_kills=false, off=off)


def share_of_false_kills(audited: int, false: int) -> float:
    """The share of condemned runs that would have been better, as far as it is known."""
    return (false + PRIOR_AUDITED * CONDEMN_BELOW) / (audited + PRIOR_AUDITED)


def counted(decision: Decision, snapshot: Snapshot, result: RunResult) -> Decision:
    """The decision with what the tag's early stop learns from its run."""
    if not snapshot.tag.early_stop:
        return decision
    condemned_by = snapshot.run.forecast if snapshot.run else None
    stops = after_run(snapshot.stops, result, condemned_by)
    return replace(decision, stops=None if stops == snapshot.stops else stops)


def why(found: Forecast) -> str:
    """Why a run was stopped early, as one sentence."""
    return (
        f"stopped early: its training loss of {found.loss:.4f} at {found.percent} % of the budget"
        f" predicts a val_bpb of {found.val_bpb:.4f} ± {found.sd:.4f}, by {found.runs} finished"
        f" runs; better than the best, {found.champion:.4f}, with a probability below"
        f" {CONDEMN_BELOW:g}"
    )


def report(snapshot: Snapshot) -> str | None:
    """What the early stop has done for a tag, in one line; None for a tag without."""
    if not snapshot.tag.early_stop:
        return None
    stops = snapshot.stops
    runs = "run" if stops.stopped == 1 else "runs"
    done = (
        f"{stops.stopped} {runs} stopped, {stops.saved_seconds / 3600:.2f} GPU hours saved;"
        f" {stops.false_kills} of {stops.audited} audited runs were better after all"
    )
    if stops.off:
        return f"switched itself off, as too many condemned runs were better: {done}"
    if len(stops.curves) < CALIBRATED:
        return f"begins after {CALIBRATED} finished runs with curves; {len(stops.curves)} so far"
    return f"on: {done}"
