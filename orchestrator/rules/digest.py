"""The digest of a run, in less than 2 KB: from its record, its curve and the end of its log. Pure.

Warnings come from numbers alone. The run's own words are sanitized and stand in `untrusted`. If all
of it does not fit, curve and words become shorter, never the result.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from statistics import median, quantiles
from typing import NamedTuple

from orchestrator import schemas
from orchestrator.domain import Experiment, Run, State, Status
from orchestrator.rules import failure, sanitize
from orchestrator.rules.activity import thinned

# Another JSON encoder may write numbers longer.
LIMIT_BYTES = schemas.DIGEST_LIMIT_BYTES - 48
TAIL_BYTES = 32 * 1024  # of the end of a log

VRAM_SHARE = 0.92
UNSTABLE_RISE = 1.15
SLOW_SHARE = 0.9
UNEVEN_SHARE = 1.5
_SETTLED_PERCENT = 10.0
_MIN_STEP_TIMES = 12

_STEP_TIME = re.compile(rb"\bdt:\s*(\d{1,9}(?:\.\d{1,6})?)\s*ms")
_COMPARED = ("val_bpb", "tokens_per_second", "peak_vram_mb", "num_params_m", "num_steps")

Point = tuple[float, float]  # percent of the run, loss


@dataclass(frozen=True)
class Evidence:
    """What a digest is made of. `best` is the tag's best run, `tail` the end of the log, `vram_mb`
    the memory of the GPU if it is known."""

    experiment: Experiment
    run: Run
    parent: Run | None = None
    best: Run | None = None
    curve: Sequence[Point] = ()
    parent_curve: Sequence[Point] = ()
    tail: bytes = b""
    vram_mb: float | None = None


class _SizeBudget(NamedTuple):
    """How much of each part a digest takes; `words` is bytes of the longest text."""

    points: int
    words: int
    frames: int
    warnings: int


# Most digests fit the first. Every digest fits the last.
_BUDGETS = (
    _SizeBudget(12, 420, 3, 8),
    _SizeBudget(12, 240, 3, 8),
    _SizeBudget(8, 160, 3, 5),
    _SizeBudget(4, 100, 2, 4),
    _SizeBudget(0, 60, 1, 2),
)


def digest(evidence: Evidence) -> schemas.Digest:
    """The digest, in at most LIMIT_BYTES of JSON."""
    for budget in _BUDGETS:
        made = _made(evidence, budget)
        if len(made.model_dump_json().encode()) <= LIMIT_BYTES:
            break
    return made


def _made(evidence: Evidence, budget: _SizeBudget) -> schemas.Digest:
    experiment, run = evidence.experiment, evidence.run
    return schemas.Digest(
        experiment_id=experiment.id,
        tag=experiment.tag,
        status=run.status.value,
        reason=run.reason and sanitize.line(run.reason, 40),
        metrics=_metrics(run),
        parent=_comparison(run, evidence.parent),
        best=_against_best(run, evidence.best),
        curve=_rows(evidence.curve, evidence.parent_curve, budget.points),
        warnings=list(islice(_warnings(evidence), budget.warnings)),
        untrusted=_untrusted(evidence, budget),
    )


def _rounded(value: float, digits: int = 6) -> float:
    """To significant digits: more would only be noise."""
    return float(f"{value:.{digits}g}")


def _metrics(run: Run) -> dict[str, float]:
    if run.metrics is None:
        return {}
    known = {n: _rounded(value) for n, value in asdict(run.metrics).items() if value is not None}
    rate = _tokens_per_second(run)
    return known if rate is None else known | {"tokens_per_second": rate}


def _tokens_per_second(run: Run) -> float | None:
    metrics = run.metrics
    if metrics is None or not metrics.training_seconds or metrics.total_tokens_m is None:
        return None
    return _rounded(metrics.total_tokens_m * 1e6 / metrics.training_seconds, 4)


def _comparison(run: Run, other: Run | None) -> schemas.Comparison | None:
    if other is None:
        return None
    mine, others = _metrics(run), _metrics(other)
    changes = {
        name: _rounded(mine[name] - others[name])
        for name in _COMPARED
        if name in mine and name in others
    }
    return schemas.Comparison(experiment_id=other.experiment_id, changes=changes)


def _against_best(run: Run, best: Run | None) -> schemas.Comparison | None:
    if best is None or best.experiment_id != run.experiment_id:
        return _comparison(run, best)
    if run.metrics is None or run.best_before is None:
        return None
    gain = _rounded(run.metrics.val_bpb - run.best_before)
    return schemas.Comparison(experiment_id=run.experiment_id, changes={"val_bpb": gain})


def _rows(curve: Sequence[Point], parent: Sequence[Point], count: int) -> list[list[float | None]]:
    return [
        [round(percent, 1), _rounded(loss, 4), _loss_at(parent, percent)]
        for percent, loss in thinned(curve, count)
    ]


def _loss_at(curve: Sequence[Point], percent: float) -> float | None:
    """The loss at `percent`, interpolated; None outside of the curve."""
    for (before, low), (after, high) in pairwise(curve):
        if before <= percent <= after:
            share = (percent - before) / (after - before) if after > before else 0.0
            return _rounded(low + share * (high - low), 4)
    return None


def _warnings(evidence: Evidence) -> Iterator[schemas.DigestWarning]:
    """The most serious first."""
    for code, text in (
        ("out_of_gpu_memory", _out_of_memory(evidence.run)),
        ("vram_near_limit", _near_vram(evidence.run, evidence.vram_mb)),
        ("loss_unstable", _unstable(evidence.curve)),
        ("uneven_steps", _uneven(evidence.tail)),
        ("slower_than_parent", _slower(evidence.run, evidence.parent)),
        ("not_comparable", _not_comparable(evidence.run, evidence.best)),
        ("short_training", _short(evidence.run)),
        ("lost_attempts", _lost(evidence.run)),
    ):
        if text:
            yield schemas.DigestWarning(code=code, text=text)


def _out_of_memory(run: Run) -> str:
    if run.status is Status.CRASH and run.error and run.error.startswith("out of GPU memory"):
        return "the GPU's memory did not suffice: a smaller batch or model"
    return ""


def _near_vram(run: Run, vram_mb: float | None) -> str:
    peak = run.metrics.peak_vram_mb if run.metrics else None
    if not peak or not vram_mb or peak < VRAM_SHARE * vram_mb:
        return ""
    return f"peak {peak:.5g} of {vram_mb:.5g} MB: little is left for anything larger"


def _unstable(curve: Sequence[Point]) -> str:
    lowest = float("inf")
    worst: tuple[float, float, float] | None = None
    for percent, loss in curve:
        risen = percent >= _SETTLED_PERCENT and lowest > 0 and loss > UNSTABLE_RISE * lowest
        if risen and (worst is None or loss - lowest > worst[1] - worst[0]):
            worst = (lowest, loss, percent)
        lowest = min(lowest, loss)
    if worst is None:
        return ""
    return f"the loss rose from {worst[0]:.4g} to {worst[1]:.4g} at {worst[2]:.0f} %"


def _uneven(tail: bytes) -> str:
    """Steps of very different length: the device may be waiting. The log shows no more."""
    times = [float(match) for match in _STEP_TIME.findall(tail)]
    if len(times) < _MIN_STEP_TIMES:
        return ""
    typical, slow = median(times), quantiles(times, n=10)[-1]
    if slow <= UNEVEN_SHARE * typical:
        return ""
    return (
        f"steps take {typical:.4g} ms, a tenth of them over {slow:.4g} ms: the device may wait"
        " for data or the host"
    )


def _slower(run: Run, parent: Run | None) -> str:
    mine, other = _tokens_per_second(run), _tokens_per_second(parent) if parent else None
    if mine is None or other is None:
        return ""
    share = mine / (other or 1)
    return f"{100 * (1 - share):.0f} % fewer tokens per second" if share < SLOW_SHARE else ""


def _not_comparable(run: Run, best: Run | None) -> str:
    if best is None:
        return ""
    facts = {
        "validation_sha256": "validation text",
        "data_sha256": "training data",
        "profile": "platform profile",
    }
    for name, what in facts.items():
        mine, other = getattr(run.environment, name), getattr(best.environment, name)
        if mine and other and mine != other:
            return f"measured with another {what} than the best"
    return ""


def _short(run: Run) -> str:
    seconds = run.metrics.training_seconds if run.metrics else None
    if not seconds or seconds >= SLOW_SHARE * run.time_budget_seconds:
        return ""
    of = f"{seconds:.4g} s of {run.time_budget_seconds:.4g} s"
    return f"trained {of} and ended by itself"


def _lost(run: Run) -> str:
    return f"{run.losses} attempt(s) lost to the infrastructure" if run.losses else ""


def _untrusted(evidence: Evidence, budget: _SizeBudget) -> schemas.Untrusted | None:
    run, words = evidence.run, budget.words
    warnings = [sanitize.line(text, words // 3) for text in run.warnings[:3]]
    if run.state is not State.DECIDED or run.status not in (Status.CRASH, Status.TIMEOUT):
        return schemas.Untrusted(worker_warnings=warnings) if warnings else None
    error = run.error or ""
    said = failure.read(evidence.tail, error)
    return schemas.Untrusted(
        error=sanitize.line(error.partition("\n")[0], words // 2),
        exception=sanitize.line(said.exception, 60),
        message=sanitize.line(said.message, words),
        frames=[
            schemas.Frame(
                file=sanitize.line(frame.file[-40:], 44),
                line=frame.line,
                function=sanitize.line(frame.function, 30),
                code=sanitize.line(frame.code, words // 4),
            )
            for frame in said.frames[-budget.frames :]
        ],
        last_words=sanitize.block(said.last_words, words, end=True),
        worker_warnings=warnings,
    )
