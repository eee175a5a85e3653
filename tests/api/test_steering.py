"""Steering over HTTP: pause, notes, requeue, priority, drain, and the ledger of who did what."""

import json
import threading
import time
from typing import Any

import pytest

from tests.conftest import WOKEN_SECONDS, Api, MakeApi, eventually

WHY = {"reason": "because", "by": "Ada"}


def ledger(api: Api, **query: Any) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = api.get("/api/steer/ledger", **query)["entries"]
    return entries


def requeue(api: Api, experiment_id: str, _status: int = 200) -> Any:
    return api.post(f"/api/experiment/{experiment_id}/requeue", _status, **WHY)


def renew(api: Api, job: Any) -> Any:
    lease = {name: job[name] for name in ("experiment_id", "gpu_id", "epoch", "lease_secret")}
    return api.post("/api/job/renew", **lease)


def claim_in_background(api: Api, found: list[Any], gpu_id: str = "gpu-0") -> threading.Thread:
    """A claim in its long poll, which has looked once."""

    def claim() -> None:
        found.append((api.claim(gpu_id, wait=20), time.monotonic()))

    thread = threading.Thread(target=claim)
    thread.start()
    time.sleep(0.3)
    return thread


# ---------------------------------------------------------------------------- pause and resume


def test_a_paused_tag_s_jobs_are_not_claimed_until_it_is_resumed(api: Api) -> None:
    """What runs goes on, what is submitted waits, and other tags are served meanwhile."""
    api.tag()
    api.tag("other")
    for number in range(3):
        api.gpu(f"gpu-{number}", number)
    running = api.submit("1")
    job = api.claim()
    queued = api.submit("2")
    answer = api.post("/api/steer/pause", tag="mar11", **WHY)
    assert (answer["tag"], answer["paused"]) == ("mar11", True)
    assert (answer["pause"]["by"], answer["pause"]["reason"]) == ("Ada", "because")
    api.submit("3")
    assert api.claim("gpu-1") is None
    other = api.submit("4", tag="other")
    assert api.claim("gpu-1")["experiment_id"] == other
    assert renew(api, job)["cancel"] is False
    assert api.finish(job, 1.0)["status"] == "keep"
    assert api.get(f"/api/experiment/{running}")["status"] == "keep"
    answer = api.post("/api/steer/resume", tag="mar11", **WHY)
    assert (answer["paused"], answer["pause"]) == (False, None)
    assert api.claim("gpu-2")["experiment_id"] == queued


def test_a_job_directed_to_a_gpu_waits_with_its_paused_tag(api: Api) -> None:
    """It is passed over, and does not hold up the next one meant for that GPU."""
    api.tag()
    api.tag("other")
    api.gpu()
    api.gpu("gpu-1", 1)
    paused, free = api.submit("1"), api.submit("2", tag="other")
    for experiment_id in (paused, free):
        api.post("/api/gpu/gpu-1/train", 202, experiment_id=experiment_id)
    api.post("/api/steer/pause", tag="mar11", **WHY)
    job = api.claim("gpu-1")
    assert job["experiment_id"] == free
    api.finish(job, 1.0)
    assert api.claim("gpu-1") is None
    api.post("/api/gpu/gpu-1/train", 202, experiment_id=api.submit("3"))
    assert api.claim("gpu-1") is None
    api.post("/api/steer/resume", tag="mar11", **WHY)
    assert api.claim("gpu-1")["experiment_id"] == paused


def test_resuming_wakes_all_claims_that_wait(api: Api, no_look_unwoken: None) -> None:
    api.tag()
    api.post("/api/steer/pause", tag="mar11", **WHY)
    for number in range(2):
        api.gpu(f"gpu-{number}", number)
        api.submit(str(number))
    found: list[Any] = []
    threads = [claim_in_background(api, found, f"gpu-{number}") for number in range(2)]
    assert found == []
    resumed = time.monotonic()
    api.post("/api/steer/resume", tag="mar11", **WHY)
    for thread in threads:
        thread.join()
    assert all(job is not None for job, _ in found)
    assert max(at for _, at in found) - resumed < WOKEN_SECONDS


def test_a_hand_run_of_a_paused_tag_gets_no_gpu_and_is_told_why(api: Api) -> None:
    """One that holds a GPU already keeps it."""
    api.tag()
    api.gpu()
    api.gpu("gpu-1", 1)
    holder = api.register()
    assert api.post("/api/pool/acquire", experiment_id=holder)["gpu_id"] == "gpu-0"
    api.post("/api/steer/pause", tag="mar11", **WHY)
    answer = api.post("/api/pool/acquire", experiment_id=api.register())
    assert (answer["acquired"], answer["reason"]) == (False, "tag 'mar11' is paused")
    assert api.post("/api/pool/acquire", experiment_id=holder)["gpu_id"] == "gpu-0"


def test_that_a_tag_is_paused_shows_wherever_it_is_shown(api: Api) -> None:
    """List of tags, summary, suggest, metrics; and nothing is left of it after the resume."""
    api.tag()
    api.post("/api/steer/pause", tag="mar11", **WHY)
    [tag] = api.get("/api/report/tags")["tags"]
    summary = api.get("/api/report/summary", tag="mar11")
    suggestion = api.get("/api/search/suggest", tag="mar11")
    assert [shown["paused"] for shown in (tag, summary, suggestion)] == [True] * 3
    assert tag["pause"] == summary["pause"]
    assert tag["pause"]["reason"] == "because"
    assert "paused" in " ".join(suggestion["suggestions"])
    assert 'autoresearch_tag_paused{tag="mar11"} 1.0' in api.http.get("/metrics").text
    api.post("/api/steer/resume", tag="mar11", **WHY)
    [tag] = api.get("/api/report/tags")["tags"]
    assert (tag["paused"], tag["pause"]) == (False, None)
    assert not api.get("/api/search/suggest", tag="mar11")["paused"]
    assert 'autoresearch_tag_paused{tag="mar11"} 0.0' in api.http.get("/metrics").text


def test_what_changes_nothing_is_answered_and_not_recorded(api: Api) -> None:
    """The first pause counts, with its reason; a resume of what runs is no event."""
    api.tag()
    api.gpu()
    first = api.post("/api/steer/pause", tag="mar11", **WHY)
    assert api.post("/api/steer/pause", tag="mar11", reason="another", by="Bob") == first
    api.post("/api/steer/resume", tag="mar11", **WHY)
    assert api.post("/api/steer/resume", tag="mar11", **WHY)["paused"] is False
    drained = api.post("/api/pool/drain", gpu_id="gpu-0", **WHY)
    assert api.post("/api/pool/drain", gpu_id="gpu-0", reason="another") == drained
    api.post("/api/pool/undrain", gpu_id="gpu-0", **WHY)
    api.post("/api/pool/undrain", gpu_id="gpu-0", **WHY)
    assert [e["action"] for e in ledger(api)] == ["undrain", "drain", "resume", "pause"]


# ---------------------------------------------------------------------------- requeue


def test_a_running_run_that_is_requeued_goes_back_to_its_old_place(api: Api) -> None:
    """Its worker is asked to stop it, the attempt says why it ended, and no loss is counted."""
    api.tag()
    api.gpu()
    first, second = api.submit("1"), api.submit("2")
    for epoch in (1, 2, 3, 4):  # more often than a run may be lost
        job = api.claim()
        assert (job["experiment_id"], job["epoch"]) == (first, epoch)
        answer = requeue(api, first)
        assert (answer["requeueing"], answer["status"]) == (True, "running")
        assert api.get(f"/api/experiment/{first}")["stopping"] == "requeue"
        assert renew(api, job)["cancel"] is True
        assert api.finish(job, outcome="cancelled")["status"] == "queued"
        detail = api.get(f"/api/experiment/{first}")
        assert (detail["status"], detail["position"], detail["stopping"]) == ("queued", 1, None)
    assert [a["outcome"] for a in detail["attempts"]] == ["requeued"] * 4
    assert api.get(f"/api/experiment/{second}")["position"] == 2
    assert api.finish(api.claim(), 1.0)["status"] == "keep"


def test_a_report_that_a_requeued_run_was_stopped_may_come_twice(api: Api) -> None:
    """While it waits again, and when it is trained again."""
    api.tag()
    api.gpu()
    experiment_id = api.submit("1")
    old = api.claim()
    requeue(api, experiment_id)
    for _ in range(2):
        assert api.finish(old, outcome="cancelled")["status"] == "queued"
    new = api.claim()
    api.finish(old, outcome="cancelled", _status=409)
    assert renew(api, new)["cancel"] is False
    assert api.finish(new, 1.0)["status"] == "keep"


def test_a_run_that_ends_before_its_worker_hears_of_the_requeue_is_decided(api: Api) -> None:
    """A result stands; another one needs another request."""
    api.tag()
    api.gpu()
    experiment_id = api.submit("1")
    job = api.claim()
    requeue(api, experiment_id)
    assert api.finish(job, 1.0)["status"] == "keep"
    assert api.get(f"/api/experiment/{experiment_id}")["stopping"] is None
    assert requeue(api, experiment_id)["repeat_of"] == experiment_id


@pytest.mark.parametrize("outcome", ["lost", "handed_back"])
def test_a_requeued_run_whose_worker_fails_or_leaves_is_no_loss(api: Api, outcome: str) -> None:
    """Even the last loss that a run may have does not end one that a person wants back."""
    api.tag()
    api.gpu()
    experiment_id = api.submit("1")
    for _ in range(2):
        assert api.finish(api.claim(), outcome="lost")["status"] == "queued"
    job = api.claim()
    requeue(api, experiment_id)
    assert api.finish(job, outcome=outcome)["status"] == "queued"
    job = api.claim()
    assert renew(api, job)["cancel"] is False
    assert api.finish(job, outcome="lost")["verdict"]["reason"] == "infra_lost"


def test_a_requeued_run_whose_worker_died_comes_back_with_its_lease(make_api: MakeApi) -> None:
    api = make_api(lease_seconds=0.5)
    api.tag()
    api.gpu()
    experiment_id = api.submit("1")
    api.claim()
    requeue(api, experiment_id)
    eventually(lambda: api.get(f"/api/experiment/{experiment_id}")["status"] == "queued")
    job = api.claim()
    assert job["epoch"] == 2
    assert renew(api, job)["cancel"] is False


def test_what_is_asked_last_counts(api: Api) -> None:
    """A cancel that is thought better of, and a requeue too."""
    api.tag()
    api.gpu()
    experiment_id = api.submit("1")
    job = api.claim()
    api.post(f"/api/experiment/{experiment_id}/cancel", **WHY)
    requeue(api, experiment_id)
    assert api.finish(job, outcome="cancelled")["status"] == "queued"
    job = api.claim()
    requeue(api, experiment_id)
    api.post(f"/api/experiment/{experiment_id}/cancel", **WHY)
    assert api.finish(job, outcome="cancelled")["status"] == "cancelled"


def test_a_decided_run_that_is_requeued_is_repeated_under_a_new_id(api: Api) -> None:
    """Idea, parent, source, seed and priority are kept; the first verdict stands."""
    api.tag()
    api.gpu()
    parent = api.submit("1")
    api.finish(api.claim(), 1.0)
    first = api.submit("2", priority=3, seed=7, category="attention", diff_summary="d")
    api.finish(api.claim(), 0.9)
    api.submit("3")
    answer = requeue(api, first)
    assert (answer["status"], answer["requeueing"]) == ("queued", False)
    assert (answer["repeat_of"], answer["position"]) == (first, 1)
    old, new = (api.get(f"/api/experiment/{i}") for i in (first, answer["experiment_id"]))
    assert new["id"] != first
    assert (new["repeat_of"], new["parent_id"]) == (first, parent)
    for name in ("hypothesis", "category", "diff_summary", "source_sha256", "seed", "priority"):
        assert new[name] == old[name], name
    assert (old["status"], new["status"], new["val_bpb"]) == ("keep", "queued", None)
    duplicate = api.post(
        "/api/experiment/submit", 409, tag="mar11", hypothesis="h", train_py="2", seed=7
    )
    assert duplicate["existing"] == first
    assert api.claim()["experiment_id"] == new["id"]


def test_what_cannot_be_requeued_is_refused_with_the_reason(api: Api) -> None:
    api.tag()
    queued, by_hand, reported = api.submit("1"), api.register(), api.register()
    api.complete(reported, 1.0)
    assert "in the queue already" in requeue(api, queued, 409)["error"]
    assert "by hand" in requeue(api, by_hand, 409)["error"]
    assert "submit it" in requeue(api, reported, 409)["error"]
    requeue(api, "exp-00000000000001-mar11", 404)
    assert ledger(api) == []


# ---------------------------------------------------------------------------- priority


def test_another_priority_is_another_place_in_the_queue(api: Api) -> None:
    """Among equals arrival counts still: back at its old priority it stands where it stood."""
    api.tag()
    ids = [api.submit(str(number)) for number in range(4)]

    def order() -> list[str]:
        places = {api.get(f"/api/experiment/{i}")["position"]: i for i in ids}
        return [places[place] for place in sorted(places)]

    def prioritise(number: int, priority: int) -> int:
        path = f"/api/experiment/{ids[number]}/priority"
        answer = api.post(path, priority=priority, **WHY)
        assert answer["priority"] == priority
        return int(answer["position"])

    assert prioritise(2, 5) == 1
    assert order() == [ids[2], ids[0], ids[1], ids[3]]
    assert prioritise(0, -1000) == 4
    assert prioritise(3, 1000) == 1
    assert prioritise(3, 0) == 3
    assert order() == [ids[2], ids[1], ids[3], ids[0]]
    prioritise(0, 0)
    prioritise(2, 0)
    assert order() == ids
    api.gpu()
    prioritise(3, 1)
    assert api.claim()["experiment_id"] == ids[3]
    assert ledger(api)[0]["outcome"] == "0 -> 1"


def test_the_priority_of_what_is_not_in_the_queue_is_a_conflict(api: Api) -> None:
    api.tag()
    api.gpu()
    running, by_hand = api.submit("1"), api.register()
    job = api.claim()

    def refused(experiment_id: str, status: int = 409) -> str:
        path = f"/api/experiment/{experiment_id}/priority"
        return str(api.post(path, status, priority=1, **WHY)["error"])

    assert "it runs" in refused(running)
    assert "by hand" in refused(by_hand)
    api.finish(job, 1.0)
    assert "requeue it" in refused(running)
    refused("exp-00000000000001-mar11", 404)


# ---------------------------------------------------------------------------- GPUs


def test_a_drained_gpu_ends_its_run_and_gets_no_other(api: Api) -> None:
    """Neither by claim nor by hand, until it is undrained."""
    api.tag()
    api.gpu()
    api.submit("1")
    waiting = api.submit("2")
    job = api.claim()
    answer = api.post("/api/pool/drain", gpu_id="gpu-0", **WHY)
    assert (answer["draining"], answer["drain"]["by"]) == (True, "Ada")
    assert renew(api, job)["cancel"] is False
    assert api.finish(job, 1.0)["status"] == "keep"
    assert api.claim() is None
    assert not api.post("/api/pool/acquire", experiment_id=api.register())["acquired"]
    pool = api.get("/api/pool/list")
    [worker] = pool["workers"]
    assert (worker["status"], worker["drain"]["reason"], pool["idle"]) == ("draining", "because", 0)
    assert api.post("/api/pool/undrain", gpu_id="gpu-0", **WHY)["draining"] is False
    assert api.get("/api/pool/list")["workers"][0]["status"] == "idle"
    assert api.claim()["experiment_id"] == waiting


def test_a_drain_outlives_its_worker(api: Api) -> None:
    """Registered again, gone and come back, with heartbeats that know nothing of it."""
    api.tag()
    api.gpu(boot_id="one")
    api.post("/api/pool/drain", gpu_id="gpu-0", **WHY)
    api.gpu(boot_id="two")
    api.post("/api/pool/heartbeat", gpu_id="gpu-0", draining=False)
    api.submit("1")
    assert api.claim() is None
    api.post("/api/pool/deregister", gpu_id="gpu-0")
    api.gpu(boot_id="three")
    assert api.claim() is None
    assert api.get("/api/pool/list")["workers"][0]["drain"]["by"] == "Ada"
    api.post("/api/pool/deregister", gpu_id="gpu-0")
    api.post("/api/pool/undrain", gpu_id="gpu-0", **WHY)  # while it is away
    api.gpu(boot_id="four")
    assert api.claim() is not None


def test_undraining_wakes_the_claim_of_that_gpu(api: Api, no_look_unwoken: None) -> None:
    """The job came while it was drained, and woke it in vain."""
    api.tag()
    api.gpu()
    api.post("/api/pool/drain", gpu_id="gpu-0", **WHY)
    found: list[Any] = []
    thread = claim_in_background(api, found)
    api.submit("1")
    time.sleep(0.3)
    assert found == []
    undrained = time.monotonic()
    api.post("/api/pool/undrain", gpu_id="gpu-0", **WHY)
    thread.join()
    [(job, at)] = found
    assert job is not None
    assert at - undrained < WOKEN_SECONDS


def test_an_unknown_gpu_can_be_neither_drained_nor_undrained(api: Api) -> None:
    assert "register" in api.post("/api/pool/drain", 404, gpu_id="nosuch", **WHY)["error"]
    api.post("/api/pool/undrain", 404, gpu_id="nosuch", **WHY)


# ---------------------------------------------------------------------------- notes


def test_notes_reach_agents_with_suggest_newest_first(api: Api) -> None:
    api.tag()
    texts = ["try a wider MLP", 'no more\n\tlearning rates: ü ✓ </b> "quoted" \\n']
    notes = [
        api.post("/api/steer/note", tag="mar11", text=text, by="Ada")["note"] for text in texts
    ]
    assert [note["text"] for note in notes] == texts
    assert api.get("/api/search/suggest", tag="mar11")["notes"] == notes[::-1]
    assert api.get("/api/steer/notes", tag="mar11")["notes"] == notes[::-1]
    api.post("/api/steer/drop-note", tag="mar11", note_id=notes[0]["id"])
    assert api.get("/api/search/suggest", tag="mar11")["notes"] == notes[1:]
    api.post("/api/steer/drop-note", 404, tag="mar11", note_id=notes[0]["id"])
    api.get("/api/steer/notes", 404, tag="nosuch")


def test_a_tag_has_at_most_twenty_notes(api: Api) -> None:
    """One more is refused: no word of a person vanishes unseen."""
    api.tag()
    for number in range(20):
        note = api.post("/api/steer/note", tag="mar11", text=str(number))["note"]
    assert "drop one" in api.post("/api/steer/note", 409, tag="mar11", text="more")["error"]
    api.post("/api/steer/drop-note", tag="mar11", note_id=note["id"])
    api.post("/api/steer/note", tag="mar11", text="x" * 2000)
    assert len(api.get("/api/steer/notes", tag="mar11")["notes"]) == 20


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("text", "a\x1b[31mred", "U+001B"),
        ("text", "a\u202eb", "U+202E"),
        ("text", "a\x00b", "U+0000"),
        ("text", "x" * 2001, "2000"),
        ("text", "  ", "1 character"),
        ("by", "Ada\nBob", "U+000A"),
        ("by", "x" * 65, "64"),
        ("reason", "why\x07", "U+0007"),
        ("reason", "", "1 character"),
    ],
)
def test_text_that_is_not_plain_is_refused_with_what_is_wrong(
    api: Api, field: str, value: str, word: str
) -> None:
    api.tag()
    if field == "text":
        problem = api.post("/api/steer/note", 422, tag="mar11", text=value)
    else:
        problem = api.post("/api/steer/pause", 422, **({"tag": "mar11", **WHY} | {field: value}))
    assert problem["errors"][0]["field"] == field
    assert word in problem["error"]
    assert ledger(api) == []


# ---------------------------------------------------------------------------- the ledger


def test_the_ledger_says_who_did_what_to_what_and_why(api: Api) -> None:
    """One entry an act, newest first; those on GPUs belong to no tag."""
    api.tag()
    api.tag("other")
    api.gpu()
    queued, running = api.submit("1"), api.submit("2", priority=9)
    api.claim()
    api.post("/api/steer/pause", tag="other", **WHY)
    note = api.post("/api/steer/note", tag="mar11", text="look", by="Bob")["note"]["id"]
    api.post(f"/api/experiment/{queued}/priority", priority=4, **WHY)
    api.post(f"/api/experiment/{running}/cancel", **WHY)
    api.post(f"/api/experiment/{queued}/cancel")
    api.post("/api/search/set-strategy", tag="mar11", mode="exploit", reason="r", by="Bob")
    api.post("/api/pool/drain", gpu_id="gpu-0", **WHY)
    again = requeue(api, queued)["experiment_id"]
    entries = ledger(api)
    assert [(e["action"], e["by"], e["tag"], e["target"], e["outcome"]) for e in entries] == [
        ("requeue", "Ada", "mar11", queued, f"repeated as {again}"),
        ("drain", "Ada", None, "gpu-0", "takes no new run"),
        ("set-strategy", "Bob", "mar11", None, "exploit, pinned"),
        ("cancel", "human", "mar11", queued, "cancelled"),
        ("cancel", "Ada", "mar11", running, "its worker was asked to stop it"),
        ("priority", "Ada", "mar11", queued, "0 -> 4"),
        ("note", "Bob", "mar11", note, "left"),
        ("pause", "Ada", "other", None, "paused"),
    ]
    assert entries[6]["reason"] == "look"
    assert [e["at"] for e in entries] == sorted((e["at"] for e in entries), reverse=True)
    assert ledger(api, tag="mar11") == [e for e in entries if e["tag"] == "mar11"]
    api.get("/api/steer/ledger", 404, tag="nosuch")


def test_the_ledger_is_read_page_by_page(api: Api) -> None:
    api.tag()
    for number in range(5):
        api.post("/api/steer/note", tag="mar11", text=str(number))
    read: list[str] = []
    page = api.get("/api/steer/ledger", tag="mar11", limit=2)
    read += [entry["reason"] for entry in page["entries"]]
    api.post("/api/steer/note", tag="mar11", text="meanwhile")
    while page["next_cursor"]:
        page = api.get("/api/steer/ledger", tag="mar11", limit=2, cursor=page["next_cursor"])
        read += [entry["reason"] for entry in page["entries"]]
    assert read == ["4", "3", "2", "1", "0"]
    for cursor in ("yesterday", "0-0", "99999999999999999999-0"):
        api.get("/api/steer/ledger", 422, cursor=cursor)


def test_each_act_is_told_to_those_who_listen(api: Api) -> None:
    """One `steered` event, with what it was about."""
    api.tag()
    api.post("/api/steer/pause", tag="mar11", **WHY)
    [entry] = ledger(api)
    with api.http.stream("GET", "/api/events?tag=mar11&since=0-0") as response:
        lines = response.iter_lines()
        next(line for line in lines if line == "event: steered")
        data = json.loads(next(lines).removeprefix("data: "))
    assert data == {
        "tag": "mar11", "subject": "", "action": "pause", "by": "Ada", "outcome": entry["outcome"],
    }  # fmt: skip


def test_an_act_sent_again_under_its_key_is_one_act(api: Api) -> None:
    api.tag()
    headers = {"idempotency-key": "k"}
    for _ in range(2):
        api.post("/api/steer/note", _headers=headers, tag="mar11", text="once")
    assert len(ledger(api)) == 1
