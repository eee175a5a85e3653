"""Idempotency-Key on every POST: one execution, one answer, whatever happens in between."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest
import redis

from orchestrator import guard
from orchestrator.store import idempotency, keys
from tests.conftest import Api, MakeApi

Body = dict[str, Any]


def requests_of(api: Api) -> dict[str, Body]:
    """For each POST of the service a body that succeeds. The other requests do not disturb it."""
    tag = {"tag": api.tag()}
    for number in range(6):
        api.gpu(f"gpu-{number}", number)
    api.submit("1")
    job = api.claim("gpu-0")
    lease = {name: job[name] for name in ("experiment_id", "gpu_id", "epoch", "lease_secret")}
    hand = [api.register() for _ in range(5)]
    api.complete(hand[0], 1.0)
    assert api.post("/api/pool/acquire", experiment_id=hand[1])["gpu_id"] == "gpu-1"
    why = {"reason": "r"}
    note = api.post("/api/steer/note", **tag, text="t")["note"]["id"]
    words = dict.fromkeys(("hypothesis", "description", "category", "diff_summary"), "x")
    return {
        "/api/experiment/setup": {"tag": "another"},
        "/api/experiment/register": tag | words | {"commit_sha": "abcdef0"},
        "/api/experiment/submit": tag | {"hypothesis": "h", "train_py": "2"},
        "/api/experiment/complete": {"experiment_id": hand[2], "val_bpb": 0.5},
        "/api/experiment/crash": {"experiment_id": hand[3], "error": "boom"},
        "/api/experiment/{experiment_id}/priority": why | {"priority": 3},
        "/api/experiment/{experiment_id}/cancel": {},
        "/api/experiment/{experiment_id}/requeue": why,
        "/api/experiment/history": tag,
        "/api/experiment/best": tag,
        "/api/experiment/near-misses": tag,
        "/api/search/strategy": tag,
        "/api/search/set-strategy": tag | {"mode": "combine", "reason": "r"},
        "/api/search/adapt": tag,
        "/api/search/suggest": tag,
        "/api/search/similar": tag | {"idea": "x"},
        "/api/pool/register": {"gpu_id": "new", "gpu_index": 9, "gpu_name": "x", "vram_mb": 1},
        "/api/pool/heartbeat": {"gpu_id": "gpu-2"},
        "/api/pool/acquire": {"experiment_id": hand[4]},
        "/api/pool/release": {"gpu_id": "gpu-1"},
        "/api/pool/deregister": {"gpu_id": "gpu-3"},
        "/api/gpu/{gpu_id}/train": {"experiment_id": api.submit("3")},
        "/api/gpu/{gpu_id}/health": {},
        "/api/report/summary": tag,
        "/api/report/tsv": tag,
        "/api/report/diff": {"experiment_a": hand[0], "experiment_b": hand[0]},
        "/api/steer/pause": tag | why,
        "/api/steer/resume": tag | why,
        "/api/steer/race": {"tag": api.tag("racing")} | why,
        "/api/steer/note": tag | {"text": "t"},
        "/api/steer/drop-note": tag | {"note_id": note},
        "/api/pool/drain": {"gpu_id": "gpu-5"} | why,
        "/api/pool/undrain": {"gpu_id": "gpu-5"} | why,
        "/api/logout": {},
        "/api/token/revoke": {
            "label": api.post("/api/token/create", role="read")["token"]["label"]
        },
        "/api/job/claim": {"gpu_id": "gpu-4", "claim_id": "a-claim-of-gpu-4"},
        "/api/job/renew": lease,
        "/api/job/progress": lease,
        "/api/job/finish": lease | {"outcome": "lost"},
    }


def state_of(redis_url: str) -> dict[bytes, bytes | None]:
    """Everything in Redis but the stored answers themselves."""
    with redis.Redis.from_url(redis_url) as client:
        prefix = keys.of_all("idem:").encode()
        return {key: client.dump(key) for key in client.scan_iter() if not key.startswith(prefix)}


def test_every_post_acts_once_under_a_key_however_often_it_comes_at_once(
    api: Api, redis_url: str
) -> None:
    """Four at the same moment and one later: one execution, byte-identical answers; the key with
    another body is refused. No route of the service is left out but the one that answers with a
    cookie."""
    requests = requests_of(api)
    described = api.app.openapi()["paths"].items()
    posts = {path for path, verbs in described if "post" in verbs}
    assert set(requests) == posts - guard.NEVER_STORED
    headers = {"idempotency-key": "the-same-key"}
    queued = api.submit("4")
    with ThreadPoolExecutor(4) as callers:
        for path, body in requests.items():
            url = path.format(experiment_id=queued, gpu_id="gpu-5")
            send = partial(api.http.post, url, headers=headers)
            calls = [callers.submit(send, json=body) for _ in range(4)]
            answers = [call.result() for call in calls]
            assert answers[0].status_code < 300, (path, answers[0].text)
            first = [a for a in answers if "idempotency-replayed" not in a.headers]
            assert len(first) == 1, f"{path} was executed {len(first)} times"
            before = state_of(redis_url)
            answers.append(send(json=body))
            assert state_of(redis_url) == before, path
            assert {(a.status_code, a.content) for a in answers} == {
                (first[0].status_code, first[0].content)
            }, path
            refused = send(json=body | {"more": 1})
            assert refused.status_code == 422, path
            assert "used with another body" in refused.json()["error"]


def test_one_key_serves_each_path_for_itself(api: Api) -> None:
    """Callers number their requests as they like; `complete` must not answer for `register`."""
    headers = {"idempotency-key": "1"}
    for path in ("/api/experiment/setup", "/api/search/strategy"):
        answer = api.http.post(path, json={"tag": "mar11"}, headers=headers)
        assert "idempotency-replayed" not in answer.headers


def test_an_answer_of_our_own_failure_is_not_kept(api: Api) -> None:
    """503 while the folder for sources cannot be written; the same request later is served."""
    api.tag()
    sources = api.settings.paths.source("x" * 64).parents[1]
    sources.parent.mkdir(parents=True, exist_ok=True)
    if sources.exists():
        sources.rename(sources.with_name("away"))
    sources.write_text("in the way")
    body = {"tag": "mar11", "hypothesis": "h", "train_py": "1"}
    headers = {"idempotency-key": "k"}
    failed = api.http.post("/api/experiment/submit", json=body, headers=headers)
    assert (failed.status_code, failed.headers["retry-after"]) == (503, "2")
    sources.unlink()
    served = api.http.post("/api/experiment/submit", json=body, headers=headers)
    assert (served.status_code, "idempotency-replayed" in served.headers) == (202, False)


def test_a_refusal_is_replayed_like_any_answer(api: Api) -> None:
    """What was wrong then is the answer to that request, also when it would be right by now."""
    body, headers = {"tag": "mar11"}, {"idempotency-key": "k"}
    first = api.http.post("/api/search/strategy", json=body, headers=headers)
    api.tag()
    again = api.http.post("/api/search/strategy", json=body, headers=headers)
    assert (first.status_code, again.status_code, again.content) == (404, 404, first.content)


def test_a_long_request_keeps_its_key(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A duplicate of a long poll does not start a second one, however long the first one takes."""
    for module in (guard, idempotency):
        monkeypatch.setattr(module, "IN_PROGRESS_SECONDS", 1)
    api.tag()
    body = {"tag": "mar11", "hypothesis": "h", "train_py": "1"}

    def send() -> httpx.Response:
        headers = {"idempotency-key": "k"}
        return api.http.post("/api/experiment/submit?wait=3", json=body, headers=headers)

    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(send)
        time.sleep(1.5)
        second = callers.submit(send)
        assert "idempotency-replayed" in second.result().headers
        assert second.result().content == first.result().content


def test_a_loss_reported_again_harms_nobody_who_has_the_run_by_now(api: Api) -> None:
    """It gets its old answer, although one loss more would end the run."""
    api.tag()
    api.gpu()
    api.submit("1")
    api.finish(api.claim(), outcome="lost")
    job = api.claim()
    lease = {name: job[name] for name in ("experiment_id", "gpu_id", "epoch", "lease_secret")}
    headers = {"idempotency-key": "k"}
    first = api.post("/api/job/finish", _headers=headers, outcome="lost", **lease)
    assert api.settings.redis_url is not None
    with redis.Redis.from_url(api.settings.redis_url.get_secret_value()) as client:
        client.delete(*client.scan_iter(keys.of_all("idem:", "*")))
    now = api.claim()
    assert api.post("/api/job/finish", _headers=headers, outcome="lost", **lease) == first
    api.post("/api/job/finish", 409, outcome="lost", **lease)
    assert api.finish(now, 1.0)["status"] == "keep"


def test_a_loss_reported_again_under_its_key_is_the_same_loss(api: Api) -> None:
    """The third loss ends a run. A second report of the second one must not be taken for it."""
    api.tag()
    api.gpu()
    api.submit("1")
    api.finish(api.claim(), outcome="lost")
    job = api.claim()
    lease = {name: job[name] for name in ("experiment_id", "gpu_id", "epoch", "lease_secret")}
    headers = {"idempotency-key": "k"}
    first = api.post("/api/job/finish", _headers=headers, outcome="lost", **lease)
    assert api.settings.redis_url is not None
    with redis.Redis.from_url(api.settings.redis_url.get_secret_value()) as client:
        client.delete(
            *client.scan_iter(keys.of_all("idem:", "*"))
        )  # it died before it could answer
    assert api.post("/api/job/finish", _headers=headers, outcome="lost", **lease) == first
    assert api.finish(job, outcome="lost") == first, "without a key too"
    assert api.claim()["epoch"] == 3


def stored_answers(api: Api) -> int:
    assert api.settings.redis_url is not None
    with redis.Redis.from_url(api.settings.redis_url.get_secret_value()) as client:
        return sum(client.type(key) == b"string" for key in client.scan_iter("ar:idem:*"))


def test_callers_without_the_token_and_paths_without_a_post_leave_nothing(
    make_api: MakeApi,
) -> None:
    """They would fill Redis, an answer a request."""
    api = make_api(token="0123456789abcdef" * 4)
    paths = {re.sub(r"\{[^}]*\}", "x", getattr(route, "path", "/")) for route in api.app.routes}
    assert len(paths) > 40
    for path in [*paths, "/static/none", "/t/none/none", "/none"]:
        api.http.post(path, json={}, headers={"idempotency-key": "k"})
    assert stored_answers(api) == 0
    api.http.headers["authorization"] = f"Bearer {'0123456789abcdef' * 4}"
    for path in ["/", "/static/none", "/none", "/healthz", "/api/experiment/none"]:
        assert api.http.post(path, json={}, headers={"idempotency-key": "k"}).status_code >= 400
    assert stored_answers(api) == 0
    api.http.post("/api/experiment/setup", json={"tag": "t"}, headers={"idempotency-key": "k"})
    assert stored_answers(api) == 1


def test_a_long_answer_is_made_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a read: what acts answers shortly."""
    api.tag()
    monkeypatch.setattr(guard, "LONGEST_ANSWER", 1000)
    api.register(description="x" * 900)
    for _ in range(2):
        answer = api.http.post(
            "/api/experiment/history", json={"tag": "mar11"}, headers={"idempotency-key": "k"}
        )
        assert (answer.status_code, "idempotency-replayed" in answer.headers) == (200, False)
    assert stored_answers(api) == 0


def test_only_so_many_answers_are_stored_the_newest(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "ANSWERS_KEPT", 10)
    for number in range(25):
        headers = {"idempotency-key": str(number)}
        api.post("/api/experiment/setup", _headers=headers, tag=f"tag{number}")
    assert stored_answers(api) == 10
    for number, replayed in ((24, True), (15, True), (14, False)):
        body, headers = {"tag": f"tag{number}"}, {"idempotency-key": str(number)}
        answer = api.http.post("/api/experiment/setup", json=body, headers=headers)
        assert ("idempotency-replayed" in answer.headers) == replayed
        assert answer.is_success, "its scripts act once all the same"
