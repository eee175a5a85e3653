"""What a run's end means: from the supervisor's result and the log to the report. Pure.

A train.py that fails is a result (`crash`, `timeout`); an infrastructure that fails is not (`lost`,
`handed_back`), and the run is tried again. An early result block does not save a run that fails
later, and a run that ends well without one has failed.
"""

from dataclasses import dataclass, field

from gpu_worker import metrics
from gpu_worker.channel import Result
from orchestrator import schemas
from orchestrator.schemas import Environment, FinishRequest, ReportedResult

_SIGKILLED = 128 + 9


@dataclass(frozen=True)
class End:
    """All that is known when a run is over. `result` is None when its supervisor was lost."""

    job: schemas.Job
    result: Result | None
    tail: bytes
    measures: bytes = b""
    curve: list[schemas.CurvePoint] = field(default_factory=list)
    environment: Environment = field(default_factory=Environment)
    gpu_failure: str | None = None
    log_problem: str | None = None


def report(end: End) -> FinishRequest | None:
    """The report to send; None when the lease was lost, for then there is nothing to say."""
    result = end.result
    if result is None:
        return _lost(end, "the run's supervisor died")
    if result.reason == "exited":
        return _exited(end, result)
    if result.reason == "deadline":
        return _timeout(end, result)
    if result.reason == "stopped":
        return _stopped(end, result)
    if result.reason == "orphaned":
        return _lost(end, "the worker was gone until the lease ran out")
    return _lost(end, "the run's supervisor was told to end")


def _exited(end: End, result: Result) -> FinishRequest | None:
    output = metrics.read(end.tail, metrics.measured(end.measures))
    if result.exit_code == 0 and output.metrics is not None:
        return _finish(end, "completed", "", output)
    if end.gpu_failure is not None:
        return _lost(end, f"the GPU failed: {end.gpu_failure}")
    if result.problem is not None:
        return _lost(end, result.problem)
    if result.exit_code == 0:
        return _finish(end, "crash", output.problem or "", output)
    return _finish(end, "crash", crash_text(result, end.tail), output)


def _timeout(end: End, result: Result) -> FinishRequest:
    job = end.job
    text = (
        f"stopped after {result.seconds:.0f} s: over its budget of {job.time_budget_seconds:g} s "
        f"and {job.grace_seconds:g} s of grace"
    )
    words = metrics.failure(end.tail)
    return _finish(end, "timeout", f"{text}\nThe last output:\n{words}" if words else text)


def _stopped(end: End, result: Result) -> FinishRequest | None:
    if result.stop == "lease_lost":
        return None
    if result.stop == "cancelled":
        return _finish(end, "cancelled", "cancelled while it ran")
    if result.stop == "handed_back":
        return _finish(end, "handed_back", "the worker is going away")
    return _lost(end, f"the GPU failed: {end.gpu_failure or 'no longer known how'}")


def _lost(end: End, why: str) -> FinishRequest:
    return _finish(end, "lost", why)


def crash_text(result: Result, tail: bytes) -> str:
    """Why a run failed, the likeliest cause first, then its own last words."""
    words = metrics.failure(tail)
    parts = [f"exit code {result.exit_code}"]
    if metrics.out_of_gpu_memory(tail):
        parts.insert(0, "out of GPU memory")
    elif result.exit_code == _SIGKILLED:
        parts.insert(0, "killed by SIGKILL, likely out of memory")
        if result.oom_kills:
            parts[0] = "killed by the kernel: the host ran out of memory"
    return f"{'; '.join(parts)}\n{words}".strip()[: metrics.ERROR_CHARACTERS + 200]


def _finish(
    end: End, outcome: ReportedResult, error: str, output: metrics.Output | None = None
) -> FinishRequest:
    output = output or metrics.Output(None, None)
    result = end.result
    warnings = list(output.warnings)
    if result is not None and result.dropped_bytes:
        warnings.append(f"{result.dropped_bytes} bytes of output were left out of the log")
    if result is not None and result.problem:
        warnings.append(result.problem)
    if end.log_problem is not None:
        warnings.append(f"the log is not complete: {end.log_problem}"[:500])
    return FinishRequest(
        experiment_id=end.job.experiment_id,
        gpu_id=end.job.gpu_id,
        epoch=end.job.epoch,
        outcome=outcome,
        metrics=output.metrics if outcome == "completed" else None,
        error=error,
        exit_code=result.exit_code if result is not None else None,
        warnings=warnings[:20],
        environment=_environment(end.environment, output.facts),
        curve=end.curve or None,
    )


def _environment(known: Environment, facts: dict[str, str]) -> Environment:
    """What the run says of itself goes before what the host check said."""
    told = {
        name: facts[name][:200]
        for name in ("profile", "torch_version", "python_version")
        if facts.get(name)
    }
    return known.model_copy(update=told)
