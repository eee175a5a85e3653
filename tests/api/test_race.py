"""The keep rule `race` over HTTP: repeats that the service queues, candidates, keeps, merges."""

import asyncio
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from orchestrator.services.core import judge
from orchestrator.services.core.audit import Audit
from orchestrator.store import keys
from orchestrator.store.connection import Store
from orchestrator.store.scripts import Script, Scripts
from tests.conftest import Api, MakeApi, eventually

BASELINE = "".join(f"line_{n} = 0\n" for n in range(20))
# A mean of 0.99798; single runs differ by 0.0009.
BASELINE_RUNS = (0.9979, 0.9991, 0.9968, 0.9984, 0.9977)


def changed(source: str, line: int, value: int = 1) -> str:
    """The source with another value in one line."""
    return source.replace(f"line_{line} = 0\n", f"line_{line} = {value}\n")


class Race:
    """A tag that races, on GPUs whose runs end when the test says so."""

    def __init__(self, api: Api, gpus: int = 1) -> None:
        self.api = api
        api.tag(keep_rule="race")
        for index in range(gpus):
            api.gpu(f"gpu-{index}", index)

    def run(self, val_bpb: float | None, gpu: str = "gpu-0", **more: Any) -> Any:
        """Claim the next job and end it; the verdict."""
        return self.api.finish(self.claim(gpu), val_bpb, **more)["verdict"]

    def claim(self, gpu: str = "gpu-0") -> Any:
        job = self.api.claim(gpu)
        assert job is not None, "nothing is queued"
        return job

    def baseline(self) -> str:
        experiment_id = self.api.submit(BASELINE)
        for val_bpb in BASELINE_RUNS:
            self.run(val_bpb)
        return experiment_id

    def detail(self, experiment_id: str) -> Any:
        return self.api.get(f"/api/experiment/{experiment_id}")

    def why(self, experiment_id: str) -> str:
        return str(self.detail(experiment_id)["verdict"]["why"])

    def best(self) -> Any:
        return self.api.get("/api/experiment/best", tag="mar11")["best"]


@pytest.fixture
def race(api: Api) -> Race:
    return Race(api)


def audited(api: Api) -> list[str]:
    """What the audit finds wrong."""
    assert api.settings.redis_url is not None
    url = api.settings.redis_url.get_secret_value()

    async def differences() -> list[str]:
        store = Store(url, 5)
        try:
            return (await Audit(store).check("mar11")).differences
        finally:
            await store.close()

    return asyncio.run(differences())


def test_the_baseline_runs_with_five_seeds_and_its_value_is_their_mean(race: Race) -> None:
    first = race.api.submit(BASELINE)
    jobs = []
    for val_bpb in BASELINE_RUNS:
        jobs.append(race.claim())
        race.api.finish(jobs[-1], val_bpb)
    assert [job["seed"] for job in jobs] == [42, 43, 44, 45, 46]
    assert {job["train_py"] for job in jobs} == {BASELINE}
    assert race.best()["experiment_id"] == first
    assert race.best()["val_bpb"] == pytest.approx(0.99798)
    estimate = race.best()["estimate"]
    assert estimate["low"] < 0.9975 < estimate["val_bpb"] < 0.9985 < estimate["high"]
    assert estimate["readings"] == {
        str(seed): value for seed, value in enumerate(BASELINE_RUNS, 42)
    }
    repeat = race.detail(jobs[1]["experiment_id"])
    assert (repeat["status"], repeat["repeat_of"]) == ("repeat", first)
    stats = race.api.get("/api/report/summary", tag="mar11")["stats"]
    assert (stats["total"], stats["kept"]) == (1, 1)
    assert race.api.get("/api/report/tsv", tag="mar11")["count"] == 1
    assert audited(race.api) == []


def test_a_worse_idea_is_discarded_after_one_run_and_the_sentence_says_why(race: Race) -> None:
    race.baseline()
    race.api.submit(changed(BASELINE, 3))
    verdict = race.run(0.9986)
    assert (verdict["status"], verdict["runs"], verdict["action"]) == ("discard", 1, "git_reset")
    assert verdict["best_val_bpb"] == pytest.approx(0.99798)
    assert verdict["delta"] == pytest.approx(-0.00064, abs=1e-5)
    assert verdict["why"] == (
        "0.0006 worse than the champion's estimate 0.9980; seeds alone move a run by 0.0012; better"
        " with probability 0.13 after 1 run; discarded"
    )
    assert "confirmed" not in verdict


def test_a_better_idea_is_a_candidate_until_its_repeats_have_confirmed_it(race: Race) -> None:
    race.baseline()
    idea = race.api.submit(changed(BASELINE, 3))
    assert race.run(0.9958)["status"] == "candidate"
    waited = race.api.get(f"/api/experiment/{idea}/wait?timeout=0", 202)
    assert (waited["status"], waited["verdict"]) == ("candidate", None)
    assert waited["so_far"]["why"].endswith("after 1 run; another seed follows")
    assert race.best()["val_bpb"] == pytest.approx(0.99798), "one run proves nothing"
    assert race.run(0.9957)["status"] == "repeat"
    assert race.detail(idea)["so_far"]["runs"] == 2
    race.run(0.9955)
    verdict = race.api.get(f"/api/experiment/{idea}/wait?timeout=0")["verdict"]
    assert (verdict["status"], verdict["action"]) == ("keep", "keep_commit")
    assert (verdict["confirmed"], verdict["runs"], verdict["improved"]) == (True, 3, True)
    assert verdict["val_bpb"] == 0.9958
    assert race.best()["experiment_id"] == idea
    assert race.best()["val_bpb"] == verdict["best_val_bpb"] == pytest.approx(0.9958, abs=1e-4)
    assert audited(race.api) == []


def test_a_candidate_has_left_the_queue_and_gets_no_other_priority(race: Race) -> None:
    race.baseline()
    idea = race.api.submit(changed(BASELINE, 3))
    race.run(0.9958)
    path = f"/api/experiment/{idea}/priority"
    refused = race.api.post(path, 409, priority=3, reason="soon")
    assert "waits for the repeats that decide it" in refused["error"]


def test_who_waits_for_a_candidate_is_woken_by_its_verdict(race: Race) -> None:
    race.baseline()
    idea = race.api.submit(changed(BASELINE, 3))
    race.run(0.9958)
    found: list[Any] = []
    url = f"/api/experiment/{idea}/wait?timeout=20"
    waiter = threading.Thread(target=lambda: found.append(race.api.http.get(url)))
    waiter.start()
    race.run(0.9957)
    race.run(0.9955)
    waiter.join()
    assert (found[0].status_code, found[0].json()["status"]) == (200, "keep")


def test_repeats_are_queued_before_ideas_that_came_later_and_are_two_fifths_at_most(
    race: Race,
) -> None:
    """The first idea after the baseline is a candidate, and the queue is full of others."""
    race.baseline()
    ideas = [race.api.submit(changed(BASELINE, 1, value)) for value in range(1, 30)]
    order = []
    for _ in range(20):
        job = race.claim()
        detail = race.detail(job["experiment_id"])
        order.append(detail["repeat_of"] or job["experiment_id"])
        race.api.finish(job, 0.9966 if order[-1] == ideas[0] else 0.9990)
    assert order[:3] == [ideas[0], ideas[0], ideas[0]]
    assert Counter(order)[ideas[0]] - 1 <= 0.4 * 21
    assert audited(race.api) == []


def test_a_gpu_waits_for_the_next_idea_and_repeats_the_champion_when_none_comes(
    race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    race.baseline()
    assert race.api.claim() is None, "an agent may be about to submit"
    monkeypatch.setattr("orchestrator.services.core.race.IDLE", 0.0)
    race.api.submit(changed(BASELINE, 3))
    race.run(1.1)
    seeds = []
    while (job := race.api.claim()) is not None:
        seeds.append(job["seed"])
        race.api.finish(job, 0.998)
    assert seeds == [47, 48, 49, 50], "two fifths of all runs but the baseline's"
    assert audited(race.api) == []


def test_a_report_takes_two_scripts_also_if_a_repeat_follows(
    race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    race.baseline()
    race.api.submit(changed(BASELINE, 3))
    race.api.submit(changed(BASELINE, 5))
    calls = list[str]()
    run = Scripts._run

    def counted(scripts: Scripts, script: Script[Any], *args: Any) -> Any:
        calls.append(script.verb)
        return run(scripts, script, *args)

    for val_bpb, status in ((1.2, "discard"), (0.9958, "candidate")):
        job = race.claim()
        with monkeypatch.context() as patch:
            patch.setattr(Scripts, "_run", counted)
            assert race.api.finish(job, val_bpb)["verdict"]["status"] == status
        assert [call for call in calls if call != "tidy"] == ["snapshot", "decide"]
        calls.clear()
    assert race.claim()["seed"] == 43


def test_a_repeat_is_queued_also_if_a_submission_came_while_its_run_was_judged(
    race: Race, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = judge.look_ahead

    def overtaken(*args: Any) -> Any:
        with redis.Redis.from_url(redis_url) as client:
            client.hincrby(keys.of_tag("mar11", "tag"), "last_created", 1)
        return look(*args)

    monkeypatch.setattr(judge, "look_ahead", overtaken)
    race.api.submit(BASELINE)
    race.run(0.9979)
    assert race.claim()["seed"] == 43
    assert race.api.claim() is None


def test_a_gpu_that_drains_gets_no_repeat_with_its_last_verdict(race: Race) -> None:
    race.api.submit(BASELINE)
    job = race.claim()
    race.api.post("/api/pool/drain", gpu_id="gpu-0", reason="maintenance")
    race.api.finish(job, 0.9979)
    assert race.api.get("/api/report/summary", tag="mar11")["stats"]["queued"] == 0


def test_wins_over_an_old_parent_are_merged_onto_the_champion(api: Api) -> None:
    """Two ideas run while a third is kept: what they changed is in one source, on the champion."""
    race = Race(api, gpus=3)
    race.baseline()
    sources = [changed(BASELINE, line) for line in (2, 9, 16)]
    ideas = [api.submit(source) for source in sources]
    jobs = {}
    for gpu in ("gpu-0", "gpu-1", "gpu-2"):
        job = race.claim(gpu)
        jobs[job["experiment_id"]] = job
    api.finish(jobs[ideas[0]], 0.9900)
    assert race.detail(ideas[0])["status"] == "keep"
    for idea in ideas[1:]:
        assert api.finish(jobs[idea], 0.9905)["verdict"]["status"] == "discard"
        assert "it waits for a merge" in race.why(idea)
    merges = []
    for val_bpb in (0.9800, 0.9700):  # the first was queued as soon as one win waited
        job = race.claim()
        merges.append(race.detail(job["experiment_id"]))
        api.finish(job, val_bpb)
    assert [merge["merged_from"] for merge in merges] == [[ideas[1]], [ideas[2]]]
    assert [merge["parent_id"] for merge in merges] == [ideas[0], merges[0]["id"]]
    assert {merge["description"] for merge in merges} == {"merge: h"}, "what its wins said"
    assert job["train_py"] == changed(changed(changed(BASELINE, 2), 9), 16)
    assert race.best()["experiment_id"] == job["experiment_id"]
    assert audited(api) == []


def test_a_merge_that_is_its_win_as_it_was_runs_with_seeds_that_this_has_not_had(
    api: Api,
) -> None:
    """An agent submits a change, and before its verdict the same with another one: the first is
    kept, and the second merged onto it is what it was."""
    race = Race(api, gpus=2)
    race.baseline()
    one = changed(BASELINE, 2)
    ideas = [api.submit(source) for source in (one, changed(one, 9))]
    first, second = race.claim("gpu-0"), race.claim("gpu-1")
    api.finish(first, 0.9900)
    api.finish(second, 0.9905)
    assert [race.detail(idea)["status"] for idea in ideas] == ["keep", "discard"]
    seeds = []
    while len(seeds) < 3:
        job = race.claim()
        merged = job["train_py"] == changed(one, 9)
        seeds += [job["seed"]] if merged else []
        api.finish(job, 0.9904 if merged else 0.9900)
    assert seeds == [43, 44, 45]
    assert audited(api) == []


def test_a_win_that_changes_the_lines_of_the_champion_is_told_so_with_the_hunk(api: Api) -> None:
    race = Race(api, gpus=2)
    race.baseline()
    first, second = (api.submit(changed(BASELINE, 5, value)) for value in (7, 8))
    ours, theirs = race.claim("gpu-0"), race.claim("gpu-1")
    assert (ours["experiment_id"], theirs["experiment_id"]) == (first, second)
    api.finish(ours, 0.9900)
    api.finish(theirs, 0.9905)
    why = race.why(second)
    assert "it could not be merged: both change the same lines:" in why
    assert "line_5 = 7" in why
    assert "line_5 = 8" in why
    assert race.detail(second)["status"] == "discard"
    assert audited(api) == []


def test_a_repeat_that_crashes_ends_its_candidate(race: Race) -> None:
    race.baseline()
    idea = race.api.submit(changed(BASELINE, 3))
    race.run(0.9958)
    verdict = race.run(None, outcome="crash", error="boom")
    assert verdict["status"] == "crash"
    assert race.detail(idea)["status"] == "discard"
    assert race.why(idea).endswith("its run with seed 43 crashed")
    assert audited(race.api) == []


def test_a_disturbed_repeat_does_not_count_and_says_so(race: Race) -> None:
    first = race.api.submit(BASELINE)
    for val_bpb in (0.9979, 0.9991, 0.9968, 0.9984):
        race.run(val_bpb)
    job = race.claim()
    race.api.finish(job, 1.2)
    assert race.best()["val_bpb"] == pytest.approx(0.99805), "the mean of the other four"
    [warning] = race.detail(job["experiment_id"])["warnings"]
    assert warning.startswith("does not count for the keep rule")
    assert race.claim()["seed"] == 47, "another run takes its place"
    assert race.detail(first)["warnings"] == []
    assert audited(race.api) == []


@pytest.mark.parametrize(("rules", "counted"), [(2, 6), (1, 5)])
def test_a_tag_is_judged_and_audited_by_the_rules_that_it_began_with(
    race: Race, redis_url: str, rules: int, counted: int
) -> None:
    """By the first ones, which had no number, no run counts that once seemed disturbed."""
    race.api.submit(BASELINE)
    race.run(0.603124)
    if rules == 1:
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            key = keys.of_tag("mar11", "race")
            state = json.loads(client.get(key) or "")
            del state["rules"]
            client.set(key, json.dumps(state))
    for val_bpb in (0.603589, 0.612080, 0.605141, 0.603136):
        race.run(val_bpb)
    assert len(race.best()["estimate"]["readings"]) == 4
    race.run(0.609612)
    assert len(race.best()["estimate"]["readings"]) == counted
    assert audited(race.api) == []


def test_a_person_who_cancels_a_repeat_ends_its_candidate(race: Race) -> None:
    race.baseline()
    idea = race.api.submit(changed(BASELINE, 3))
    race.run(0.9958)
    history = race.api.post("/api/experiment/history", tag="mar11", status="queued")
    [queued] = history["experiments"]
    race.api.post(f"/api/experiment/{queued['id']}/cancel", reason="enough")
    assert race.detail(idea)["status"] == "discard"
    assert race.why(idea).endswith("its run with seed 43 was cancelled")
    assert audited(race.api) == []


def test_a_run_that_a_person_repeats_gets_a_verdict_of_its_own(race: Race) -> None:
    race.baseline()
    idea = race.api.submit(changed(BASELINE, 3))
    assert race.run(1.2)["status"] == "discard"
    again = race.api.post(f"/api/experiment/{idea}/requeue", reason="the GPU was shared")
    assert race.run(0.9958)["status"] == "candidate"
    assert race.detail(again["experiment_id"])["repeat_of"] == idea
    job = race.claim()
    assert race.detail(job["experiment_id"])["repeat_of"] == again["experiment_id"]
    assert audited(race.api) == []


def test_a_source_that_is_gone_keeps_no_verdict_from_its_worker(api: Api) -> None:
    race = Race(api, gpus=2)
    race.baseline()
    first, second = (api.submit(changed(BASELINE, line)) for line in (3, 16))
    ours, theirs = race.claim("gpu-0"), race.claim("gpu-1")
    sha256 = race.detail(second)["source_sha256"]
    for path in api.settings.paths.home.rglob(f"*{sha256}*"):
        path.unlink()
    api.finish(ours, 0.9900)
    assert api.finish(theirs, 0.9905)["verdict"]["status"] == "discard"
    assert (race.best()["experiment_id"], theirs["experiment_id"]) == (first, second)
    assert "it could not be merged" in race.why(second)
    assert audited(api) == []


def test_a_champion_whose_repeats_crash_twice_is_dethroned_with_the_reason(
    race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.services.core.race.IDLE", 0.0)
    first = race.baseline()
    idea = race.api.submit(changed(BASELINE, 3))
    while race.best()["experiment_id"] != idea:
        job = race.claim()
        race.api.finish(job, 0.99 if job["experiment_id"] == idea else 0.998)
    for _ in range(2):
        job = race.claim()
        assert race.detail(job["experiment_id"])["repeat_of"] == idea
        race.api.finish(job, outcome="crash", error="boom")
    assert race.best()["experiment_id"] == first
    verdict = race.detail(idea)["verdict"]
    assert "2 of its repeats crashed" in verdict["why"]
    assert (verdict["improved"], verdict["action"]) == (False, "git_reset")
    assert audited(race.api) == []


def test_a_paused_tag_gets_no_repeats_and_gets_them_when_it_is_resumed(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.services.core.reaper.FILL_SECONDS", 0.1)
    race = Race(make_api())
    api = race.api
    api.submit(BASELINE)
    job = race.claim()
    api.post("/api/steer/pause", tag="mar11", reason="lunch")
    api.finish(job, 0.998)
    assert api.get("/api/report/summary", tag="mar11")["stats"]["queued"] == 0
    api.post("/api/steer/resume", tag="mar11", reason="back")
    eventually(lambda: api.get("/api/report/summary", tag="mar11")["stats"]["queued"] == 1)


def test_a_gpu_that_comes_later_gets_a_repeat(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.services.core.reaper.FILL_SECONDS", 0.1)
    race = Race(make_api())
    race.api.submit(BASELINE)
    job = race.claim()
    race.api.gpu("gpu-1", 1)
    found = eventually(lambda: race.api.claim("gpu-1"))
    assert (found["train_py"], found["seed"]) == (BASELINE, 43)
    answer = race.api.finish(found, 0.9991, _status=503)
    assert "waits for" in answer["detail"], "the baseline's first result comes first"
    race.api.finish(job, 0.9979)
    race.api.finish(found, 0.9991)
    assert race.best()["val_bpb"] == pytest.approx(0.9985)
    assert audited(race.api) == []


def test_many_who_ask_at_once_queue_each_repeat_once(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight GPUs end their runs at the same time, and every answer queues more."""
    monkeypatch.setattr("orchestrator.services.core.race.IDLE", 0.0)
    monkeypatch.setattr("orchestrator.rules.race.queue.REPEATS", 1.0)
    race = Race(api, gpus=8)
    idea = race.baseline()
    jobs = [job for n in range(8) if (job := api.claim(f"gpu-{n}")) is not None]
    while jobs:
        threads = [threading.Thread(target=api.finish, args=(job, 0.998)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        jobs = [job for n in range(8) if (job := api.claim(f"gpu-{n}")) is not None]
    history = api.post("/api/experiment/history", tag="mar11")["experiments"]
    seeds = [race.detail(one["id"])["seed"] for one in history]
    assert sorted(seeds) == list(range(42, 52)), "ten runs of the champion, each seed once"
    assert {race.detail(one["id"])["repeat_of"] for one in history} == {None, idea}
    assert audited(api) == []


def test_a_tag_that_races_takes_no_runs_by_hand(race: Race) -> None:
    answer = race.api.post(
        "/api/experiment/register",
        409,
        tag="mar11",
        hypothesis="h",
        description="d",
        category="c",
        commit_sha="abcdef0",
        diff_summary="s",
    )
    assert "submit the train.py" in answer["detail"]


def test_the_audit_finds_a_belief_that_somebody_changed(race: Race, redis_url: str) -> None:
    race.baseline()
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        key = keys.of_tag("mar11", "race")
        text = client.get(key)
        assert text is not None
        client.set(key, text.replace("0.9979", "0.8979"))
    assert any(difference.startswith("race:") for difference in audited(race.api))


def test_similar_ideas_and_the_summary_count_a_repeated_source_once(race: Race) -> None:
    first = race.baseline()
    idea = race.api.submit(changed(BASELINE, 3), hypothesis="a sharper attention")
    race.run(0.9958)
    race.run(0.9957)
    similar = race.api.post("/api/search/similar", tag="mar11", idea="sharper attention")
    assert similar["searched"] == similar["total"]
    assert [near["experiment_id"] for near in similar["near"]] == [idea]
    stats = race.api.get("/api/report/summary", tag="mar11")["stats"]
    assert (stats["total"], stats["candidates"], stats["repeats"]) == (1, 1, 5)
    assert race.api.get("/api/report/summary", tag="mar11")["best"]["experiment_id"] == first


def test_two_orchestrators_queue_each_repeat_once_and_decide_each_run_once(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are told of each result at the same moment, and both look for free GPUs all the time."""
    monkeypatch.setattr("orchestrator.services.core.reaper.FILL_SECONDS", 0.0)
    monkeypatch.setattr("orchestrator.services.core.race.IDLE", 0.0)
    apis = [make_api(), make_api()]
    race = Race(apis[0], gpus=4)
    race.api.submit(BASELINE)
    ideas = [race.api.submit(changed(BASELINE, line)) for line in (2, 5, 8, 11, 14, 17)]
    while jobs := [job for n in range(4) if (job := race.api.claim(f"gpu-{n}")) is not None]:
        for job in jobs:
            ours = job["train_py"].count("= 1")
            val_bpb = 0.998 - 0.001 * ours + 0.0005 * (job["seed"] % 3 - 1)
            with ThreadPoolExecutor() as pool:
                told = list(pool.map(lambda api: api.finish(job, val_bpb)["verdict"], apis))  # noqa: B023
            assert told[0] == told[1]
    history = race.api.post("/api/experiment/history", tag="mar11")["experiments"]
    runs = Counter(
        (detail["source_sha256"], detail["seed"])
        for detail in (race.detail(one["id"]) for one in history)
    )
    assert set(runs.values()) == {1}
    assert {one["status"] for one in history} <= {"keep", "discard", "repeat"}
    assert race.api.http.get(f"/api/experiment/{race.best()['experiment_id']}/train.py").text != (
        BASELINE
    ), f"none of {ideas} was kept"
    assert audited(race.api) == []
