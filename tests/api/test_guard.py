"""Who may call, with what body, and what is answered when it cannot be served."""

import gzip
import itertools
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import redis

from orchestrator.settings import Settings
from tests.conftest import Api, MakeApi, redis_server, server_binaries


def test_bare_curl_works_without_a_content_type(api: Api) -> None:
    """`curl -d` says form-urlencoded; the body is read as JSON all the same."""
    done = subprocess.run(
        ["curl", "-sS", "-d", '{"tag": "mar11"}', f"{api.url}/api/experiment/setup"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["branch"] == "autoresearch/mar11"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:3111"},
        {"origin": "null"},
    ],
)
def test_foreign_pages_and_host_names_are_refused(api: Api, headers: dict[str, str]) -> None:
    """Neither a cross-site form nor DNS rebinding reaches a route."""
    response = api.http.post("/api/experiment/setup", json={"tag": "mar11"}, headers=headers)
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"
    assert api.get("/api/report/tags")["tags"] == []


def test_own_pages_links_and_allowed_hosts_pass(make_api: MakeApi) -> None:
    api = make_api(allowed_hosts=("gpu-box",))
    host = api.url.removeprefix("http://")
    for headers in (
        {"origin": f"http://{host}", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
        {"host": "gpu-box:3111"},
        {"host": "localhost"},
        {"host": "[::1]:3111"},
    ):
        assert api.http.get("/api/pool/list", headers=headers).status_code == 200, headers


def test_with_a_token_every_call_needs_it_but_for_the_probes(make_api: MakeApi) -> None:
    api = make_api(token="s3cret")
    assert api.http.get("/healthz").status_code == 200
    assert api.http.get("/readyz").status_code == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret"}):
        response = api.http.get("/api/pool/list", headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    good = {"authorization": "Bearer s3cret"}
    assert api.http.get("/api/pool/list", headers=good).status_code == 200


def test_a_body_over_the_limit_is_refused(api: Api) -> None:
    """10 MB with a length, and without one."""
    body = b'{"tag": "' + b"x" * 10_000_000 + b'"}'
    assert api.http.post("/api/experiment/setup", content=body).status_code == 413
    chunks = (body[i : i + 65536] for i in range(0, len(body), 65536))
    assert api.http.post("/api/experiment/setup", content=chunks).status_code == 413


def test_errors_are_problem_details_with_the_flat_error(api: Api) -> None:
    for response, status, said in (
        (api.http.post("/api/search/strategy", content=b"{not json"), 422, "not JSON"),
        (api.http.post("/api/experiment/setup", json={"tag": ""}), 422, "tag: 1 to 64 letters"),
        (api.http.get("/nosuch"), 404, "there is no /nosuch"),
        (api.http.put("/api/experiment/setup"), 405, "PUT is not for this path: use POST"),
    ):
        problem = response.json()
        assert response.headers["content-type"] == "application/problem+json"
        assert (response.status_code, problem["status"]) == (status, status)
        assert {"type", "title", "status", "detail", "instance", "error"} <= set(problem)
        assert said in problem["error"]


def test_a_path_that_takes_posts_only_says_so_to_a_get(api: Api) -> None:
    """Not even `/api/experiment/submit` is taken for an experiment of that name."""
    described = api.app.openapi()["paths"]
    post_only = [path for path, verbs in described.items() if set(verbs) == {"post"}]
    post_only = [path for path in post_only if "{" not in path]
    assert "/api/experiment/submit" in post_only
    for path in post_only:
        response = api.http.get(path)
        assert (response.status_code, response.headers["allow"]) == (405, "POST"), path
        assert response.json()["error"] == "GET is not for this path: use POST"


def test_an_idempotency_key_replays_the_first_answer_byte_for_byte(api: Api) -> None:
    api.tag()
    body = {"tag": "mar11", "hypothesis": "h", "train_py": "1"}
    headers = {"idempotency-key": "k1"}
    first = api.http.post("/api/experiment/submit", json=body, headers=headers)
    again = api.http.post("/api/experiment/submit", json=body, headers=headers)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert api.get("/api/experiment/history", tag="mar11")["total"] == 1
    other = api.http.post("/api/experiment/submit", json=body | {"seed": 1}, headers=headers)
    assert other.status_code == 422
    assert "Idempotency-Key" in other.json()["error"]


def test_duplicates_at_the_same_moment_act_once(api: Api) -> None:
    """Eight threads, one key: one experiment, eight equal answers."""
    api.tag()
    answers: list[bytes] = []

    def send() -> None:
        response = httpx.post(
            f"{api.url}/api/experiment/submit",
            json={"tag": "mar11", "hypothesis": "h", "train_py": "1"},
            headers={"idempotency-key": "same"},
            timeout=20,
        )
        answers.append(response.content)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert api.get("/api/experiment/history", tag="mar11")["total"] == 1


def test_of_many_setups_at_once_exactly_one_succeeds(make_api: MakeApi) -> None:
    """Two orchestrators on one Redis, sixteen callers."""
    urls = [make_api().url, make_api().url]
    codes: list[int] = []

    def send(i: int) -> None:
        response = httpx.post(f"{urls[i % 2]}/api/experiment/setup", json={"tag": "t"}, timeout=20)
        codes.append(response.status_code)

    threads = [threading.Thread(target=send, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200] + [409] * 15


def test_without_redis_the_answer_is_503_and_it_recovers(make_api: MakeApi, tmp_path: Path) -> None:
    """Nothing is lost: the same orchestrator serves again when Redis is back."""
    folder = tmp_path / "r"
    folder.mkdir()
    binary = server_binaries()[0]
    with redis_server(binary, folder) as url:
        api = make_api(redis_url=url, redis_timeout_seconds=1)
        api.tag()
        experiment_id = api.register()
        assert api.http.get("/readyz").status_code == 200
    response = api.http.post("/api/search/strategy", json={"tag": "mar11"})
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert api.http.get("/healthz").status_code == 200
    assert api.http.get("/readyz").status_code == 503
    with redis_server(binary, folder):
        assert api.complete(experiment_id, 1.0)["status"] == "keep"


def test_events_stream_and_resume_after_the_last_id(api: Api) -> None:
    """What happened during a break is delivered after it, once."""
    api.tag()

    def read(
        count: int, opened: Callable[[], object] = lambda: None, **headers: str
    ) -> list[tuple[str, str]]:
        """So many events; `opened` is called once the stream has said its first word."""
        events: list[tuple[str, str]] = []
        with api.http.stream("GET", "/api/events?tag=mar11", headers=headers) as response:
            event_id = ""
            for line in response.iter_lines():
                if line.startswith("id: "):
                    event_id = line[4:]
                if line == "event: heartbeat":
                    opened()
                if line.startswith("event: ") and line != "event: heartbeat":
                    events.append((event_id, line[7:]))
                    if len(events) == count:
                        break
        return events

    seen = read(1, api.register)
    assert seen[0][1] == "registered"
    api.complete(api.register(), 1.0)
    missed = read(2, **{"last-event-id": seen[0][0]})
    assert [kind for _, kind in missed] == ["registered", "decided"]


def test_metrics_are_prometheus_text(api: Api) -> None:
    api.tag()
    api.gpu()
    api.complete(api.register(), 0.5)
    text = api.http.get("/metrics").text
    assert 'autoresearch_gpus{status="idle"} 1.0' in text
    assert 'autoresearch_best_val_bpb{tag="mar11"} 0.5' in text
    assert 'autoresearch_runs{status="keep",tag="mar11"} 1.0' in text


def test_a_decision_sent_again_under_its_key_tells_what_was_decided(api: Api) -> None:
    """Its answer was never stored (the process died after the decision): the verdict stands."""
    api.tag()
    experiment_id = api.register()
    headers = {"idempotency-key": "k"}
    body = {"experiment_id": experiment_id, "val_bpb": 0.9}
    first = api.http.post("/api/experiment/complete", json=body, headers=headers).json()
    with redis.Redis.from_url(api.settings.redis_url.get_secret_value()) as client:
        for key in client.scan_iter("ar:idem:*"):
            client.delete(key)
    again = api.http.post("/api/experiment/complete", json=body, headers=headers).json()
    assert again == first
    assert again["status"] == "keep"


def test_a_body_that_is_no_utf8_is_422(api: Api) -> None:
    response = api.http.post("/api/experiment/setup", content=b'{"tag": "\xff"}')
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "body"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/api/experiment/submit?wait=1", "enclosed in double quotes at character 16"),
        ("/api/experiment/complete", "trailing comma at line 1 column 17"),
    ],
    ids=["by FastAPI", "by pydantic"],
)
def test_a_body_that_is_no_json_is_told_where_it_breaks(api: Api, path: str, words: str) -> None:
    answer = api.http.post(path, content=b'{"tag": "mar11",}')
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("body: not JSON: ")
    assert words in answer.json()["error"]


@pytest.mark.parametrize("path", ["/api/experiment/setup", "/api/experiment/submit?wait=1"])
@pytest.mark.parametrize(
    ("encode", "words"),
    [
        (lambda text: text.encode("utf-8-sig"), "byte order mark (BOM)"),
        (lambda text: text.encode("utf-16"), "UTF-16"),
        (lambda text: text.encode("utf-16-le"), "UTF-16"),
        (lambda text: text.encode("utf-16-be"), "UTF-16"),
        (lambda text: text.encode("utf-32"), "UTF-32"),
        (lambda text: gzip.compress(text.encode()), "compressed (gzip)"),
    ],
    ids=["BOM", "UTF-16", "UTF-16-LE", "UTF-16-BE", "UTF-32", "gzip"],
)
def test_a_body_in_another_encoding_is_named(
    api: Api, path: str, encode: Callable[[str], bytes], words: str
) -> None:
    """PowerShell writes the first ones; the parser's "expected value at column 1" helps nobody."""
    response = api.http.post(path, content=encode('{"tag": "mar11"}'))
    assert response.status_code == 422
    assert words in response.json()["error"]
    assert response.json()["errors"][0]["field"] == "body"


def test_a_compressed_body_is_named_by_its_header(api: Api) -> None:
    """Whatever the compression is."""
    headers = {"content-encoding": "br"}
    answer = api.http.post("/api/experiment/setup", content=b"\x8b\x02", headers=headers).json()
    assert "compressed (br)" in answer["error"]


def test_a_resumed_stream_that_missed_nothing_goes_on(api: Api) -> None:
    """The id of the latest event is no reason to wait without end or to stop."""
    api.tag()
    last = api.register()
    with redis.Redis.from_url(api.settings.redis_url.get_secret_value()) as client:
        event_id = client.xrevrange("ar:events", count=1)[0][0].decode()
    with api.http.stream("GET", "/api/events", headers={"last-event-id": event_id}) as response:
        kinds = (line[7:] for line in response.iter_lines() if line.startswith("event: "))
        assert next(kinds) == "heartbeat"
        api.complete(last, 1.0)
        assert next(kinds) == "decided"


def test_a_stream_opens_with_its_place_and_the_time(api: Api) -> None:
    """A page that has heard no event yet resumes from there, and knows the service's clock."""
    api.tag()
    with api.http.stream("GET", "/api/events") as response:
        lines = response.iter_lines()
        place, kind, data = [line for line in itertools.islice(lines, 5) if line][-3:]
    assert kind == "event: heartbeat"
    assert abs(json.loads(data.removeprefix("data: "))["at"] / 1000 - time.time()) < 5
    missed = api.register()
    headers = {"last-event-id": place.removeprefix("id: ")}
    with api.http.stream("GET", "/api/events", headers=headers) as response:
        told = next(line for line in response.iter_lines() if line.startswith("data: "))
    assert json.loads(told[6:])["subject"] == missed


def test_settings_whose_clockwork_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="half of lease_seconds"):
        Settings(lease_seconds=3)


def test_every_answer_forbids_a_browser_to_guess_its_type(api: Api) -> None:
    """Whatever the path, the method, and the layer that answers; and it says so once."""
    for route in api.app.routes:
        path = re.sub(r"\{[^}]*\}", "x", getattr(route, "path", "/"))
        if path == "/api/events":
            continue  # without an end
        for method in ("GET", "POST", "PUT"):
            answer = api.http.request(method, path)
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"], path
    refused = api.http.get("/", headers={"host": "evil.example"})
    assert refused.headers.get_list("x-content-type-options") == ["nosniff"]
    with api.http.stream("GET", "/api/events") as stream:
        assert stream.headers.get_list("x-content-type-options") == ["nosniff"]


@pytest.mark.parametrize("place", ["18446744073709551616-0", "0-18446744073709551616"])
def test_an_id_that_no_event_can_have_is_refused(api: Api, place: str) -> None:
    """Redis refuses it, which would be too late for an answer."""
    assert place in api.get("/api/events", 422, since=place)["error"]
    with api.http.stream("GET", "/api/events", headers={"last-event-id": place}) as answer:
        assert answer.status_code == 422
