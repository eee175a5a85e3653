"""Orchestrators that share a bucket and a Redis, and no folder. moto's S3 server has the bucket."""

import base64
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from bench.harness.ports import free_port
from gpu_worker.curve import Curve
from orchestrator import bucket
from orchestrator.bucket import Bucket
from orchestrator.errors import Conflict, Unavailable
from orchestrator.folder import Folder
from orchestrator.seals import Seals
from orchestrator.services.core import backup as service, reaper
from orchestrator.services.core.audit import Audit
from orchestrator.settings import HomePaths
from orchestrator.store.connection import Store
from tests.conftest import Api, MakeApi, as_orchestrator, eventually, lease_of
from tests.e2e.conftest import System
from tests.proxy import Proxy

pytestmark = pytest.mark.slow

# In an environment of its own: boto3 would hold packages of ours back.
MOTO = [
    "uvx", "--from", "moto[s3]==5.2.5", "--with", "flask==3.*", "--with", "flask-cors==6.*",
    "moto_server",
]  # fmt: skip
KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "a-secret-that-no-log-may-hold"


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    with (tmp_path_factory.mktemp("s3") / "log").open("wb") as log:
        server = subprocess.Popen(
            [*MOTO, "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        eventually(lambda: _answers(port))
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.put(f"http://127.0.0.1:{port}/bucket").status_code == 200
    except httpx.TransportError:
        return False


def access(port: int) -> dict[str, str]:
    """What an orchestrator's environment needs."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """A prefix that no other test has."""
    return f"s3://bucket/{tmp_path.name}"


@pytest.fixture
def s3(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The bucket's server, which this process may use."""
    for name, value in access(s3_port).items():
        monkeypatch.setenv(name, value)
    return s3_port


# -- two orchestrators, killed


# Prints `printed(note)`, in pieces, for more than a second.
TALKER = """
import time
from autoresearch_run import measured
NOTE, BPB = {note!r}, {bpb}
for step in range(20):
    print(f"step {{step:05d}} ({{5.0 * step:5.1f}}%) | loss: {{9 - step / 10:.6f}} | {{NOTE}}")
    time.sleep(0.07)
measured(BPB)
print("---")
print(f"val_bpb: {{BPB:.6f}}")
print("training_seconds: 1.0")
"""


def printed(note: str, bpb: float) -> bytes:
    lines = [
        f"step {step:05d} ({5.0 * step:5.1f}%) | loss: {9 - step / 10:.6f} | {note}"
        for step in range(20)
    ]
    return "\n".join([*lines, "---", f"val_bpb: {bpb:.6f}", "training_seconds: 1.0", ""]).encode()


class Pair:
    """Two orchestrators with a home each, which does not outlive them."""

    def __init__(self, system: System, redis_url: str, store_url: str, port: int) -> None:
        self.system = system
        self.ports = [free_port(), free_port()]
        self.urls = [f"http://127.0.0.1:{each}" for each in self.ports]
        self.environment = access(port) | {
            "REDIS_URL": as_orchestrator(redis_url),
            "AUTORESEARCH_STORE": store_url,
            "AUTORESEARCH_LEASE_SECONDS": "10",
        }
        self.processes = [self.serve(0), self.serve(1)]

    def home(self, number: int) -> Path:
        return self.system.folder / f"home-{number}"

    def serve(self, number: int) -> "subprocess.Popen[bytes]":
        home = str(self.home(number))
        return self.system.serve(self.ports[number], AUTORESEARCH_HOME=home, **self.environment)

    def kill(self, number: int) -> None:
        os.kill(self.processes[number].pid, signal.SIGKILL)
        self.processes[number].wait()
        shutil.rmtree(self.home(number), ignore_errors=True)

    def both(self, path: str) -> list[httpx.Response]:
        return [httpx.get(url + path, timeout=40) for url in self.urls]


def test_two_orchestrators_without_a_common_folder_lose_nothing_when_either_is_killed(
    system: System, redis_url: str, store_url: str, s3: int
) -> None:
    """At moments spread over the search, with its home: logs, sources and curves of every run are
    whole, byte for byte, from either; audit and backup find all of it."""
    chance = random.Random(16)  # noqa: S311 - moments, no secrets
    pair = Pair(system, redis_url, store_url, s3)
    for number, url in enumerate(pair.urls):
        system.worker(f"cpu-{number}", url, AUTORESEARCH_LEASE_SECONDS="10")
    system.post("/api/experiment/setup", tag="t")
    values = {f"<{number}>" * 300: 1 - number / 100 for number in range(6)}
    sources = {note: TALKER.format(note=note, bpb=bpb) for note, bpb in values.items()}
    ids = {note: system.submit(source) for note, source in sources.items()}
    kills = 0
    while kills < 4 or not all(decided(pair.urls[0], each) for each in ids.values()):
        victim = chance.randrange(2)
        if chance.random() < 0.5:
            chunk_has_come(pair.urls[1 - victim])
        pair.kill(victim)
        pair.processes[victim] = pair.serve(victim)
        kills += 1
        assert kills < 60
    for note, experiment_id in ids.items():
        log, curve = printed(note, values[note]), Curve()
        curve.feed(log)
        curve.close()
        points = [point.model_dump() for point in curve.points()]
        assert len(points) > 10
        path = f"/api/experiment/{experiment_id}"
        for answer in pair.both(path):
            assert answer.json()["attempts"][-1]["outcome"] == "completed"
            assert answer.json()["curve"] == points
        assert {answer.content for answer in pair.both(f"{path}/log")} == {log}
        tails = [
            httpx.get(url + path + "/log", headers={"range": "bytes=-700"}) for url in pair.urls
        ]
        assert {tail.content for tail in tails} == {log[-700:]}
        assert {answer.text for answer in pair.both(f"{path}/train.py")} == {sources[note]}
    # What the killed ones did not pack, the others have packed.
    eventually(lambda: not Bucket(store_url).open_logs())
    for number, command in enumerate((["audit"], ["backup", str(system.folder / "b.tar.gz")])):
        home = str(system.folder / f"elsewhere-{number}")
        done = system.start(*command, AUTORESEARCH_HOME=home, **pair.environment)
        assert done.wait(60) == 0
    assert SECRET not in system.logs()
    assert KEY_ID not in system.logs()


def decided(url: str, experiment_id: str) -> bool:
    return bool(httpx.get(f"{url}/api/experiment/{experiment_id}").json()["verdict"])


def chunk_has_come(url: str) -> None:
    """Return while a run is in the middle of its log, if one trains."""
    running = [
        one["id"]
        for one in httpx.post(f"{url}/api/experiment/history", json={"tag": "t"}).json()[
            "experiments"
        ]
        if one["status"] == "running"
    ]
    if running:
        log = f"{url}/api/experiment/{running[0]}/log"
        eventually(lambda: len(httpx.get(log).content) > 3000)


# -- what goes wrong


def serve_fails(environment: dict[str, str], home: Path, *code: str) -> str:
    """What `serve` says before it ends with the exit code of a wrong setting."""
    done = subprocess.run(
        [sys.executable, *(code or ("-m", "orchestrator.cli")), "serve", "--port", "0"],
        env=os.environ | {"AUTORESEARCH_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "Traceback" not in said
    assert SECRET not in said
    assert KEY_ID not in said
    return said


# Without any, the machine's own role is asked for some.
NO_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": None,
    "AWS_SECRET_ACCESS_KEY": None,
    "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9",
}


@pytest.mark.parametrize(
    ("store", "changed", "words"),
    [
        ("s3://missing/x", {}, "there is no such bucket"),
        ("s3://bucket/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be read or written"),
        ("s3://bucket/x", NO_CREDENTIALS, "credentials.* come from the environment"),
        ("ftp://bucket/x", {}, "is no bucket such as"),
    ],
)
def test_a_bucket_that_cannot_be_used_ends_the_start_with_what_to_change(
    s3_port: int, tmp_path: Path, store: str, changed: dict[str, str | None], words: str
) -> None:
    environment = access(s3_port) | {"AUTORESEARCH_STORE": store} | changed
    environment = {name: value for name, value in environment.items() if value is not None}
    said = serve_fails(environment, tmp_path)
    assert "AUTORESEARCH_STORE" in said
    assert re.search(words, said), said


def test_without_the_extra_the_exact_command_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['obstore'] = None\n"
    code += "from orchestrator import cli; sys.exit(cli.main())"
    said = serve_fails({"AUTORESEARCH_STORE": "s3://bucket/x"}, tmp_path, "-c", code)
    assert "pip install 'n-autoresearch[store]'" in said
    assert "uv sync --extra store" in said


def test_an_orchestrator_with_other_files_is_refused_by_the_redis(
    make_api: MakeApi, redis_url: str, store_url: str, s3: int, tmp_path: Path
) -> None:
    """It would miss what the others wrote, and they what it writes."""
    make_api(store=store_url)
    url = as_orchestrator(redis_url)
    for store in (f"{store_url}-other", ""):
        environment = access(s3) | {"REDIS_URL": url, "AUTORESEARCH_STORE": store}
        said = serve_fails(environment, tmp_path / "other")
        assert f"keep their files in {store_url}, and" in said
        backup = [sys.executable, "-m", "orchestrator.cli", "backup", str(tmp_path / "b.tar.gz")]
        assert subprocess.run(backup, env=os.environ | environment, check=False).returncode == 2
    make_api(store=store_url, home=tmp_path / "other")


def chunk(api: Api, job: Any, offset: int, data: bytes, _status: int = 200) -> None:
    log = {"offset": offset, "data": base64.b64encode(data).decode()}
    curve = [{"step": 1, "percent": 1.0, "loss": 9.0}]
    api.post("/api/job/progress", _status, **lease_of(job), log=log, curve=curve)


@pytest.fixture
def proxy(s3: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """In front of the bucket's server. A call that gets no answer ends soon."""
    proxy = Proxy(s3)
    monkeypatch.setitem(bucket._TIMES["client_options"], "timeout", timedelta(seconds=1))
    monkeypatch.setitem(bucket._TIMES["retry_config"], "max_retries", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    yield proxy
    proxy.close()


def test_while_the_bucket_is_away_callers_are_told_to_come_again_and_nothing_is_lost(
    proxy: Proxy, make_api: MakeApi, store_url: str
) -> None:
    api = make_api(store=store_url)
    api.tag()
    api.gpu()
    first, second = api.submit("x = 1"), api.submit("x = 2")
    job = api.claim()
    chunk(api, job, 0, b"hello ")
    proxy.set("hold")
    refused = api.http.post(
        "/api/experiment/submit", json={"tag": "mar11", "train_py": "x = 3", "hypothesis": "h"}
    )
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert KEY_ID not in refused.text
    assert api.http.get("/readyz").status_code == 503
    assert api.http.get("/healthz").status_code == 200
    api.post("/api/job/renew", **lease_of(job))
    chunk(api, job, 6, b"world", 503)
    report: Any = {
        "metrics": {"val_bpb": 1.0},
        "curve": [{"step": n, "percent": n, "loss": 9.0} for n in (1, 2)],
    }
    api.finish(job, _status=503, **report)
    history = api.post("/api/experiment/history", tag="mar11")["experiments"]
    assert {one["id"]: one["status"] for one in history} == {first: "keep", second: "queued"}
    # A job whose source cannot be read is not the run's loss, however often that is tried.
    for _ in range(3):
        api.post("/api/job/claim", 503, gpu_id="gpu-0", claim_id=os.urandom(8).hex())
    proxy.set("pass")
    assert api.http.get("/readyz").status_code == 200
    assert api.finish(job, **report)["status"] == "keep"
    assert len(api.get(f"/api/experiment/{first}")["curve"]) == 2
    assert api.http.get(f"/api/experiment/{first}/log").text == "hello world"
    again = api.claim()
    assert again["experiment_id"] == second
    assert {a["outcome"] for a in api.get(f"/api/experiment/{second}")["attempts"][:-1]} == {
        "handed_back"
    }
    assert api.finish(again, 0.9)["status"] == "keep"


def test_while_the_bucket_is_away_a_dead_worker_still_loses_its_run(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge that cannot read its sources holds up no lease."""
    monkeypatch.setattr(reaper, "FILL_SECONDS", 0.0)
    api = make_api(lease_seconds=0.5)

    async def away(tag: str) -> None:
        raise Unavailable(f"no source of {tag}", reason="store")

    monkeypatch.setattr(api.app.state.services.reaper._race, "fill", away)
    api.tag(keep_rule="greedy+merge")
    api.gpu()
    api.submit("x = 1")
    job = api.claim()
    path = f"/api/experiment/{job['experiment_id']}"
    eventually(lambda: api.get(path)["attempts"][0]["outcome"] == "expired")


def test_a_log_that_its_orchestrator_could_not_pack_is_packed_by_the_next(
    make_api: MakeApi, store_url: str, s3: int
) -> None:
    """Those of runs that are training stay open."""
    api = make_api(store=store_url)
    api.tag()
    api.complete(api.register(), 2.0)
    api.submit("x = 1")
    api.submit("x = 2")
    running, job = (api.claim(api.gpu(f"gpu-{index}", index)) for index in range(2))
    api.app.state.services.files.close_log = lambda *_: None  # as if it were killed before
    chunk(api, running, 0, b"world")
    chunk(api, job, 0, b"hello")
    api.finish(job, 1.0)
    files = Bucket(store_url)
    assert len(files.open_logs()) == 2
    other = make_api(store=store_url)
    eventually(lambda: len(files.open_logs()) == 1)
    assert files.open_logs()[0].experiment_id == running["experiment_id"]
    assert other.http.get(f"/api/experiment/{job['experiment_id']}/log").text == "hello"


# -- moving


@pytest.mark.anyio
async def test_a_backup_of_a_bucket_is_restored_into_a_folder_and_into_a_bucket(
    make_api: MakeApi, redis_url: str, each_redis_url: str, store_url: str, s3: int, tmp_path: Path
) -> None:
    """With what is under way. So a search moves from one to the other. A bucket of another Redis is
    left alone."""
    api = make_api(store=store_url)
    api.tag()
    api.gpu()
    done, running = api.submit("x = 1"), api.submit("x = 2")
    job = api.claim()
    chunk(api, job, 0, b"a whole log")
    api.finish(job, 1.0)
    files = Bucket(store_url)
    eventually(lambda: not files.open_logs())
    job = api.claim()
    chunk(api, job, 0, b"hello ")
    chunk(api, job, 6, b"world")
    from_store, to_store = Store(redis_url, 5), Store(each_redis_url, 5)
    backup = tmp_path / "b.tar.gz"
    for number, to in enumerate(
        [Folder(HomePaths(tmp_path / "folder")), Bucket(f"{store_url}-to")]
    ):
        manifest = await service.backup(from_store, files, backup, lambda _: None)
        assert await service.restore(to_store, to, backup, lambda _: None) == manifest
        assert (await Audit(to_store, Seals(to)).check("mar11")).differences == []
        place = {"store": to.place} if number else {"home": tmp_path / "folder"}
        other = make_api(redis_url=each_redis_url, **place)
        assert other.http.get(f"/api/experiment/{done}/log").text == "a whole log"
        assert other.http.get(f"/api/experiment/{running}/log").text == "hello world"
        assert other.http.get(f"/api/experiment/{running}/train.py").text == "x = 2"
        assert other.get(f"/api/experiment/{running}")["curve"][0]["loss"] == 9.0
        backup.unlink()
        await to_store.redis.flushall()
    Bucket(f"{store_url}-used").journal_key()
    await service.backup(from_store, files, backup, lambda _: None)
    with pytest.raises(Conflict, match="another Redis"):
        await service.restore(to_store, Bucket(f"{store_url}-used"), backup, lambda _: None)
    await from_store.close()
    await to_store.close()


@pytest.mark.anyio
async def test_the_seals_of_orchestrators_without_a_common_folder_are_one_chain(
    make_api: MakeApi, redis_url: str, store_url: str, s3: int, tmp_path: Path
) -> None:
    """Both seal with the key in the bucket, and an audit from a third place finds a journal that
    was put back as it was, by the notes of either."""
    both = [make_api(store=store_url, home=tmp_path / name) for name in "ab"]
    both[0].tag()
    for number in range(6):
        both[number % 2].complete(both[0].register(), 1 - number / 10)
        both[number % 2].app.state.services.store.seals.write()
    store = Store(redis_url, 5)
    auditor = Audit(store, Seals(Bucket(store_url)))
    report = await auditor.check("mar11")
    assert (report.differences, report.decisions, report.unsealed) == ([], 6, 0)
    with redis.Redis.from_url(redis_url) as plain:
        earlier = {name: plain.dump(name) for name in plain.keys("*")}
        both[1].complete(both[1].register(), 0.1)
        both[1].app.state.services.store.seals.write()
        plain.flushall()
        for name, value in earlier.items():
            plain.restore(name, 0, value)
    assert "it was cut off" in (await auditor.check("mar11")).differences[0]
    await store.close()
