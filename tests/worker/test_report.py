"""The report of each way in which a run can end."""

from typing import Any

import pytest

from gpu_worker.channel import Result
from gpu_worker.report import EndedRun, build_report
from orchestrator.schemas import Environment, FinishRequest, Job

JOB = Job(
    experiment_id="exp-1",
    tag="t",
    gpu_id="host:cpu",
    epoch=3,
    seed=1,
    time_budget_seconds=300,
    grace_seconds=60,
    lease_seconds=30,
    train_py="",
    source_sha256="",
    prepare_sha256=None,
)
BLOCK = b"---\nval_bpb: 1.5\ntorch_version: 9.9\n"


def _report(tail: bytes, gpu_failure: str | None = None, **result: Any) -> FinishRequest:
    facts: dict[str, Any] = {"reason": "exited", "exit_code": 0, "seconds": 1.0, "ended": 1.0}
    run = EndedRun(
        job=JOB,
        result=Result(**facts | result),
        tail=tail,
        environment=Environment(torch_version="1.0", host="h"),
        gpu_failure=gpu_failure,
    )
    made = build_report(run)
    assert made is not None
    return made


def test_a_good_end_with_a_block_is_a_result() -> None:
    """It carries the lease's epoch, and what the run printed about its environment."""
    made = _report(BLOCK)
    assert (made.outcome, made.epoch, made.exit_code) == ("completed", 3, 0)
    assert made.metrics is not None
    assert made.metrics.val_bpb == 1.5
    assert (made.environment.torch_version, made.environment.host) == ("9.9", "h")


@pytest.mark.parametrize(
    ("tail", "result", "outcome", "words"),
    [
        (BLOCK + b"Traceback (most recent call last):\nE: x\n", {"exit_code": 1}, "crash", "E: x"),
        (b"hello", {}, "crash", "without a result block"),
        (b"---\nval_bpb: nan\n", {}, "crash", "finite"),
        (b"", {"exit_code": 137}, "crash", "likely out of memory"),
        (b"", {"exit_code": 137, "oom_kills": 1}, "crash", "host ran out of memory"),
        (b"torch.OutOfMemoryError: CUDA out of memory.", {"exit_code": 1}, "crash", "GPU memory"),
        (
            b"Traceback (most recent call last):\nModuleNotFoundError: No module named 'helper'\n",
            {"exit_code": 1},
            "crash",
            "put code into train.py, add a package to pyproject.toml",
        ),
        (b"step", {"reason": "deadline", "exit_code": 143}, "timeout", "over its budget of 300 s"),
        (BLOCK, {"reason": "deadline", "exit_code": 0}, "timeout", "60 s of grace"),
        (b"", {"reason": "stopped", "stop": "cancelled"}, "cancelled", "cancelled"),
        (b"", {"reason": "stopped", "stop": "handed_back"}, "handed_back", "going away"),
        (b"", {"reason": "stopped", "stop": "gpu_lost"}, "lost", "GPU failed"),
        (BLOCK, {"reason": "orphaned"}, "lost", "lease ran out"),
        (BLOCK, {"reason": "terminated"}, "lost", "supervisor was terminated"),
        (BLOCK, {"reason": "terminated", "excess": "only 0.1 GiB"}, "lost", "only 0.1 GiB"),
        (b"", {"problem": "the log could not be written: x"}, "lost", "could not be written"),
        (BLOCK, {"verify_exit": 0, "verified": 1.6}, "crash", "the saved model measures 1.600000"),
        (
            BLOCK,
            {"verify_exit": 0, "verified": 1.501},
            "crash",
            "the saved model measures 1.501000",
        ),
        (
            BLOCK,
            {"verify_exit": 0, "verified": -1.0},
            "crash",
            "the saved model measures -1.000000",
        ),
        (
            BLOCK,
            {"verify_exit": 0, "verified": 1e9},
            "crash",
            "the saved model measures 1000000000",
        ),
        (BLOCK, {"verify_exit": 3, "verify_output": "looks ahead"}, "crash", "more: looks ahead"),
    ],
)
def test_each_end_has_its_outcome(
    tail: bytes, result: dict[str, Any], outcome: str, words: str
) -> None:
    """A failing train.py is a result, a failing infrastructure is not."""
    made = _report(tail, **result)
    assert made.outcome == outcome
    assert words in made.error
    assert made.metrics is None


def test_a_run_that_failed_on_a_failing_gpu_is_lost_and_not_a_crash() -> None:
    """The agent's code did not cause it, and gets another attempt elsewhere."""
    assert _report(b"", gpu_failure="Xid 79", exit_code=1).outcome == "lost"


def test_a_result_that_was_reached_before_the_gpu_failed_counts() -> None:
    """A complete result is not lost."""
    assert _report(BLOCK, gpu_failure="Xid 79").outcome == "completed"


def test_a_run_whose_supervisor_died_is_lost() -> None:
    """Without an exit code a result block is not believed."""
    made = build_report(EndedRun(job=JOB, result=None, tail=BLOCK))
    assert made is not None
    assert made.outcome == "lost"


def test_there_is_nothing_to_report_on_a_lost_lease() -> None:
    """Another worker may have the run by then."""
    result = Result(reason="stopped", exit_code=137, seconds=1, ended=1, stop="lease_lost")
    assert build_report(EndedRun(job=JOB, result=result, tail=b"")) is None


def test_a_second_measurement_that_agrees_is_part_of_the_report() -> None:
    """Other kernels and number formats move the value a little."""
    made = _report(BLOCK, verify_exit=0, verified=1.5006)
    assert (made.outcome, made.verified_bpb, made.warnings) == ("completed", 1.5006, [])


def test_a_second_measurement_that_could_not_be_made_costs_no_result() -> None:
    """A train.py need not save its model, so one that saves it badly is no worse."""
    made = _report(BLOCK, verify_exit=1, verified=9.9, verify_output="KeyError: 'head'")
    assert (made.outcome, made.verified_bpb) == ("completed", None)
    assert made.warnings == ["the saved model could not be measured once more: KeyError: 'head'"]
