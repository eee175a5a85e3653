"""Wire models are built from values by name, so a renamed field must not go missing."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator import domain, gpus
from orchestrator.schemas import Answer
from orchestrator.services import views
from orchestrator.store.reads import Detail, Entry

NOW_US = 1_700_000_000_000_000
HOLD = domain.OperatorHold("ann", "a new fan", NOW_US)
EXPERIMENT = domain.Experiment(
    id="exp-0660f78349a45a-a", tag="a", created_us=NOW_US, hypothesis="h", description="d",
    category="optimizer", commit_sha="abc", diff_summary="s", parent_id="exp-0660f78349a459-a",
    source_sha256="f" * 64, repeat_of="exp-0660f78349a458-a",
)  # fmt: skip
RUN = domain.Run(
    experiment_id=EXPERIMENT.id, state=domain.State.RUNNING, status=domain.Status.RUNNING, seed=1,
    priority=2, time_budget_seconds=300, prepare_sha256="e" * 64, epoch=3, gpu_id="box:0",
    stop="cancel", started_us=NOW_US, finished_us=NOW_US, best_before=1.5, error="e", reason="r",
    metrics=domain.Metrics(1.0, 2.0, 3.0, 4.0, 5.0, 6, 7.0, 8), warnings=("w",),
    environment=domain.Environment("g", "u", "d", "t", "p", "profile", "v", "host", "d", "none"),
    verified_bpb=1.0, forecast=domain.Forecast(25, 3.0, 1.1, 0.01, 0.001, 1.0, 40, spared=True),
    verdict_json='{"experiment_id": "e", "status": "crash", "consecutive_crashes": 1,'
    ' "should_abort": false, "action": "git_reset", "reason": "r"}',
)  # fmt: skip
ENTRY = Entry(EXPERIMENT, RUN)
GPU = gpus.Gpu(
    id="box:0", name="n", gpu_index=0, gpu_name="g", vram_mb=1.0, registered_us=NOW_US,
    heartbeat_us=NOW_US, host="box", platform="p/d", sandbox="strict", problem="hot", drain=HOLD,
    held_by=EXPERIMENT.id, health={"temperature_c": 60.0},
)  # fmt: skip
TAG = domain.Tag(
    name="a", created_us=NOW_US, time_budget_seconds=300, near_miss_threshold=0.1,
    max_consecutive_crashes=3, prepare_sha256="e" * 64, platform="p/d", gpu_model="g",
    best_val_bpb=1.0, best_experiment_id=EXPERIMENT.id, pause=HOLD,
)  # fmt: skip
ATTEMPT = domain.Attempt(3, "box:0", NOW_US, NOW_US, "lost")


@pytest.mark.parametrize(
    "view",
    [
        views.detail(Detail(ENTRY, [ATTEMPT], 4, NOW_US), []),
        views.record(ENTRY),
        views.export_row(ENTRY),
        views.related(ENTRY),
        views.tag_info(TAG, domain.Counts()),
        views.worker(GPU, NOW_US, 60),
        views.strategy(domain.Strategy("explore", 0.5, 1.0, NOW_US, "r", pinned=True)),
    ],
    ids=lambda view: type(view).__name__,
)
def test_each_field_that_the_value_has_is_in_the_view(view: Answer) -> None:
    shown = view.model_dump(exclude={"health", "verdict"})  # a running run has no verdict
    unset = {name for name, value in shown.items() if value is None}
    assert not unset
    assert view.model_fields_set == set(type(view).model_fields)


def test_a_run_whose_verdict_waits_has_no_moment_of_decision() -> None:
    measured = replace(RUN, state=domain.State.MEASURED, status=domain.Status.CANDIDATE)
    assert views.record(ENTRY).finished_at is not None
    assert views.record(Entry(EXPERIMENT, measured)).finished_at is None


def test_a_decided_run_has_its_verdict() -> None:
    decided = replace(RUN, state=domain.State.DECIDED, status=domain.Status.CRASH)
    assert views.detail(Detail(Entry(EXPERIMENT, decided), [], None, None), []).verdict is not None


def test_an_attempt_keeps_how_it_ended() -> None:
    found: dict[str, Any] = views.detail(Detail(ENTRY, [ATTEMPT], 4, NOW_US), []).model_dump()
    assert found["attempts"][0]["outcome"] == "lost"
    assert found["lease"]["gpu_id"] == "box:0"
