"""The queue and the lease protocol over HTTP: submit, claim, renew, progress, finish, cancel."""

import base64
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WOKEN_SECONDS, Api, MakeApi, eventually, lease_of

SOURCE = "print('hello')\n"
DATA = "d" * 64


def test_a_submitted_source_is_leased_trained_and_decided(api: Api) -> None:
    """The way of one experiment: queued, claimed with epoch 1, finished, kept."""
    api.tag()
    experiment_id = api.submit(SOURCE)
    assert api.get(f"/api/experiment/{experiment_id}")["position"] == 1
    api.gpu()
    job = api.claim()
    assert (job["experiment_id"], job["epoch"], job["seed"]) == (experiment_id, 1, 42)
    assert job["train_py"] == SOURCE
    assert job["time_budget_seconds"] == 300
    lease = lease_of(job)
    answer = api.post("/api/job/renew", health={"temperature_c": 61}, **lease)
    assert answer == {"ok": True, "cancel": False, "gpu_known": True}
    assert api.get("/api/gpu/gpu-0/health")["temperature_c"] == 61  # it was a heartbeat too
    answer = api.finish(job, 0.9, environment={"gpu_name": "Test GPU", "torch_version": "2.15"})
    assert answer["verdict"]["status"] == "keep"
    detail = api.get(f"/api/experiment/{experiment_id}")
    assert (detail["status"], detail["gpu_id"], detail["lease"]) == ("keep", "gpu-0", None)
    assert detail["environment"]["torch_version"] == "2.15"
    assert [a["outcome"] for a in detail["attempts"]] == ["completed"]
    assert detail["verdict"] == answer["verdict"]
    assert api.get("/api/pool/list")["idle"] == 1
    assert api.http.get(f"/api/experiment/{experiment_id}/train.py").text == SOURCE


def test_prepare_py_is_pinned_at_setup_and_served_by_its_hash(
    make_api: MakeApi, tmp_path: Path
) -> None:
    """A tag's jobs name the prepare.py that the orchestrator had when the tag was made."""
    prepare_py = tmp_path / "prepare.py"
    prepare_py.write_text("METRIC = 1\n")
    api = make_api(prepare_py=prepare_py)
    api.tag()
    prepare_py.write_text("METRIC = 2\n")
    api.submit(SOURCE)
    api.gpu()
    sha256 = api.claim()["prepare_sha256"]
    assert api.http.get(f"/api/prepare/{sha256}").text == "METRIC = 1\n"
    api.get(f"/api/prepare/{'0' * 64}", 404)


def test_jobs_leave_in_order_of_priority_and_then_of_arrival(api: Api) -> None:
    api.tag()
    api.tag("other")
    first = api.submit("1")
    second = api.submit("2", tag="other")
    urgent = api.submit("3", priority=5)
    late = api.submit("4", priority=-5)
    api.gpu()
    order = []
    for _ in range(4):
        job = api.claim()
        order.append(job["experiment_id"])
        api.finish(job, 1.0)
    assert order == [urgent, first, second, late]
    assert api.claim() is None


def test_a_waiting_claim_gets_a_job_as_soon_as_it_is_queued(
    api: Api, no_look_unwoken: None
) -> None:
    """The long poll ends with the job, long before its time is up."""
    api.tag()
    api.gpu()
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.append(api.claim(wait=20)))
    waiter.start()
    time.sleep(0.3)
    started = time.monotonic()
    experiment_id = api.submit(SOURCE)
    waiter.join()
    assert found[0]["experiment_id"] == experiment_id
    assert time.monotonic() - started < WOKEN_SECONDS, "it was not woken"


def test_a_gpu_that_could_not_take_a_job_is_woken_again_once_it_is_free(
    api: Api, no_look_unwoken: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.services.core.jobs.BUSY_LOOK_SECONDS", 0.2)
    api.tag()
    api.gpu()
    holder = api.register()
    api.post("/api/pool/acquire", experiment_id=holder)
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.append(api.claim(wait=20)))
    waiter.start()
    time.sleep(0.3)
    missed = api.submit("1")
    time.sleep(0.3)  # it wakes the claim, which gets nothing
    api.post(f"/api/experiment/{missed}/cancel", reason="not now")
    api.post("/api/pool/release", gpu_id="gpu-0", experiment_id=holder)
    time.sleep(1)  # it looks, and finds nothing
    started = time.monotonic()
    experiment_id = api.submit("2")
    waiter.join()
    assert found[0]["experiment_id"] == experiment_id
    assert time.monotonic() - started < WOKEN_SECONDS, "it was not woken"


def test_a_claim_sent_again_gets_the_same_job_and_another_none(api: Api) -> None:
    """A lost answer costs nothing; a GPU with a lease gets no second job."""
    api.tag()
    api.submit("1")
    api.submit("2")
    api.gpu()
    job = api.claim(claim_id="the-same-claim")
    assert api.claim(claim_id="the-same-claim") == job
    assert api.claim() is None


def test_the_same_source_and_seed_runs_once_unless_a_repeat_is_asked_for(api: Api) -> None:
    api.tag()
    first = api.submit(SOURCE)
    answer = api.post("/api/experiment/submit", 409, tag="mar11", hypothesis="h", train_py=SOURCE)
    assert answer["existing"] == first
    api.submit(SOURCE, seed=43)
    api.submit(SOURCE, repeat=True)
    api.tag("other")
    api.submit(SOURCE, tag="other")


def test_a_cancelled_run_leaves_its_source_to_the_repeats_that_ran(api: Api) -> None:
    """The source is free again only when no run of it is left."""
    api.tag()
    api.gpu()
    original = api.submit(SOURCE)
    repeat = api.submit(SOURCE, repeat=True, priority=1)
    api.finish(api.claim(), 1.0)
    api.post(f"/api/experiment/{original}/cancel")
    body = {"tag": "mar11", "hypothesis": "h", "train_py": SOURCE}
    assert api.post("/api/experiment/submit", 409, **body)["existing"] == repeat
    only = api.submit(SOURCE, seed=7)
    api.post(f"/api/experiment/{only}/cancel")
    api.submit(SOURCE, seed=7)


def test_a_source_that_cannot_run_is_refused_with_its_line(api: Api) -> None:
    api.tag()
    body = {"tag": "mar11", "hypothesis": "h"}
    answer = api.post("/api/experiment/submit", 422, train_py="x = 1\ndef f(:\n", **body)
    assert f"(read as Python {sys.version_info.major}.{sys.version_info.minor})" in answer["error"]
    assert "line 2" in answer["error"]
    api.post("/api/experiment/submit", 422, train_py="a\0b", **body)
    api.post("/api/experiment/submit", 422, train_py="", **body)
    api.post("/api/experiment/submit", 422, **body)
    api.post("/api/experiment/submit", 422, train_py="(" * 5000, **body)
    api.post("/api/experiment/submit", 422, train_py="return 1", **body)
    huge = "#" * (1024 * 1024 + 1)
    assert "limit" in api.post("/api/experiment/submit", 413, train_py=huge, **body)["error"]
    api.submit("#" * (1024 * 1024))
    assert api.get("/api/experiment/history", tag="mar11")["total"] == 1


def test_a_stale_epoch_changes_nothing(make_api: MakeApi) -> None:
    """A lease that died is requeued with a new epoch; the old one's report gets 409."""
    api = make_api(lease_seconds=0.5)
    api.tag()
    experiment_id = api.submit(SOURCE)
    api.gpu()
    api.gpu("gpu-1", 1)
    old = api.claim("gpu-0")
    assert api.claim("gpu-1") is None
    new = api.claim("gpu-1", wait=20)
    assert (new["experiment_id"], new["epoch"]) == (experiment_id, 2)
    lost = api.finish(old, 0.5, 409)
    assert "Epoch 1" in lost["error"]
    api.post("/api/job/renew", 409, **lease_of(old))
    assert api.finish(new, 0.9)["verdict"]["val_bpb"] == 0.9
    api.finish(old, 0.5, 409)
    attempts = api.get(f"/api/experiment/{experiment_id}")["attempts"]
    assert [(a["epoch"], a["outcome"]) for a in attempts] == [(1, "expired"), (2, "completed")]


def test_a_run_lost_three_times_ends_as_infra_lost_and_counts_in_no_rate(api: Api) -> None:
    api.tag()
    experiment_id = api.submit(SOURCE)
    api.gpu()
    statuses = [api.finish(api.claim(), outcome="lost")["status"] for _ in range(3)]
    assert statuses == ["queued", "queued", "crash"]
    detail = api.get(f"/api/experiment/{experiment_id}")
    assert (detail["status"], detail["reason"]) == ("crash", "infra_lost")
    stats = api.get("/api/report/summary", tag="mar11")["stats"]
    assert (stats["total"], stats["infra_lost"], stats["keep_rate"]) == (1, 1, 0)
    assert api.crash(api.register())["consecutive_crashes"] == 1
    api.submit(SOURCE)  # it never had its run, so it is no duplicate


def test_a_handed_back_run_is_no_loss(api: Api) -> None:
    api.tag()
    api.submit(SOURCE)
    api.gpu()
    for _ in range(5):
        assert api.finish(api.claim(), outcome="handed_back")["status"] == "queued"
    assert api.finish(api.claim(), 1.0)["status"] == "keep"


def test_a_timeout_counts_as_a_crash(api: Api) -> None:
    api.tag()
    experiment_id = api.submit(SOURCE)
    api.gpu()
    verdict = api.finish(api.claim(), outcome="timeout", error="no result in time")["verdict"]
    assert (verdict["status"], verdict["consecutive_crashes"]) == ("timeout", 1)
    assert api.get("/api/report/tsv", tag="mar11")["tsv"].endswith("0.000000\t0.0\tcrash\th")
    stats = api.get("/api/report/summary", tag="mar11")["stats"]
    assert (stats["crashed"], stats["timed_out"]) == (1, 1)
    history = api.get("/api/experiment/history", tag="mar11", status="timeout")
    assert [e["id"] for e in history["experiments"]] == [experiment_id]


def test_cancel_removes_a_queued_run_and_asks_the_worker_of_a_running_one(api: Api) -> None:
    api.tag()
    queued, running = api.submit("1", priority=-1), api.submit("2")
    answer = api.post(f"/api/experiment/{queued}/cancel")
    assert (answer["status"], answer["cancelling"]) == ("cancelled", False)
    api.gpu()
    job = api.claim()
    assert job["experiment_id"] == running
    assert api.post(f"/api/experiment/{running}/cancel")["cancelling"]
    lease = lease_of(job)
    assert api.post("/api/job/renew", **lease)["cancel"]
    assert api.finish(job, outcome="cancelled")["status"] == "cancelled"
    summary = api.get("/api/report/summary", tag="mar11")
    assert (summary["stats"]["total"], summary["categories"]) == (0, {})
    assert api.get("/api/report/tsv", tag="mar11")["count"] == 0
    assert api.post(f"/api/experiment/{running}/cancel")["status"] == "cancelled"


def test_a_report_by_hand_on_a_leased_or_queued_run_is_a_conflict(api: Api) -> None:
    api.tag()
    experiment_id = api.submit(SOURCE)
    body = {"experiment_id": experiment_id, "val_bpb": 0.1}
    api.post("/api/experiment/complete", 409, **body)
    api.gpu()
    api.claim()
    api.post("/api/experiment/complete", 409, **body)
    api.post("/api/experiment/crash", 409, experiment_id=experiment_id, error="x")


def test_wait_answers_with_the_verdict_or_with_where_it_stands(
    api: Api, no_look_unwoken: None
) -> None:
    api.tag()
    experiment_id = api.submit(SOURCE)
    path = f"/api/experiment/{experiment_id}/wait"
    assert api.get(path, 202, timeout=0.1)["status"] == "queued"
    api.gpu()
    job = api.claim()
    timer = threading.Timer(0.3, lambda: api.finish(job, 0.9))
    timer.start()
    started = time.monotonic()
    assert api.get(path, timeout=20)["verdict"]["status"] == "keep"
    assert time.monotonic() - started < WOKEN_SECONDS, "it was not woken"
    timer.join()
    again = api.http.post(
        "/api/experiment/submit?wait=0.2",
        json={"tag": "mar11", "hypothesis": "h", "train_py": "2"},
    )
    assert (again.status_code, again.json()["status"]) == (202, "queued")


def test_logs_are_kept_by_offset_and_served_by_range(api: Api) -> None:
    """Chunks sent twice or out of order make one log, live and after its end."""
    api.tag()
    experiment_id = api.submit(SOURCE)
    api.gpu()
    job = api.claim()
    lease = lease_of(job)

    def send(offset: int, data: bytes) -> None:
        chunk = {"offset": offset, "data": base64.b64encode(data).decode()}
        api.post("/api/job/progress", log=chunk, **lease)

    send(0, b"hello ")
    send(6, b"\xff\x1b[31mworld")
    send(0, b"hello ")
    whole = b"hello \xff\x1b[31mworld"
    url = f"/api/experiment/{experiment_id}/log"
    assert api.http.get(url).content == whole
    api.finish(job, 0.9)
    eventually(lambda: list(api.settings.paths.home.rglob("*.log.gz")))
    assert api.http.get(url).content == whole
    part = api.http.get(url, headers={"range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"llo")
    assert part.headers["content-range"] == f"bytes 2-4/{len(whole)}"
    assert api.http.get(url, headers={"range": "bytes=-5"}).content == b"world"
    assert api.http.get(url, headers={"range": "bytes=99-"}).status_code == 416


def test_the_log_of_an_attempt_that_expired_is_compressed_too(make_api: MakeApi) -> None:
    """Its worker never reports, so nobody else would close it."""
    api = make_api(lease_seconds=0.5)
    api.tag()
    experiment_id = api.submit(SOURCE)
    api.gpu()
    api.gpu("gpu-1", 1)
    lease = lease_of(api.claim())
    chunk = {"offset": 0, "data": base64.b64encode(b"its last words").decode()}
    api.post("/api/job/progress", log=chunk, **lease)
    assert api.claim("gpu-1", wait=20)["epoch"] == 2
    closed = api.settings.paths.closed_log("mar11", experiment_id, 1)
    live = api.settings.paths.live_log("mar11", experiment_id, 1)
    eventually(lambda: closed.exists() and not live.exists())
    log = api.http.get(f"/api/experiment/{experiment_id}/log", params={"attempt": 1})
    assert log.content == b"its last words"


def test_a_log_chunk_that_is_no_base64_is_refused(api: Api) -> None:
    api.tag()
    api.submit(SOURCE)
    api.gpu()
    job = api.claim()
    lease = lease_of(job)
    api.post("/api/job/progress", 422, log={"offset": 0, "data": "no base64!"}, **lease)


def test_a_loss_that_no_chart_can_show_is_left_out_of_the_curve(api: Api) -> None:
    """The rest of the curve stays: between such a loss and another lies infinity."""
    api.tag()
    api.gpu()
    experiment_id = api.submit(SOURCE)
    job = api.claim()
    losses = (3.0, -1e308, 1e308, 2.0)
    curve = [{"step": n, "percent": n, "loss": loss} for n, loss in enumerate(losses)]
    api.finish(job, 0.9, curve=curve)
    assert api.get(f"/api/experiment/{experiment_id}")["curve"] == [curve[0], curve[3]]


def test_the_curve_is_replaced_whole(api: Api) -> None:
    api.tag()
    experiment_id = api.submit(SOURCE)
    api.gpu()
    job = api.claim()
    lease = lease_of(job)
    curve = [{"step": i, "percent": i / 2, "loss": 9.0 - i} for i in range(3)]
    api.post("/api/job/progress", curve=curve[:2], **lease)
    assert api.get(f"/api/experiment/{experiment_id}")["curve"] == curve[:2]
    api.finish(job, 0.9, curve=curve)
    assert api.get(f"/api/experiment/{experiment_id}")["curve"] == curve


@pytest.mark.parametrize(
    "other",
    [{"profile": "80gb", "data_sha256": DATA}, {"profile": "cpu", "data_sha256": "e" * 64}],
    ids=["profile", "data"],
)
def test_a_tag_is_bound_to_the_profile_and_the_data_of_its_first_run(
    api: Api, other: dict[str, str]
) -> None:
    """A worker with others is not given its jobs, since their results would not compare."""
    api.tag()
    for text in "123":
        api.submit(text)
    api.gpu("small", profile="cpu", data_sha256=DATA)
    api.gpu("big", 1, **other)
    api.finish(api.claim("small"), 1.0)
    assert api.claim("big") is None
    assert api.claim("small") is not None
    assert api.get("/api/report/tags")["tags"][0]["profile"] == "cpu"


def test_a_verdict_says_if_the_saved_model_was_measured_once_more(api: Api) -> None:
    """A worker learns at its claim what to beat, and measures twice what may have done so."""
    api.tag()
    api.gpu()
    first = api.submit("1")
    job = api.claim()
    assert job["best_val_bpb"] is None
    verdict = api.finish(job, 1.0, verified_bpb=1.0001)["verdict"]
    assert (verdict["status"], verdict["verified"]) == ("keep", True)
    assert api.get(f"/api/experiment/{first}")["verified_bpb"] == 1.0001
    assert api.post("/api/experiment/best", tag="mar11")["best"]["verified"] is True
    api.submit("2")
    job = api.claim()
    assert job["best_val_bpb"] == 1.0
    assert api.finish(job, 0.9)["verdict"]["verified"] is False
    assert api.post("/api/experiment/best", tag="mar11")["best"]["verified"] is False


def test_a_tag_that_is_bound_to_a_profile_alone_takes_any_data(api: Api) -> None:
    """As an older version bound it: its search goes on."""
    api.tag()
    for text in "12":
        api.submit(text)
    api.gpu("old", profile="cpu")
    api.finish(api.claim("old"), 1.0)
    api.gpu("new", 1, profile="cpu", data_sha256=DATA)
    assert api.claim("new") is not None


def test_the_diff_is_from_parent_to_child(api: Api) -> None:
    api.tag()
    parent = api.submit("a = 1\nb = 2\n")
    api.gpu()
    api.finish(api.claim(), 1.0)
    child = api.submit("a = 1\nb = 3")
    assert api.get(f"/api/experiment/{child}")["parent_id"] == parent
    for against in ({}, {"against": parent}, {"against": "best"}):
        text = api.http.get(f"/api/experiment/{child}/diff", params=against).text
        assert "-b = 2\n+b = 3\n" in text
    api.get(f"/api/experiment/{parent}/diff", 404)


def test_jobs_wait_for_a_gpu_that_is_fit(api: Api) -> None:
    """A GPU that is draining, quarantined or has a problem claims nothing, and shows why."""
    api.tag()
    api.submit(SOURCE)
    api.gpu()
    for flags in ({"problem": "disk full"}, {"quarantined": True}, {"draining": True}):
        api.post("/api/pool/heartbeat", gpu_id="gpu-0", **flags)
        assert api.claim() is None
    statuses = []
    for flags in ({"problem": "disk full"}, {"quarantined": True}, {"draining": True}, {}):
        api.post("/api/pool/heartbeat", gpu_id="gpu-0", **flags)
        worker = api.get("/api/pool/list")["workers"][0]
        statuses.append((worker["status"], worker["problem"]))
    assert statuses == [
        ("unfit", "disk full"), ("quarantined", None), ("draining", None), ("idle", None),
    ]  # fmt: skip
    assert api.claim() is not None


def test_a_job_meant_for_a_gpu_that_leaves_goes_to_another(api: Api) -> None:
    """Nothing is stuck: deregistering puts its jobs into the queue of their tag."""
    api.tag()
    api.gpu("gpu-0", 0)
    api.gpu("gpu-1", 1)
    experiment_id = api.submit(SOURCE)
    api.post("/api/gpu/gpu-1/train", 202, experiment_id=experiment_id)
    assert api.claim("gpu-0") is None
    api.post("/api/pool/deregister", gpu_id="gpu-1")
    assert api.claim("gpu-0")["experiment_id"] == experiment_id


def test_a_directed_job_never_runs_on_a_foreign_profile(api: Api) -> None:
    """The tag was bound to another profile after the job was directed: it goes to that one."""
    api.tag()
    api.gpu("small", 0, profile="cpu")
    api.gpu("big", 1, profile="80gb")
    directed, other = api.submit("1"), api.submit("2")
    api.post("/api/gpu/big/train", 202, experiment_id=directed)
    job = api.claim("small")
    assert job["experiment_id"] == other
    assert api.claim("big") is None
    api.finish(job, 1.0)
    assert api.claim("small")["experiment_id"] == directed


def test_a_gpu_acquired_for_a_run_trains_it_at_once(make_api: MakeApi, tmp_path: Path) -> None:
    """Upstream's order, acquire and then train: the hold becomes the lease."""
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "train.py").write_text(SOURCE)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", str(repo), *words], check=True)
    head = subprocess.run(
        ["git", "-C", str(repo), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    api = make_api(repo=repo)
    api.tag()
    api.gpu()
    experiment_id = api.register(commit_sha=head)
    assert api.post("/api/pool/acquire", experiment_id=experiment_id)["acquired"]
    api.post("/api/gpu/gpu-0/train", 202, experiment_id=experiment_id)
    job = api.claim()
    assert (job["experiment_id"], job["train_py"]) == (experiment_id, SOURCE)


def test_a_misspelt_query_parameter_is_refused(api: Api) -> None:
    api.tag()
    answer = api.post(
        "/api/experiment/submit?wiat=3", 422, tag="mar11", hypothesis="h", train_py="1"
    )
    assert "wiat" in answer["error"]
    assert api.get("/api/experiment/history", tag="mar11")["total"] == 0


def test_why_a_run_was_lost_is_told_in_the_end(api: Api) -> None:
    api.tag()
    experiment_id = api.submit(SOURCE)
    api.gpu()
    for _ in range(3):
        api.finish(api.claim(), outcome="lost", error="prepare.py has another hash")
    assert "another hash" in api.get(f"/api/experiment/{experiment_id}")["error"]


def test_a_report_of_a_loss_sent_again_is_harmless(api: Api) -> None:
    api.tag()
    api.submit(SOURCE)
    api.gpu()
    job = api.claim()
    for _ in range(3):
        assert api.finish(job, outcome="lost")["status"] == "queued"
    assert api.claim()["epoch"] == 2
