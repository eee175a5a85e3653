"""Early stop over HTTP: runs whose curve says that they cannot win are ended, once, and audited."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import pytest
import redis

from orchestrator.rules.early_stop import CALIBRATED, SPARED_OF
from orchestrator.store import keys
from tests.api.test_race import audited
from tests.conftest import Api, MakeApi, lease_of

pytestmark = pytest.mark.slow  # each begins with thirty runs


def curve(level: float, until: int = 100) -> list[dict[str, float]]:
    """Progress lines every two percent: an untrained model first, then a line down to `level`."""
    later = [
        {"step": p, "percent": p, "loss": level + 2 * (1 - p / 100)} for p in range(2, until + 1, 2)
    ]
    return [{"step": 0, "percent": 0, "loss": 9.0}, *later]


def final(level: float, noise: float = 0.0) -> float:
    return round(0.3 * level + noise, 6)


def spared(experiment_id: str) -> bool:
    return int(sha256(experiment_id.encode()).hexdigest(), 16) % SPARED_OF == 0


class Search:
    """A tag with early stop, on one GPU whose runs end when the test says so."""

    def __init__(self, api: Api, **settings: Any) -> None:
        self.api = api
        self.made = 0
        api.tag(**({"early_stop": True} | settings))
        api.gpu()

    def claim(self, *, to_spare: bool = False) -> Any:
        """The next run, of an id that the early stop spares or not, as asked."""
        while True:
            self.made += 1
            found = self.api.submit(f"run = {self.made}\n")
            if spared(found) == to_spare:
                return self.api.claim()
            self.api.post(f"/api/experiment/{found}/cancel")

    def calibrate(self, runs: int = CALIBRATED) -> None:
        """Finish runs that read 0.9 to 0.9875; the first of them is the best."""
        for number in range(runs):
            level = 3.0 + 0.01 * number
            noise = (number % 3 - 1) * 0.001 if number else 0.0
            self.api.finish(self.claim(), final(level, noise), curve=curve(level))

    def progress(self, job: Any, level: float, until: int, status: int = 200) -> Any:
        body = lease_of(job) | {"curve": curve(level, until)}
        return self.api.post("/api/job/progress", status, **body)

    def detail(self, job: Any) -> Any:
        return self.api.get(f"/api/experiment/{job['experiment_id']}")

    def told(self) -> str:
        return str(self.api.get("/api/report/summary", tag="mar11")["early_stop"])

    def audited(self) -> list[str]:
        """What the audit finds wrong."""
        return audited(self.api)


@pytest.fixture
def search(api: Api) -> Search:
    return Search(api)


@pytest.fixture
def calibrated(search: Search) -> Search:
    search.calibrate()
    return search


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with contextlib.closing(redis.Redis.from_url(redis_url, decode_responses=True)) as found:
        yield found


def test_a_hopeless_run_is_stopped_at_a_mark_and_discarded_with_what_was_predicted(
    calibrated: Search,
) -> None:
    job = calibrated.claim()
    assert not calibrated.progress(job, 3.2, until=24)["cancel"]
    answer = calibrated.progress(job, 3.2, until=26)
    assert (answer["cancel"], answer["why"]) == (True, "early_stop")
    again = calibrated.progress(job, 3.2, until=28)  # its worker has not stopped it yet
    assert (again["cancel"], again["why"]) == (True, "early_stop")
    assert calibrated.api.post("/api/job/renew", **lease_of(job))["why"] == "early_stop"
    assert calibrated.detail(job)["stopping"] == "early"

    report = {"outcome": "cancelled", "error": "cancelled while it ran", "curve": curve(3.2, 30)}
    verdict = calibrated.api.finish(job, None, **report)["verdict"]
    assert (verdict["status"], verdict["stopped_early"]) == ("discard", True)
    assert verdict["predicted_val_bpb"] == pytest.approx(0.96, abs=0.001)
    assert 0 < verdict["predicted_sd"] < 0.002
    assert verdict["best_val_bpb"] == 0.9
    assert verdict["why"].startswith(
        "stopped early: its training loss of 4.8000 at 25 % of the budget predicts a val_bpb of"
        " 0.9600 ± 0.0008, by 30 finished runs; better than the best, 0.9000, with a probability"
    )
    assert calibrated.api.finish(job, None, **report)["verdict"] == verdict

    detail = calibrated.detail(job)
    assert (detail["status"], detail["val_bpb"]) == ("discard", None)
    assert (detail["stopped_early"], detail["verdict"]) == (True, verdict)
    assert [attempt["outcome"] for attempt in detail["attempts"]] == ["stopped"]
    # 70 % of 300 s.
    assert calibrated.told() == (
        "on: 1 run stopped, 0.06 GPU hours saved; 0 of 0 audited runs were better after all"
    )
    rows = calibrated.api.get("/api/report/tsv", tag="mar11")["tsv"].splitlines()
    assert rows[-1].split("\t")[1:4] == ["0.000000", "0.0", "discard"]
    predicted = f"{verdict['predicted_val_bpb']:.6f}"
    assert rows[-1].endswith(f"(stopped early: predicted val_bpb {predicted})")
    assert calibrated.audited() == []


def test_nothing_is_stopped_before_thirty_runs_have_finished_with_a_curve(search: Search) -> None:
    search.calibrate(CALIBRATED - 1)
    search.api.finish(search.claim(), 0.96)  # it printed no progress
    job = search.claim()
    assert not search.progress(job, 3.2, until=80)["cancel"]
    assert search.told() == "begins after 30 finished runs with curves; 29 so far"


@pytest.mark.parametrize("settings", [{"early_stop": False}, {"keep_rule": "greedy"}])
def test_a_tag_without_early_stop_stops_nothing_and_says_nothing_of_it(
    api: Api, settings: Any
) -> None:
    search = Search(api, **({"early_stop": None} | settings))
    search.calibrate()
    assert not search.progress(search.claim(), 3.2, until=80)["cancel"]
    assert "early_stop" not in search.api.get("/api/report/summary", tag="mar11")


@pytest.mark.parametrize(("rule", "default"), [("greedy", False), ("race", True)])
def test_early_stop_is_the_default_of_the_keep_rule_race_alone(
    api: Api, rule: str, default: bool
) -> None:
    def early_stop(tag: str, **settings: bool) -> Any:
        answer = api.post("/api/experiment/setup", tag=tag, keep_rule=rule, **settings)
        return answer["tag"]["early_stop"]

    assert early_stop("a") is default
    assert early_stop("b", early_stop=not default) is not default


def test_a_condemned_run_that_is_spared_finishes_and_counts_as_an_audit(calibrated: Search) -> None:
    job = calibrated.claim(to_spare=True)
    assert not calibrated.progress(job, 3.2, until=26)["cancel"]
    assert not calibrated.progress(job, 3.2, until=80)["cancel"]
    verdict = calibrated.api.finish(job, 0.9605, curve=curve(3.2))["verdict"]
    assert (verdict["status"], verdict["val_bpb"]) == ("discard", 0.9605)
    assert calibrated.detail(job)["predicted_val_bpb"] == pytest.approx(0.96, abs=0.001)
    assert calibrated.told().endswith("; 0 of 1 audited runs were better after all")
    assert calibrated.audited() == []


def test_one_false_kill_among_few_audited_runs_switches_it_off(calibrated: Search) -> None:
    job = calibrated.claim(to_spare=True)
    calibrated.progress(job, 3.2, until=26)
    assert calibrated.api.finish(job, 0.88, curve=curve(3.2))["verdict"]["status"] == "keep"
    assert calibrated.told().startswith("switched itself off, as too many condemned runs were")
    assert not calibrated.progress(calibrated.claim(), 3.25, until=80)["cancel"]
    assert calibrated.audited() == []


def test_two_orchestrators_that_look_at_once_condemn_a_run_once(
    make_api: MakeApi, calibrated: Search, client: Any
) -> None:
    job, other = calibrated.claim(), make_api()
    body = lease_of(job) | {"curve": curve(3.2, 30)}
    with ThreadPoolExecutor(8) as pool:
        apis = [calibrated.api, other] * 8
        answers = list(pool.map(lambda api: api.post("/api/job/progress", **body), apis))
    assert all(answer["cancel"] for answer in answers[8:])
    kinds = [fields["kind"] for _, fields in client.xrange(keys.of_tag("mar11", "journal"))]
    assert kinds.count("condemned") == 1
    calibrated.api.finish(job, None, outcome="cancelled")
    assert calibrated.audited() == []


def test_a_condemned_run_whose_worker_dies_is_not_tried_again(calibrated: Search) -> None:
    job = calibrated.claim()
    calibrated.progress(job, 3.2, until=26)
    answer = calibrated.api.finish(job, None, outcome="lost", error="the supervisor died")
    assert answer["verdict"]["stopped_early"]
    assert calibrated.api.claim() is None
    assert calibrated.audited() == []


def test_the_lease_of_a_condemned_run_that_lapses_ends_it(make_api: MakeApi) -> None:
    search = Search(make_api(lease_seconds=0.6))
    search.calibrate()
    job = search.claim()
    assert search.progress(job, 3.2, until=26)["cancel"]
    found = search.api.get(f"/api/experiment/{job['experiment_id']}/wait", timeout=30)
    assert found["verdict"]["stopped_early"]
    late = search.api.finish(job, 0.5)["verdict"]
    assert (late["status"], late["why"]) == ("discard", found["verdict"]["why"])
    assert search.audited() == []


def test_a_condemned_run_that_ends_before_its_worker_stops_it_is_judged_by_what_it_reads(
    calibrated: Search,
) -> None:
    job = calibrated.claim()
    calibrated.progress(job, 3.2, until=76)
    assert calibrated.api.finish(job, 0.9601, curve=curve(3.2))["verdict"]["val_bpb"] == 0.9601
    assert "0 of 1 audited" in calibrated.told()
    assert calibrated.audited() == []


def test_what_a_person_asks_of_a_condemned_run_comes_first(calibrated: Search) -> None:
    job = calibrated.claim()
    calibrated.progress(job, 3.2, until=26)
    calibrated.api.post(f"/api/experiment/{job['experiment_id']}/requeue", by="ann", reason="why?")
    answer = calibrated.progress(job, 3.2, until=28)
    assert (answer["cancel"], "why" in answer) == (True, False)
    assert calibrated.api.finish(job, None, outcome="cancelled")["status"] == "queued"
    again = calibrated.api.claim()
    assert again["experiment_id"] == job["experiment_id"]
    assert not calibrated.progress(again, 3.2, until=80)["cancel"]  # condemned once, and not again
    calibrated.api.finish(again, 0.9602, curve=curve(3.2))
    assert "0 of 1 audited" in calibrated.told()
    assert calibrated.audited() == []


def test_a_repeat_that_was_asked_for_is_never_stopped(calibrated: Search) -> None:
    source = calibrated.claim()
    calibrated.api.finish(source, 0.96, curve=curve(3.2))
    requeue = f"/api/experiment/{source['experiment_id']}/requeue"
    calibrated.api.post(requeue, by="ann", reason="how sure is it?")
    assert not calibrated.progress(calibrated.api.claim(), 3.25, until=80)["cancel"]


def test_a_tampered_prediction_is_found(calibrated: Search, client: Any) -> None:
    job = calibrated.claim()
    calibrated.progress(job, 3.2, until=26)
    calibrated.api.finish(job, None, outcome="cancelled")
    assert calibrated.audited() == []
    key = keys.of_tag("mar11", "journal")
    entries = client.xrange(key)
    client.delete(key)
    for entry_id, fields in entries:
        if fields["kind"] == "condemned":
            assert '"champion":0.9,' in fields["data"]
            fields["data"] = fields["data"].replace('"loss":4.8', '"loss":4.7')
        client.xadd(key, fields, id=entry_id)
    found = calibrated.audited()
    assert any("was condemned by Forecast(percent=25, loss=4.7" in one for one in found)


def test_a_tampered_forecast_of_a_run_is_found(calibrated: Search, client: Any) -> None:
    job = calibrated.claim(to_spare=True)
    calibrated.progress(job, 3.2, until=26)
    calibrated.api.finish(job, 0.96, curve=curve(3.2))
    key = keys.of_tag("mar11", "run:", job["experiment_id"])
    stored = client.hget(key, "forecast")
    client.hset(key, "forecast", stored.replace('"percent":25', '"percent":50'))
    [found] = calibrated.audited()
    assert found.startswith(f"{job['experiment_id']}: forecast: Forecast(percent=50")


def test_a_run_made_from_an_old_champion_is_compared_with_that_one(api: Api) -> None:
    """A win over it would be merged onto the new one, so it is no loss to be worse than that."""
    search = Search(api, keep_rule="race")
    old = api.submit("run = 0\n")
    for number in range(5):
        api.finish(api.claim(), 0.9 + 0.0003 * (number % 3), curve=curve(3.0))
    for number in range(CALIBRATED - 5):
        level = 3.01 + 0.01 * number
        api.finish(search.claim(), final(level) + 0.0003 * (number % 3), curve=curve(level))
    api.finish(api.claim(), 0.9, curve=curve(3.0))  # the champion, to see if the GPU has drifted
    late = api.submit("late = 1\n", parent_id=old)
    job = api.claim()
    new = api.submit("new = 1\n", parent_id=old)
    api.gpu("gpu-1", 1)
    while api.get(f"/api/experiment/{new}")["status"] != "keep":
        api.finish(api.claim("gpu-1"), 0.87, curve=curve(2.9))
    assert job["experiment_id"] == late
    assert not search.progress(job, 2.995, until=80)["cancel"]  # 0.8985: above 0.87, below 0.9
    assert search.detail(job)["predicted_val_bpb"] is None  # nor is it spared
    assert search.audited() == []


def test_a_race_learns_nothing_of_a_run_that_was_stopped(api: Api, client: Any) -> None:
    search = Search(api, keep_rule="race", early_stop=True)
    api.submit("run = 0\n")
    for number in range(5):  # the baseline and its repeats
        level = 3.0 + 0.003 * (number % 3)
        api.finish(api.claim(), final(level), curve=curve(level))
    for number in range(CALIBRATED - 5):
        level = 3.1 + 0.01 * number
        verdict = api.finish(search.claim(), final(level), curve=curve(level))["verdict"]
        assert verdict["status"] == "discard"
    api.finish(api.claim(), final(3.0), curve=curve(3.0))  # the champion: has the GPU drifted?
    before = client.get(keys.of_tag("mar11", "race"))
    job = search.claim()
    assert search.progress(job, 3.2, until=26)["cancel"]
    verdict = api.finish(job, None, outcome="cancelled", curve=curve(3.2, 26))["verdict"]
    assert (verdict["status"], verdict["stopped_early"]) == ("discard", True)
    assert client.get(keys.of_tag("mar11", "race")) == before
    assert search.audited() == []
