"""Replays finished runs through the product's rule, and through Optuna's pruners.

A run is ended where the rule ends it; the value that it really reached says if that was wrong.
Every run has a value here, so each condemned run counts in the share of false kills, and not only
those that are spared.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from orchestrator.decisions import EarlyStops, RunResult
from orchestrator.domain import Metrics
from orchestrator.rules import early_stop
from orchestrator.schemas import CurvePoint


@dataclass(frozen=True)
class Run:
    """A finished run: budget in seconds, final val_bpb, [percent, loss] of its progress lines."""

    budget: float
    val_bpb: float
    curve: Sequence[tuple[float, float]]


@dataclass
class Outcome:
    """What a rule did to a history. Seconds are of training; those `after` count from the moment
    when the rule had seen enough runs."""

    seconds: float = 0.0
    after: float = 0.0
    saved: float = 0.0
    condemned: int = 0
    false_kills: int = 0
    wins: int = 0  # runs that beat the best of their moment, after the rule had begun
    off: int = 0
    reached: list[int] = field(default_factory=list)  # the marks at which runs were ended

    def add(self, other: "Outcome") -> None:
        for name in ("seconds", "after", "saved", "condemned", "false_kills", "wins", "off"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reached += other.reached


def read(path: Path) -> list[Run]:
    """The completed runs in a log of bench.trials."""
    runs = []
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        if "val_bpb" in row:
            curve = [(min(100.0, 100 * progress), loss) for progress, loss in row["curve"]]
            runs.append(Run(row["run"]["budget"], row["val_bpb"], curve))
    return runs


def marks(run: Run) -> tuple[float, ...]:
    points = [
        CurvePoint(step=number, percent=percent, loss=loss)
        for number, (percent, loss) in enumerate(run.curve)
    ]
    return early_stop.losses(points)


def ours(runs: Sequence[Run]) -> Outcome:
    """The product's rule on one GPU, with its audits. The best is the lowest value so far."""
    out, stops, best = Outcome(), EarlyStops(), runs[0].val_bpb
    for number, run in enumerate(runs):
        found = marks(run)
        begun = len(stops.curves) >= early_stop.CALIBRATED
        condemned = None
        for mark in range(1, len(found)):
            condemned = early_stop.forecast(stops, f"exp-{number}", found[: mark + 1], best)
            if condemned is not None:
                break
        _count(out, run, best, begun=begun, percent=condemned and condemned.percent)
        if condemned is not None and not condemned.spared:
            out.saved += run.budget * (1 - condemned.percent / 100)
            continue
        result = RunResult("completed", metrics=Metrics(run.val_bpb), losses=found)
        stops = early_stop.after_run(stops, result, condemned)
        best = min(best, run.val_bpb)
    out.off = stops.off
    return out


def _count(out: Outcome, run: Run, best: float, *, begun: bool, percent: int | None) -> None:
    out.seconds += run.budget
    if begun:
        out.after += run.budget
        out.wins += run.val_bpb < best
    if percent is not None:
        out.condemned += 1
        out.false_kills += run.val_bpb < best
        out.reached.append(percent)


def at_marks(run: Run) -> list[tuple[int, float]]:
    """The losses that the product compares, with their marks."""
    return list(zip(early_stop.MARKS, marks(run)[1:], strict=False))


def every_five_percent(run: Run) -> list[tuple[int, float]]:
    """What a paired test needs: many losses, each the mean of the last five percent, up to 75 %."""
    found = []
    for mark in range(5, 80, 5):
        window = [loss for percent, loss in run.curve if mark - 5 < percent <= mark]
        if window:
            found.append((mark, fmean(window)))
    return found


def by_optuna(
    make_pruner: Callable[[], object],
    reported: Callable[[Run], list[tuple[int, float]]] = at_marks,
) -> Callable[[Sequence[Run]], Outcome]:
    """One of Optuna's pruners on the same curves, from the same run on."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def replay(runs: Sequence[Run]) -> Outcome:
        study = optuna.create_study(pruner=make_pruner())  # type: ignore[arg-type]
        out, best = Outcome(), runs[0].val_bpb
        for number, run in enumerate(runs):
            begun = number >= early_stop.CALIBRATED
            trial, percent = study.ask(), None
            for mark, loss in reported(run):
                trial.report(loss, mark)
                if begun and trial.should_prune():
                    percent = mark
                    break
            _count(out, run, best, begun=begun, percent=percent)
            if percent is not None:
                out.saved += run.budget * (1 - percent / 100)
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                continue
            study.tell(trial, run.val_bpb)
            best = min(best, run.val_bpb)
        return out

    return replay
