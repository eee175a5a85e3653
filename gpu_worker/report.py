"""What a run's end means: from the supervisor's result and the log to the report. Pure.

A train.py that fails is a result (`crash`, `timeout`). A failure of the infrastructure is not
(`lost`, `handed_back`): the run is tried again, and a run whose host is unfit is handed back, which
counts as no loss. A result block does not save a run that fails
later, and a run that ends well without one has failed.

Three vocabularies meet here: `channel.EndReason` (why the process tree ended), `channel.StopReason`
(why the worker stopped it) and `ReportedResult` (what the orchestrator gets).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpu_worker import measures, metrics
from gpu_worker.channel import Result
from orchestrator import schemas
from orchestrator.schemas import Environment, FinishRequest, ReportedResult

GOING_AWAY = "the worker is going away"
_SIGKILLED = 128 + 9
# Between two measures of one model, relative: compiled and other kernels, bf16 or fp32. The default
# train.py's lie within 1e-5 on an H200; half a thousandth is less than what most keeps gain.
_TOLERANCE = 0.0005
_LOST: dict[str, str] = {
    "orphaned": "the worker was gone until the lease ran out",
    "terminated": "the run's supervisor was terminated",
}
_HOW_TO_CARRY = (
    "a run has train.py, the prepare.py that its tag pins, and installed packages: put code into "
    "train.py, add a package to pyproject.toml and `uv sync` the worker's host"
)


@dataclass(frozen=True)
class EndedRun:
    """All that is known when a run is over. `result` is None when its supervisor was lost."""

    job: schemas.Job
    result: Result | None
    tail: bytes
    measures: Sequence[float] = ()
    measured: bool = False  # a result must be one that prepare.py measured
    curve: list[schemas.CurvePoint] = field(default_factory=list)
    environment: Environment = field(default_factory=Environment)
    gpu_failure: str | None = None
    log_problem: str | None = None
    handed_back: str | None = None  # why the run says nothing about its train.py


def build_report(run: EndedRun) -> FinishRequest | None:
    """The report to send; None after a lost lease, when nobody would accept one."""
    result = run.result
    if run.handed_back is not None:
        return _finish(run, "handed_back", run.handed_back)
    if result is None:
        return _finish(run, "lost", "the run's supervisor died")
    if result.reason == "exited":
        return _exited(run, result)
    if result.reason == "deadline":
        return _timeout(run, result)
    if result.reason == "excess":
        return _finish(run, "crash", f"stopped: {result.excess}")
    if result.reason in _LOST:
        return _finish(run, "lost", result.excess or _LOST[result.reason])
    if result.stop == "lease_lost":
        return None
    if result.stop == "cancelled":
        return _finish(run, "cancelled", "cancelled while it ran")
    if result.stop == "handed_back":
        return _finish(run, "handed_back", GOING_AWAY)
    why = run.gpu_failure or "the cause is no longer known"
    return _finish(run, "lost", f"the GPU failed: {why}")


def not_started(job: schemas.Job, outcome: ReportedResult, why: str) -> FinishRequest:
    """The report of a claimed run that is given back."""
    return _finish(EndedRun(job=job, result=None, tail=b""), outcome, why)


def _exited(run: EndedRun, result: Result) -> FinishRequest:
    output = metrics.read(run.tail, run.measures, required=run.measured)
    if result.exit_code == 0 and output.metrics is not None:
        if problem := _refuted(result, output.metrics.val_bpb):
            return _finish(run, "crash", problem, output)
        return _finish(run, "completed", "", output)
    if run.gpu_failure is not None:
        return _finish(run, "lost", f"the GPU failed: {run.gpu_failure}")
    if result.problem is not None:
        return _finish(run, "lost", result.problem)
    if result.exit_code == 0:
        return _finish(run, "crash", output.problem or "", output)
    return _finish(run, "crash", _crash_text(result, run.tail), output)


def _refuted(result: Result, val_bpb: float) -> str | None:
    """Why a result does not count, by the second measurement of its model, if there was one."""
    if result.verify_exit == measures.REFUTED:
        return f"the model was measured once more: {result.verify_output}"
    again = result.verified if result.verify_exit == 0 else None
    if again is None or abs(again - val_bpb) <= _TOLERANCE * val_bpb:
        return None
    return (
        f"val_bpb is {val_bpb:.6f}, but the saved model measures {again:.6f}: the logits that "
        "load_model of train.py gives must be those that it evaluates"
    )


def _timeout(run: EndedRun, result: Result) -> FinishRequest:
    text = (
        f"stopped after {result.seconds:.0f} s: over its budget of "
        f"{run.job.time_budget_seconds:g} s and {run.job.grace_seconds:g} s of grace"
    )
    words = metrics.failure(run.tail)
    return _finish(run, "timeout", f"{text}\nThe last output:\n{words}" if words else text)


def _crash_text(result: Result, tail: bytes) -> str:
    """Why a run failed, the likeliest cause first, then the last lines of its output."""
    parts = [f"exit code {result.exit_code}"]
    if metrics.out_of_gpu_memory(tail):
        parts.insert(0, "out of GPU memory")
    elif result.exit_code == _SIGKILLED and result.oom_kills:
        parts.insert(0, "killed by the kernel: the host ran out of memory")
    elif result.exit_code == _SIGKILLED:
        parts.insert(0, "killed by SIGKILL, likely out of memory")
    elif metrics.missing_module(tail):
        parts.append(_HOW_TO_CARRY)
    text = f"{'; '.join(parts)}\n{metrics.failure(tail)}"
    return text.strip()[: metrics.ERROR_CHARACTERS + 200]


def _finish(
    run: EndedRun, outcome: ReportedResult, error: str, output: metrics.Output | None = None
) -> FinishRequest:
    output, result = output or metrics.Output(None, None), run.result
    warnings = list(output.warnings)
    if result is not None and result.dropped_bytes:
        warnings.append(f"{result.dropped_bytes} bytes of output were left out of the log")
    if result is not None and result.problem:
        warnings.append(result.problem)
    if result is not None and result.verify_exit not in (None, 0):
        warnings.append(f"the saved model could not be measured once more: {result.verify_output}")
    if run.log_problem is not None:
        warnings.append(f"the log is not complete: {run.log_problem}"[:500])
    verified = outcome == "completed" and result is not None and result.verify_exit == 0
    # What the run printed about itself overrides what the host check found.
    names = ("profile", "torch_version", "python_version")
    printed = {name: output.facts[name][:200] for name in names if output.facts.get(name)}
    if result is not None and result.level is not None:
        printed["sandbox"] = result.level
    return FinishRequest(
        experiment_id=run.job.experiment_id,
        gpu_id=run.job.gpu_id,
        epoch=run.job.epoch,
        lease_secret=run.job.lease_secret,
        outcome=outcome,
        metrics=output.metrics if outcome == "completed" else None,
        verified_bpb=result.verified if result is not None and verified else None,
        error=error,
        exit_code=result.exit_code if result is not None else None,
        warnings=warnings[:20],
        environment=run.environment.model_copy(update=printed),
        curve=run.curve or None,
    )
