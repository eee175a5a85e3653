"""The agent's loop: what counts, what is learnt, when it ends."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.cli.client import Client
from orchestrator.cli.errors import UnreachableError
from orchestrator.cli.run.demo_search import Search
from orchestrator.demo.agent import Agent
from orchestrator.schemas import ExperimentDetail, SubmitRequest

BASELINE = "MATRIX_LR = 0.04\nWARMDOWN_FRACTION = 0.5\n"


class Orchestrator:
    """Decides each submission as told: a val_bpb, or a status with a reason."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.requests: list[SubmitRequest] = []
        self.keys: list[str | None] = []
        self.away = 0
        self.best_source = BASELINE

    def submit(self, request: SubmitRequest, key: str | None = None) -> SimpleNamespace:
        self.keys.append(key)
        if self.away:
            self.away -= 1
            raise UnreachableError("away")
        self.requests.append(request)
        return SimpleNamespace(experiment_id=f"exp-{len(self.requests)}")

    def watch(self, experiment_id: str, **_: float) -> Iterator[ExperimentDetail]:
        yield detail(experiment_id, "running")
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, float):
            yield detail(experiment_id, "keep", val_bpb=outcome)
        else:
            yield detail(experiment_id, outcome[0], reason=outcome[1])

    def best(self, *_: str) -> SimpleNamespace:
        return SimpleNamespace(best=SimpleNamespace(experiment_id="exp-1"))

    def source(self, *_: str) -> str:
        return self.best_source

    def suggestion(self, *_: str) -> SimpleNamespace:
        return SimpleNamespace(
            strategy="explore", underexplored_categories=[], high_yield_categories=[]
        )

    def strategy(self, *_: str) -> SimpleNamespace:
        return SimpleNamespace(temperature=1.0, explore_ratio=0.7)

    def near_misses(self, *_: str) -> list[Any]:
        return []


def detail(experiment_id: str, status: Any, **fields: Any) -> ExperimentDetail:
    known = {"id": experiment_id, "status": status, "val_bpb": None, "reason": None}
    return ExperimentDetail.model_construct(**(known | fields))


def searching(orchestrator: Orchestrator, wanted: int, baseline: str = BASELINE) -> Search:
    return Search(cast("Client", orchestrator), "t", wanted, Agent(baseline, seed=1))


def test_the_baseline_comes_first_and_everything_else_differs() -> None:
    orchestrator = Orchestrator(2.0, 1.9, 1.8)
    search = searching(orchestrator, 3)
    for _ in search.run():
        pass
    assert [d.val_bpb for d in search.decided] == [2.0, 1.9, 1.8]
    first, *others = orchestrator.requests
    assert (first.train_py, first.description) == (BASELINE, "baseline")
    assert all(r.train_py != BASELINE and r.hypothesis and r.diff_summary for r in others)
    best = search.best()
    assert best is not None
    assert best.val_bpb == 1.8
    assert search.ended is None


@pytest.mark.parametrize("outcome", [("crash", None), ("timeout", None)])
def test_a_failing_baseline_ends_the_search(outcome: Any) -> None:
    search = searching(Orchestrator(outcome), 3)
    for _ in search.run():
        pass
    assert search.ended == "the baseline itself failed"
    assert len(search.decided) == 1


def test_a_crash_of_a_proposal_counts_and_a_cancelled_one_does_not() -> None:
    orchestrator = Orchestrator(2.0, ("crash", None), ("cancelled", None), 1.9)
    search = searching(orchestrator, 3)
    for _ in search.run():
        pass
    assert [d.status for d in search.decided] == ["keep", "crash", "keep"]
    assert len(orchestrator.requests) == 4


def test_a_run_lost_to_the_machine_teaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    search = searching(Orchestrator(2.0, ("crash", "infra_lost")), 2)
    learnt: list[str] = []
    monkeypatch.setattr(search.agent, "observe", lambda name, *_: learnt.append(name))
    for _ in search.run():
        pass
    assert learnt == ["exp-1"]
    assert len(search.decided) == 2


def test_it_bears_with_an_orchestrator_that_is_started_again() -> None:
    """The retry carries the same key, so that an answer lost on the way submits nothing twice."""
    orchestrator = Orchestrator(2.0)
    orchestrator.away = 2
    search = searching(orchestrator, 1)
    for _ in search.run():
        pass
    assert len(search.decided) == 1
    assert len(orchestrator.keys) == 3
    assert len(set(orchestrator.keys)) == 1


def test_a_space_that_is_used_up_ends_the_search() -> None:
    source = 'WINDOW_PATTERN = "SSSL"\n'
    orchestrator = Orchestrator(*([2.0] * 20))
    orchestrator.best_source = source
    search = searching(orchestrator, 20, source)
    for _ in search.run():
        pass
    assert search.ended is not None
    assert "no edit left" in search.ended
