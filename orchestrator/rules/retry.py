"""What follows an attempt that ended without a result of its own. Pure.

Each function answers with a value: a `Requeue`, or the `RunResult` that ends the run. What a person
asked for, or the early stop (`run.stop`), comes first.
"""

from dataclasses import dataclass, replace

from orchestrator.decisions import RunResult
from orchestrator.domain import INFRA_LOST, AttemptEnding, Run

MAX_INFRASTRUCTURE_LOSSES = 2

CANCELLED = RunResult("cancelled")


@dataclass(frozen=True)
class Requeue:
    """The run goes back to its old place in the queue."""

    ending: AttemptEnding
    counts_as_loss: bool = False


def after_lost_attempt(run: Run, ending: AttemptEnding, why: str) -> Requeue | RunResult:
    """The infrastructure failed: try again, twice at most."""
    if ended := _asked_to_end(run):
        return ended
    if run.stop is None and run.losses >= MAX_INFRASTRUCTURE_LOSSES:
        error = f"Lost {run.losses + 1} times to the infrastructure"
        error += f"; the last time: {why}" if why else ""
        return RunResult("crash", error=error, reason=INFRA_LOST)
    return Requeue(ending, counts_as_loss=True)


def after_handed_back_attempt(run: Run) -> Requeue | RunResult:
    """A worker that goes away, or whose host is unfit, returned the run; this is no loss."""
    return _asked_to_end(run) or Requeue("handed_back")


def after_stopped_attempt(run: Run, result: RunResult, percent: float) -> Requeue | RunResult:
    """A worker stopped the run on request; `result` is its report, and `percent` how much of its
    training is done."""
    if run.stop == "early":
        return replace(_stopped_early(run, percent), environment=result.environment)
    return Requeue("requeued") if run.stop == "requeue" else result


def _asked_to_end(run: Run) -> RunResult | None:
    """The result of a run that is not to be tried again, whatever became of its attempt."""
    if run.stop == "early" and run.forecast is not None:
        return _stopped_early(run, run.forecast.percent)
    return CANCELLED if run.stop == "cancel" else None


def _stopped_early(run: Run, percent: float) -> RunResult:
    saved = run.time_budget_seconds * (1 - min(percent, 100.0) / 100)
    return RunResult("stopped", forecast=run.forecast, saved_seconds=saved)
