"""A tag that is switched to `race` in mid-search: beliefs start from what is recorded."""

import pytest

from tests.api.test_race import BASELINE, audited, changed
from tests.conftest import Api

WHY = {"reason": "keeps shall hold", "by": "Ada"}


def run(api: Api, val_bpb: float | None) -> dict[str, object]:
    job = api.claim("gpu-0")
    assert job is not None, "nothing is queued"
    verdict: dict[str, object] = api.finish(job, val_bpb)["verdict"]
    return verdict | {"seed": job["seed"], "train_py": job["train_py"]}


def switch(api: Api, status: int = 200) -> dict[str, object]:
    answer: dict[str, object] = api.post("/api/steer/race", status, tag="mar11", **WHY)
    return answer


@pytest.fixture
def greedy(api: Api) -> Api:
    """A search with a baseline and a keep, by single runs."""
    api.tag()
    api.gpu("gpu-0", 0)
    for source, val_bpb in ((BASELINE, 0.9979), (changed(BASELINE, 3), 0.9958)):
        api.submit(source)
        assert run(api, val_bpb)["status"] == "keep"
    return api


def test_its_best_is_repeated_before_others_are_judged_by_it(greedy: Api) -> None:
    best = greedy.get("/api/experiment/best", tag="mar11")["best"]["experiment_id"]
    answer = switch(greedy)
    assert answer == {
        "tag": "mar11", "keep_rule": "race", "best_experiment_id": best, "best_val_bpb": 0.9958,
    }  # fmt: skip
    repeats = [run(greedy, val_bpb) for val_bpb in (0.9970, 0.9974, 0.9968, 0.9972)]
    assert [one["seed"] for one in repeats] == [43, 44, 45, 46]
    assert {one["train_py"] for one in repeats} == {changed(BASELINE, 3)}
    assert {one["status"] for one in repeats} == {"repeat"}
    estimate = greedy.get("/api/experiment/best", tag="mar11")["best"]["estimate"]
    assert estimate["val_bpb"] == pytest.approx(0.99684), "the lucky run is one of five"
    assert audited(greedy) == []


def test_a_run_that_is_queued_or_under_way_then_is_judged_by_the_race(greedy: Api) -> None:
    greedy.submit(changed(BASELINE, 5))
    started = greedy.claim("gpu-0")
    waiting = greedy.submit(changed(BASELINE, 7))
    switch(greedy)
    verdict = greedy.finish(started, 0.9990)["verdict"]
    assert verdict["status"] == "discard"
    assert "worse than the champion's estimate 0.9958; seeds alone move" in verdict["why"]
    while greedy.get(f"/api/experiment/{waiting}")["status"] == "queued":
        run(greedy, 0.9969)  # the repeats of the best, then this one
    verdict = greedy.get(f"/api/experiment/{waiting}")["verdict"]
    assert "the champion's estimate 0.9967" in verdict["why"], "the mean of 0.9958 and 0.9969 x 4"
    assert audited(greedy) == []


def test_the_verdicts_before_it_stay_as_they_are(greedy: Api) -> None:
    keeps = greedy.get("/api/experiment/history", tag="mar11")["experiments"]
    before = [greedy.get(f"/api/experiment/{one['id']}") for one in keeps]
    switch(greedy)
    for experiment in before:
        assert greedy.get(f"/api/experiment/{experiment['id']}") == experiment


def test_a_tag_without_a_result_may_be_switched_too(api: Api) -> None:
    api.tag()
    api.gpu("gpu-0", 0)
    assert switch(api)["best_experiment_id"] is None
    api.submit(BASELINE)
    assert [run(api, 0.998)["seed"] for _ in range(5)] == [42, 43, 44, 45, 46]
    assert audited(api) == []


def test_wins_that_wait_under_greedy_merge_wait_no_longer(api: Api) -> None:
    api.tag(keep_rule="greedy+merge")
    api.gpu("gpu-0", 0)
    api.submit(BASELINE)
    run(api, 0.9979)
    assert switch(api)["keep_rule"] == "race"
    assert audited(api) == []


def test_a_second_switch_changes_nothing_and_the_audit_log_has_one(greedy: Api) -> None:
    assert switch(greedy) == switch(greedy)
    told = greedy.get("/api/steer/ledger", tag="mar11")["entries"]
    assert [(one["action"], one["by"], one["outcome"]) for one in told] == [("race", "Ada", "race")]


def test_a_best_that_was_trained_by_hand_is_refused(api: Api) -> None:
    api.tag()
    api.complete(api.register(), 0.9979)
    problem = switch(api, 409)
    assert "was trained by hand, and a race repeats its best: set up" in str(problem["detail"])


def test_a_run_by_hand_that_is_under_way_is_refused(greedy: Api) -> None:
    greedy.register()
    assert "Runs of 'mar11' by hand are under way (1)" in str(switch(greedy, 409)["detail"])
    assert greedy.get("/api/report/tags")["tags"][0]["keep_rule"] == "greedy"


def test_an_unknown_tag_is_not_found(api: Api) -> None:
    switch(api, 404)
