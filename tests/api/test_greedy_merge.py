"""The keep rule `greedy+merge` over HTTP: greedy's verdicts, and lost wins that are merged."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from orchestrator.store import keys
from tests.api.test_race import BASELINE, audited, changed
from tests.conftest import Api, MakeApi, eventually


class Search:
    """A tag with a baseline of 1.0, and a run of each idea on a GPU of its own."""

    def __init__(self, api: Api, *lines: int, rule: str = "greedy+merge") -> None:
        self.api = api
        api.tag(keep_rule=rule)
        for index in range(max(1, len(lines))):
            api.gpu(f"gpu-{index}", index)
        self.baseline = api.submit(BASELINE)
        api.finish(api.claim(), 1.0)
        self.ideas = [api.submit(changed(BASELINE, line)) for line in lines]
        self.jobs = [api.claim(f"gpu-{index}") for index in range(len(lines))]

    def finish(self, number: int, val_bpb: float) -> Any:
        return self.api.finish(self.jobs[number], val_bpb)["verdict"]

    def detail(self, experiment_id: str) -> Any:
        return self.api.get(f"/api/experiment/{experiment_id}")

    def best(self) -> str:
        return str(self.api.get("/api/experiment/best", tag="mar11")["best"]["experiment_id"])


def test_a_win_whose_parent_was_replaced_is_merged_onto_the_best(api: Api) -> None:
    search = Search(api, 2, 9)
    first, second = search.ideas
    assert search.finish(0, 0.98)["status"] == "keep"
    verdict = search.finish(1, 0.99)
    assert (verdict["status"], verdict["action"]) == ("discard", "git_reset")
    assert verdict["why"] == (
        f"0.0100 better than {search.baseline}, from which it was made and which is no longer the"
        " best: it waits for a merge"
    )
    job = api.claim()
    merge = search.detail(job["experiment_id"])
    assert (merge["merged_from"], merge["parent_id"]) == ([second], first)
    assert (merge["category"], merge["description"]) == ("merge", "merge: h")
    assert job["train_py"] == changed(changed(BASELINE, 2), 9)
    assert api.claim("gpu-1") is None, "one merge, and no repeats"
    assert api.finish(job, 0.97)["verdict"]["status"] == "keep"
    assert search.best() == job["experiment_id"]
    assert api.claim() is None, "nothing waits any longer"
    assert "estimate" not in api.get("/api/experiment/best", tag="mar11")["best"]
    assert audited(api) == []


def test_up_to_four_wins_are_in_one_merge(api: Api) -> None:
    search = Search(api, 2, 5, 8, 11, 14, 17)
    api.post("/api/steer/pause", tag="mar11", reason="until all have ended")
    values = (0.98, 0.992, 0.991, 0.993, 0.994, 0.995)
    for number, val_bpb in enumerate(values):
        search.finish(number, val_bpb)
    api.post("/api/steer/resume", tag="mar11", reason="now")
    # The resumed tag is filled by the reaper, or by the next report.
    last = api.submit(changed(BASELINE, 0, 5))
    job = api.claim()
    if job["experiment_id"] == last:
        api.finish(job, 1.1)
        job = api.claim()
    merged_from = search.detail(job["experiment_id"])["merged_from"]
    assert merged_from == [search.ideas[number] for number in (2, 1, 3, 4)], "the best first"
    assert job["train_py"].count("= 1") == 5
    assert api.finish(job, 1.0)["verdict"]["status"] == "discard"
    assert search.detail(api.claim()["experiment_id"])["merged_from"] == [search.ideas[5]]
    assert audited(api) == []


def test_a_best_that_a_run_from_an_older_parent_replaces_is_merged_onto_that(api: Api) -> None:
    search = Search(api, 2, 9)
    search.finish(0, 0.98)
    assert search.finish(1, 0.97) == search.detail(search.ideas[1])["verdict"]
    assert search.best() == search.ideas[1]
    job = api.claim()
    assert search.detail(job["experiment_id"])["merged_from"] == [search.ideas[0]]
    assert job["train_py"] == changed(changed(BASELINE, 2), 9)
    assert search.detail(search.ideas[0])["status"] == "keep", "a verdict stands"
    assert audited(api) == []


def test_a_win_that_changes_the_lines_of_the_best_is_told_so_with_the_hunk(api: Api) -> None:
    search = Search(api, 5)
    api.gpu("gpu-1", 1)
    other = api.submit(changed(BASELINE, 5, 8))
    job = api.claim("gpu-1")
    search.finish(0, 0.98)
    api.finish(job, 0.99)
    verdict = search.detail(other)["verdict"]
    assert verdict["status"] == "discard"
    assert "it could not be merged: both change the same lines:" in verdict["why"]
    assert "line_5 = 1" in verdict["why"]
    assert "line_5 = 8" in verdict["why"]
    assert api.claim() is None
    assert audited(api) == []


def test_a_win_that_has_the_change_of_the_best_is_not_run_again_as_its_own_merge(api: Api) -> None:
    search = Search(api, 2)
    both = api.submit(changed(changed(BASELINE, 2), 9))
    api.gpu("gpu-1", 1)
    job = api.claim("gpu-1")
    search.finish(0, 0.98)
    api.finish(job, 0.99)
    assert search.detail(both)["verdict"]["why"].endswith(
        f"it could not be merged: it has the change of {search.ideas[0]} and reads no lower"
    )
    assert api.claim() is None
    assert audited(api) == []


def test_a_best_that_could_not_be_merged_onto_its_successor_stays_a_keep_and_says_so(
    api: Api,
) -> None:
    search = Search(api, 5)
    api.gpu("gpu-1", 1)
    api.submit(changed(BASELINE, 5, 8))
    job = api.claim("gpu-1")
    search.finish(0, 0.98)
    api.finish(job, 0.97)
    verdict = search.detail(search.ideas[0])["verdict"]
    assert (verdict["status"], verdict["improved"]) == ("keep", True)
    assert verdict["why"].startswith(
        "its change is not in the best that replaced it; it could not be merged: both change"
    )
    assert audited(api) == []


def test_a_win_waits_once_whatever_becomes_of_its_merge(api: Api) -> None:
    search = Search(api, 2, 9)
    search.finish(0, 0.98)
    search.finish(1, 0.99)
    assert api.finish(api.claim(), outcome="crash", error="boom")["verdict"]["status"] == "crash"
    assert api.claim() is None
    assert audited(api) == []


def test_a_gpu_that_comes_free_later_gets_the_merge(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.services.core.reaper.FILL_SECONDS", 0.1)
    api = make_api()
    search = Search(api, 2, 9)
    api.post("/api/steer/pause", tag="mar11", reason="lunch")
    search.finish(0, 0.98)
    search.finish(1, 0.99)
    api.post("/api/steer/resume", tag="mar11", reason="back")
    job = eventually(api.claim)
    assert search.detail(job["experiment_id"])["merged_from"] == [search.ideas[1]]
    assert audited(api) == []


def test_two_orchestrators_queue_a_merge_once(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.services.core.reaper.FILL_SECONDS", 0.0)
    apis = [make_api(), make_api()]
    search = Search(apis[0], 2, 9, 16)
    for number, val_bpb in enumerate((0.98, 0.99, 0.985)):
        with ThreadPoolExecutor() as pool:
            told = list(pool.map(lambda api: api.finish(search.jobs[number], val_bpb), apis))  # noqa: B023
        assert told[0] == told[1]
    merged = list[str]()
    while (job := apis[0].claim()) is not None:
        merged += search.detail(job["experiment_id"])["merged_from"]
        apis[0].finish(job, 1.1)
    assert sorted(merged) == search.ideas[1:]
    assert audited(apis[0]) == []


def test_the_audit_finds_a_win_that_somebody_added_to_those_that_wait(
    api: Api, redis_url: str
) -> None:
    search = Search(api, 2, 9)
    search.finish(0, 0.98)
    search.finish(1, 0.99)
    assert audited(api) == []
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        key = keys.of_tag("mar11", "race")
        text = client.get(key)
        assert text is not None
        client.set(key, text.replace(search.ideas[1], search.ideas[0]))
    assert any(difference.startswith("race:") for difference in audited(api))


@pytest.mark.parametrize("val_bpb", [0.99, 1.0, 1.1])
def test_a_report_by_hand_is_answered_as_under_greedy(api: Api, val_bpb: float) -> None:
    answers = []
    for rule in ("greedy", "greedy+merge"):
        tag = rule.replace("+", "-")
        api.tag(tag, keep_rule=rule)
        first = api.register(tag)
        second, late = (api.register(tag, parent_id=first) for _ in range(2))
        told = [api.complete(first, 1.0), api.complete(second, 0.98), api.complete(late, val_bpb)]
        for one in told:
            del one["experiment_id"]
        answers.append(told)
    assert answers[0] == answers[1]


def test_a_win_over_a_best_that_was_run_by_hand_says_that_it_cannot_be_merged(api: Api) -> None:
    search = Search(api, 2)
    by_hand = api.register()
    api.complete(by_hand, 0.98)
    verdict = search.finish(0, 0.99)
    assert "it waits for a merge" in verdict["why"]
    assert search.detail(search.ideas[0])["verdict"]["why"].endswith(
        f"; it could not be merged: {by_hand} was run by hand, so its source is not here"
    )
    assert api.claim() is None
    assert audited(api) == []
