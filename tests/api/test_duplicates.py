"""Reports that come twice, late, out of order or at once: one verdict, and everybody is told it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import redis

from orchestrator.store import keys
from tests.conftest import Api, lease_of

Job = dict[str, Any]


def leased(api: Api, gpu_id: str = "gpu-0") -> Job:
    """A job that `gpu_id` has claimed."""
    api.tag()
    api.gpu("gpu-0", 0)
    api.gpu("gpu-1", 1)
    api.submit("1")
    job: Job = api.claim(gpu_id)
    return job


def decided(api: Api) -> list[str]:
    """The experiments of all `decided` events, in their order."""
    assert api.settings.redis_url is not None
    url = api.settings.redis_url.get_secret_value()
    with redis.Redis.from_url(url, decode_responses=True) as client:
        entries = client.xrange(keys.of_all("events"))
    return [fields["id"] for _, fields in entries if fields["type"] == "decided"]


def at_once(send: Callable[[int], httpx.Response], count: int = 8) -> list[httpx.Response]:
    with ThreadPoolExecutor(count) as callers:
        return list(callers.map(send, range(count)))


def test_a_finish_sent_again_gets_the_stored_verdict(api: Api) -> None:
    """Also with other metrics, and after something better: the first report stands."""
    job = leased(api)
    first = api.finish(job, 1.0)
    api.complete(api.register(), 0.5)
    assert api.finish(job, 1.0) == first
    assert api.finish(job, 0.1) == first
    assert api.finish(job, outcome="crash", error="late") == first
    assert api.get(f"/api/experiment/{job['experiment_id']}")["val_bpb"] == 1.0
    assert decided(api).count(job["experiment_id"]) == 1


def test_finishes_at_the_same_moment_decide_once(api: Api) -> None:
    """Eight callers with eight different results: one of them is the verdict, told to all."""
    job = leased(api)

    def finish(number: int) -> httpx.Response:
        body = lease_of(job) | {"outcome": "completed", "metrics": {"val_bpb": 1 + number / 10}}
        return api.http.post("/api/job/finish", json=body)

    answers = at_once(finish)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert decided(api) == [job["experiment_id"]]


def test_reports_by_hand_at_the_same_moment_decide_once(api: Api) -> None:
    """complete and crash of one experiment, mixed: whichever came first is what all are told."""
    api.tag()
    experiment_id = api.register()

    def report(number: int) -> httpx.Response:
        body: dict[str, Any] = {"experiment_id": experiment_id}
        if number % 2:
            return api.http.post("/api/experiment/crash", json=body | {"error": "boom"})
        return api.http.post("/api/experiment/complete", json=body | {"val_bpb": 1.0})

    answers = at_once(report)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert decided(api) == [experiment_id]
    assert api.get("/api/report/summary", tag="mar11")["stats"]["total"] == 1


def test_a_crash_after_a_complete_and_the_reverse_change_nothing(api: Api) -> None:
    api.tag()
    good, bad = api.register(), api.register()
    kept, crashed = api.complete(good, 1.0), api.crash(bad)
    assert api.crash(good) == kept
    assert api.complete(good, 0.5) == kept
    assert api.complete(bad, 0.5) == crashed
    best = api.get("/api/experiment/best", tag="mar11")["best"]
    assert (best["experiment_id"], best["val_bpb"]) == (good, 1.0)
    assert decided(api) == [good, bad]


@pytest.mark.parametrize("state", ["queued", "leased", "decided"])
def test_a_report_of_an_old_epoch_is_refused_whatever_became_of_the_run(
    api: Api, state: str
) -> None:
    """Back in the queue, with the next worker, or decided by it: 409, and nothing changes."""
    old = leased(api)
    api.finish(old, outcome="lost")
    new = api.claim("gpu-1") if state != "queued" else None
    if state == "decided":
        api.finish(new, 1.0)
    before = api.get(f"/api/experiment/{old['experiment_id']}")
    api.finish(old, 0.1, 409)
    api.finish(old, None, 409, outcome="crash", error="late")
    api.post("/api/job/renew", 409, **lease_of(old))
    api.post("/api/job/progress", 409, log={"offset": 0, "data": "eA=="}, **lease_of(old))
    assert api.get(f"/api/experiment/{old['experiment_id']}") == before


def test_of_an_old_and_the_current_epoch_at_once_the_current_one_decides(api: Api) -> None:
    """The old one's better result never counts, however the two interleave."""
    old = leased(api)
    api.finish(old, outcome="lost")
    new = api.claim("gpu-1")

    def finish(number: int) -> httpx.Response:
        job, value = ((old, 0.1), (new, 1.0))[number % 2]
        body = lease_of(job) | {"outcome": "completed", "metrics": {"val_bpb": value}}
        return api.http.post("/api/job/finish", json=body)

    answers = at_once(finish)
    assert [answer.status_code for answer in answers] == [409, 200] * 4
    assert api.get(f"/api/experiment/{new['experiment_id']}")["val_bpb"] == 1.0
    assert decided(api) == [new["experiment_id"]]


def test_a_renewal_and_a_chunk_after_the_finish_are_refused(api: Api) -> None:
    """The attempt is over: its GPU stays free and its log as it was."""
    job = leased(api)
    api.post("/api/job/progress", log={"offset": 0, "data": "YQ=="}, **lease_of(job))
    api.finish(job, 1.0)
    api.post("/api/job/renew", 409, **lease_of(job))
    api.post("/api/job/progress", 409, log={"offset": 1, "data": "Yg=="}, **lease_of(job))
    found = api.get(f"/api/experiment/{job['experiment_id']}")
    assert (found["lease"], found["status"]) == (None, "keep")
    assert api.http.get(f"/api/experiment/{job['experiment_id']}/log").content == b"a"
    assert api.get("/api/pool/list")["idle"] == 2


def test_a_claim_sent_many_times_at_once_is_one_claim(api: Api) -> None:
    """One claim_id, eight callers: one job, one attempt, the other jobs stay in the queue."""
    api.tag()
    api.gpu()
    for source in "123":
        api.submit(source)
    body = {"gpu_id": "gpu-0", "claim_id": "one-claim"}
    answers = at_once(lambda _: api.http.post("/api/job/claim", json=body))
    jobs = {answer.json()["job"]["experiment_id"] for answer in answers}
    assert len(jobs) == 1
    assert len(api.get(f"/api/experiment/{jobs.pop()}")["attempts"]) == 1
    history = api.get("/api/experiment/history", tag="mar11", status="queued")
    assert history["total"] == 2


def test_a_hand_back_after_the_verdict_requeues_nothing(api: Api) -> None:
    """A drain whose report overtook the result's, or came twice: the verdict stands."""
    job = leased(api)
    verdict = api.finish(job, 1.0)["verdict"]
    for outcome in ("handed_back", "lost"):
        assert api.finish(job, outcome=outcome)["verdict"] == verdict
    assert api.claim("gpu-1") is None
    assert decided(api) == [job["experiment_id"]]
