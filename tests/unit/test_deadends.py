"""Dead ends: what was tried often in vain."""

from typing import Any

from orchestrator.domain import INFRA_LOST, Run, State, Status
from orchestrator.rules import deadends
from orchestrator.rules.deadends import cause, dead_ends
from orchestrator.rules.suggest import CategoryCount
from orchestrator.schemas import DeadEnd


def failure(number: int, error: str, **fields: Any) -> Run:
    values: dict[str, Any] = {
        "experiment_id": f"exp-{number}", "state": State.DECIDED, "status": Status.CRASH,
        "seed": 1, "priority": 0, "time_budget_seconds": 1, "error": error,
    }  # fmt: skip
    return Run(**(values | fields))


def ends_of(*runs: Run) -> list[DeadEnd]:
    causes = [(run.experiment_id, cause(run)) for run in runs]
    return dead_ends({}, {name: why for name, why in causes if why is not None})


def test_a_category_is_a_dead_end_when_many_tries_gave_not_even_a_near_miss() -> None:
    counts = {
        "barren": CategoryCount(total=5),
        "few": CategoryCount(total=4),
        "kept": CategoryCount(total=9, kept=1),
        "near": CategoryCount(total=9, near=1),
    }
    (end,) = dead_ends(counts, {})
    assert (end.kind, end.category, end.tried) == ("category", "barren", 5)
    assert end.text == "5 experiments in barren: none kept, no near miss"


def test_failures_are_alike_by_their_exception_s_class() -> None:
    """Not by message, and what the infrastructure lost is no dead end."""
    trace = 'Traceback (most recent call last):\n  File "train.py", line 1\nKeyError: '
    (end,) = ends_of(
        failure(1, f"exit code 1\n{trace}'a'"),
        failure(2, "exit code 1\nAnother end"),
        failure(3, f"exit code 1\n{trace}'b'"),
        failure(4, "lost", reason=INFRA_LOST),
        failure(5, "lost", reason=INFRA_LOST),
    )
    assert (end.kind, end.untrusted_cause, end.tried) == ("failure", "KeyError", 2)
    assert end.experiment_ids == ["exp-3", "exp-1"]


def test_time_outs_and_want_of_memory_are_causes_whatever_was_printed() -> None:
    ends = ends_of(
        *(failure(n, f"stopped after {n} s", status=Status.TIMEOUT) for n in range(3)),
        *(failure(n, f"out of GPU memory; exit code 1\n{n}") for n in range(3, 5)),
    )
    assert [(end.untrusted_cause, end.tried) for end in ends] == [
        ("time-out", 3),
        ("out of GPU memory", 2),
    ]


def test_the_most_tried_come_first_and_not_too_many() -> None:
    counts = {f"c{n}": CategoryCount(total=n) for n in range(40)}
    ends = dead_ends(counts, {})
    assert [end.tried for end in ends] == list(range(39, 39 - deadends.LIMIT, -1))
