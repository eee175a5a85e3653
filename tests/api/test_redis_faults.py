"""Redis paused, cut off, killed and full, under an orchestrator that serves meanwhile.

The same with a worker that trains through it: tests/e2e/test_redis_faults.py.
"""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from orchestrator import guard
from orchestrator.store import idempotency, keys
from tests.conftest import Api, MakeApi, eventually, redis_server, server_binaries
from tests.proxy import Proxy, Trap

LEASE = 1.0
HYPOTHESIS = "a-hypothesis-that-a-trap-can-see"


class Server:
    """A Redis of this test alone, which it may pause and kill, and a proxy in front of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.start()
        self.proxy = Proxy(str(folder / "redis.sock"))

    def start(self) -> None:
        self._running = redis_server(server_binaries()[0], self._folder)
        self.url = self._running.__enter__()
        with self.client() as client:
            self.pid = int(client.info("server")["process_id"])

    def client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.url, decode_responses=True)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._running.__exit__(None, None, None)

    def close(self) -> None:
        self.proxy.close()
        os.kill(self.pid, signal.SIGCONT)
        self._running.__exit__(None, None, None)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "r"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.close()


@pytest.fixture
def api(make_api: MakeApi, server: Server, monkeypatch: pytest.MonkeyPatch) -> Api:
    """An orchestrator behind the proxy, which gives Redis half a second to answer, and a request
    that died a second before its key is free."""
    for module in (guard, idempotency):
        monkeypatch.setattr(module, "IN_PROGRESS_SECONDS", 1)
    return make_api(redis_url=server.proxy.url, redis_timeout_seconds=0.5, lease_seconds=LEASE)


def register(api: Api, **headers: str) -> httpx.Response:
    words = dict.fromkeys(("description", "category", "diff_summary"), "x")
    body = {"tag": "mar11", "hypothesis": HYPOTHESIS, "commit_sha": "abcdef0"} | words
    return api.http.post("/api/experiment/register", json=body, headers=headers)


def total(api: Api) -> int:
    return int(api.get("/api/experiment/history", tag="mar11")["total"])


@pytest.mark.parametrize("what", ["reset_before", "reset_after"])
def test_a_connection_that_breaks_in_mid_command_is_not_noticed(
    api: Api, server: Server, what: Trap
) -> None:
    """Whether the command arrived or not: the caller's one request is one experiment."""
    api.tag()
    server.proxy.trap(HYPOTHESIS.encode(), what)
    answer = register(api)
    assert server.proxy.sprung.is_set()
    assert answer.status_code == 200, answer.text
    assert total(api) == 1


def test_an_answer_that_never_comes_is_503_and_the_request_sent_again_is_the_same(
    api: Api, server: Server
) -> None:
    """The first one was executed, and nobody heard of it: the second one hears what it did."""
    api.tag()
    register(api)  # Redis knows the script from now on
    server.proxy.trap(HYPOTHESIS.encode(), "withhold")
    lost = register(api, **{"idempotency-key": "k"})
    assert (lost.status_code, lost.headers["retry-after"]) == (503, "2")
    server.proxy.set("pass")
    assert total(api) == 2
    answer = register(api, **{"idempotency-key": "k"})
    assert answer.status_code == 200
    assert total(api) == 2
    newest = api.get("/api/experiment/history", tag="mar11")["experiments"][-1]["id"]
    assert answer.json()["experiment_id"] == newest


@pytest.mark.slow
def test_a_redis_that_refuses_connections_is_503_until_it_is_back(api: Api, server: Server) -> None:
    """Reads and writes alike; what was acknowledged before is there afterwards."""
    api.tag()
    experiment_id = api.register()
    server.proxy.set("refuse")
    for call in (
        lambda: register(api),
        lambda: api.http.get("/api/pool/list"),
        lambda: api.http.post("/api/pool/heartbeat", json={"gpu_id": "g"}),
        lambda: api.http.get("/readyz"),
    ):
        answer = call()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.headers["content-type"] == "application/problem+json"
    server.proxy.set("pass")
    assert api.complete(experiment_id, 1.0)["status"] == "keep"
    assert total(api) == 1


@pytest.mark.parametrize("given_up", [False, True], ids=["answered late", "given up"])
def test_a_paused_redis_runs_each_request_once_when_it_wakes(
    api: Api, server: Server, *, given_up: bool
) -> None:
    """It finds every call as often as the client sent it. Short pause: the caller is served;
    long pause: 503, and the same request later is the same experiment."""
    api.tag()
    with ThreadPoolExecutor(4) as callers:
        os.kill(server.pid, signal.SIGSTOP)
        calls = [callers.submit(register, api, **{"idempotency-key": "k"})]
        calls += [callers.submit(register, api) for _ in range(2)]
        wait(calls, timeout=30 if given_up else 0.8)
        os.kill(server.pid, signal.SIGCONT)
        answers = [call.result() for call in calls]
    served = [answer.status_code == 200 for answer in answers]
    assert not any(served) if given_up else all(served)
    for answer in answers:
        assert answer.status_code in (200, 503), answer.text
    again = register(api, **{"idempotency-key": "k"})
    assert again.status_code == 200, again.text
    assert total(api) in ({1, 2, 3} if given_up else {3})
    ids = [e["id"] for e in api.get("/api/experiment/history", tag="mar11")["experiments"]]
    assert ids.count(again.json()["experiment_id"]) == 1


def attempt_of(api: Api, experiment_id: str) -> Any:
    return api.get(f"/api/experiment/{experiment_id}")["attempts"][0]


def test_after_redis_return_the_reaper_waits_a_whole_lease(api: Api, server: Server) -> None:
    """Killed when a lease was half over, and away until it had run out: its worker gets all the
    time of a new one, and the scripts, of which the new Redis knows none, are loaded again."""
    api.tag()
    api.gpu()
    experiment_id = api.submit("1")
    api.claim()
    time.sleep(0.5 * LEASE)
    server.kill()
    time.sleep(0.7 * LEASE)
    starting = time.monotonic()
    server.start()
    eventually(lambda: attempt_of(api, experiment_id)["outcome"] == "expired")
    assert time.monotonic() - starting >= LEASE
    assert api.get(f"/api/experiment/{experiment_id}")["status"] == "queued"


def test_after_redis_took_no_writes_the_reaper_waits_a_whole_lease(
    api: Api, server: Server
) -> None:
    """It answers reads all the time, but no worker could renew: a replica is missing, as after a
    failover, or its disk is full."""
    api.tag()
    api.gpu()
    experiment_id = api.submit("1")
    api.claim()
    time.sleep(0.4 * LEASE)
    with server.client() as client:
        client.config_set("min-replicas-to-write", "1")
        time.sleep(0.5 * LEASE)
        resuming = time.monotonic()
        client.config_set("min-replicas-to-write", "0")
    eventually(lambda: attempt_of(api, experiment_id)["outcome"] == "expired")
    assert time.monotonic() - resuming >= LEASE


def test_after_its_own_start_the_reaper_waits_a_whole_lease(
    make_api: MakeApi, api: Api, server: Server
) -> None:
    """A worker that died in the meantime is found dead, though later."""
    api.tag()
    api.gpu()
    experiment_id = api.submit("1")
    api.claim()
    api.stop()
    time.sleep(2 * LEASE)
    started = time.monotonic()
    another = make_api(redis_url=server.url, lease_seconds=LEASE)
    eventually(lambda: attempt_of(another, experiment_id)["outcome"] == "expired")
    assert time.monotonic() - started >= LEASE


def test_a_full_redis_serves_what_frees_a_gpu_and_refuses_the_rest(
    api: Api, server: Server
) -> None:
    """Out of memory: what is new is 503 and leaves no trace. A lease can be renewed, so no live
    run is taken for dead, and its end is decided. With free memory again all is as before."""
    api.tag()
    api.gpu()
    experiment_id = api.submit("1")
    job = api.claim()
    lease = {name: job[name] for name in ("experiment_id", "gpu_id", "epoch", "lease_secret")}
    with server.client() as client:
        before = set(client.scan_iter())
        client.config_set("maxmemory", "1")
        for path, body in (
            ("submit", {"tag": "mar11", "hypothesis": "h", "train_py": "2"}),
            ("setup", {"tag": "another"}),
        ):
            refused = api.http.post(f"/api/experiment/{path}", json=body)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert register(api, **{"idempotency-key": "k"}).status_code == 503
        deadline = time.monotonic() + 2.5 * LEASE
        while time.monotonic() < deadline:
            api.post("/api/job/renew", **lease)
            time.sleep(LEASE / 10)
        assert set(client.scan_iter()) <= before, "something was half-written"
        assert api.finish(job, 1.0)["verdict"]["status"] == "keep"
        client.config_set("maxmemory", "0")
    assert [a["outcome"] for a in api.get(f"/api/experiment/{experiment_id}")["attempts"]] == [
        "completed"
    ]
    assert register(api, **{"idempotency-key": "k"}).status_code == 200
    assert total(api) == 2
    assert api.get("/api/pool/list")["idle"] == 1


def test_a_clock_that_jumps_leaves_a_silent_gpu_silent(api: Api, server: Server) -> None:
    """A heartbeat stamped in what is now the future must not keep a dead GPU in the pool."""
    with server.client() as client:
        api.gpu()
        future = int(time.time() * 1e6) + 3_600_000_000
        # Both at once: a sweep between them would correct the first and never look at the second.
        with client.pipeline() as both:
            both.zadd(keys.of_all("seen"), {"gpu-0": future})
            both.hset(keys.of_all("gpu:", "gpu-0"), "heartbeat", str(future))
            both.execute()
        eventually(lambda: client.zscore(keys.of_all("seen"), "gpu-0") < future)
        stamp = int(client.hget(keys.of_all("gpu:", "gpu-0"), "heartbeat") or 0)
    assert stamp < future


def test_a_record_that_cannot_be_read_keeps_no_other_lease_alive(api: Api, server: Server) -> None:
    """Somebody wrote to Redis by hand: that run says what is wrong, and the service goes on."""
    api.tag()
    api.gpu("gpu-0", 0)
    api.gpu("gpu-1", 1)
    broken, other = api.submit("1"), api.submit("2")
    api.claim("gpu-0")
    api.claim("gpu-1")
    with server.client() as client:
        client.hset(keys.of_tag("mar11", "run:", broken), "priority", "abc")
    eventually(lambda: attempt_of(api, other)["outcome"] == "expired")
    refused = api.get(f"/api/experiment/{broken}", 500)
    assert "A record in Redis cannot be read: priority" in refused["error"]
