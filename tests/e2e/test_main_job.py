"""The main job through real processes: submit, train, decide; many at once; kill -9 of parts."""

import itertools
import os
import signal
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import redis

from orchestrator.embedded import EmbeddedServer
from orchestrator.settings import HomePaths
from tests.e2e.conftest import System, eventually, stub


def test_a_submitted_job_runs_through_a_worker_to_its_verdict(system: System) -> None:
    """curl's view: queued, kept with metrics, curve, log and source; the GPU idle again."""
    system.serve()
    system.worker()
    system.post("/api/experiment/setup", tag="t")
    source = stub(0.9)
    found = system.wait(system.submit(source))
    assert (found["status"], found["val_bpb"]) == ("keep", 0.9)
    assert (found["num_steps"], found["peak_vram_mb"], found["depth"]) == (4, 100.0, 2)
    assert [point["loss"] for point in found["curve"]][-1] == 6.0
    assert found["environment"]["host"]
    log = httpx.get(f"{system.url}/api/experiment/{found['id']}/log").text
    assert "val_bpb: 0.900000" in log
    assert httpx.get(f"{system.url}/api/experiment/{found['id']}/train.py").text == source
    crash = system.wait(system.submit("raise ValueError('too wide')"))
    assert crash["status"] == "crash"
    assert "too wide" in crash["error"]
    eventually(lambda: system.get("/api/pool/list")["idle"] == 1, what="an idle GPU")


def test_a_variant_that_ends_first_on_another_gpu_is_compared_with_the_baseline(
    system: System,
) -> None:
    """Its worker keeps the result until the baseline is decided, and calls that no outage."""
    system.serve()
    system.post("/api/experiment/setup", tag="t")
    baseline = system.submit(stub(0.98, 2))
    variant = system.submit(stub(0.99, 0))
    system.worker("cpu-0")
    system.training(baseline)
    system.worker("cpu-1")
    assert system.wait(variant)["status"] == "discard"
    first, second = system.get(f"/api/experiment/{baseline}"), system.wait(variant)
    assert first["status"] == "keep"
    assert first["finished_at"] < second["finished_at"]
    assert [attempt["outcome"] for attempt in second["attempts"]] == ["completed"]
    assert "cannot serve" not in system.logs()


@pytest.mark.slow
def test_two_hundred_jobs_of_eight_clients_are_each_decided_once(system: System) -> None:
    """Two orchestrators on one Redis, two workers: nothing lost, nothing twice, pool idle."""
    system.serve()
    first = system.url
    system.serve()
    second = system.url
    system.worker("cpu-0", first)
    system.worker("cpu-1", second)
    system.post("/api/experiment/setup", tag="t")

    def submit(number: int) -> str:
        body = {
            "tag": "t", "hypothesis": "h", "description": str(number),
            "train_py": stub(1 + number % 7 / 100, 0, str(number)),
        }  # fmt: skip
        url = (first, second)[number % 2]
        answer = httpx.post(f"{url}/api/experiment/submit", json=body, timeout=30)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["experiment_id"])

    with ThreadPoolExecutor(8) as clients:
        ids = list(clients.map(submit, range(200)))

    def finished() -> bool:
        return bool(system.get("/api/report/summary", tag="t")["stats"]["total"] == 200)

    eventually(finished, 100, "200 verdicts")
    records = system.get("/api/experiment/history", tag="t")["experiments"]
    assert sorted(record["id"] for record in records) == sorted(ids)
    assert {record["status"] for record in records} <= {"keep", "discard"}
    in_order = sorted(records, key=lambda record: record["finished_at"])
    keeps = [record["val_bpb"] for record in in_order if record["status"] == "keep"]
    assert keeps == sorted(set(keeps), reverse=True), "each keep is strictly better"
    assert len({record["finished_at"] for record in records}) == 200
    intervals: dict[str, list[tuple[str, str]]] = {}
    for experiment_id in ids:
        attempts = system.get(f"/api/experiment/{experiment_id}")["attempts"]
        assert [a["outcome"] for a in attempts] == ["completed"]
        intervals.setdefault(attempts[0]["gpu_id"], []).append(
            (attempts[0]["claimed_at"], attempts[0]["ended_at"])
        )
    for spans in intervals.values():
        spans.sort()
        for (_, ended), (claimed, _) in itertools.pairwise(spans):
            assert ended <= claimed, "a GPU was given twice"
    assert len(intervals) == 2
    eventually(lambda: system.get("/api/pool/list")["idle"] == 2, what="an idle pool")


def events_of(home: Path) -> Counter[str]:
    """Decisions by experiment, from the event stream itself."""
    url = EmbeddedServer(HomePaths(home)).url()
    with redis.Redis.from_url(url, decode_responses=True) as client:
        entries = client.xrange("ar:events")
    return Counter(fields["id"] for _, fields in entries if fields["type"] == "decided")


def test_what_a_system_writes_is_for_its_owner_alone(system: System) -> None:
    """The home, which an earlier version left open, all that is written in it, and a backup."""
    home, backup = system.folder / "home", system.folder / "night.tar.gz"
    home.mkdir(mode=0o755)
    system.serve()
    system.worker()
    system.post("/api/experiment/setup", tag="t")
    assert system.wait(system.submit(stub(0.9)))["status"] == "keep"
    assert system.start("backup", str(backup)).wait(60) == 0
    written = [home, backup, *home.rglob("*")]
    assert len(written) > 20
    open_to_others = [
        path
        for path in written
        if not path.is_symlink() and path.exists() and path.stat().st_mode & 0o077
    ]
    assert open_to_others == []


def test_a_worker_killed_in_a_run_adopts_it_when_it_restarts(system: System) -> None:
    """kill -9, restart: the same attempt goes on to its verdict; nothing ran twice."""
    system.serve(AUTORESEARCH_LEASE_SECONDS="20")  # a worker takes a while to start
    worker = system.worker()
    system.post("/api/experiment/setup", tag="t")
    experiment_id = system.submit(stub(0.9, 6))
    system.training(experiment_id)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    system.worker()
    found = system.wait(experiment_id)
    assert (found["status"], len(found["attempts"])) == ("keep", 1)
    assert events_of(system.folder / "home")[experiment_id] == 1


@pytest.mark.slow
def test_a_worker_killed_for_good_loses_its_run_to_another(system: System) -> None:
    """Its tree dies with the lease, the run is requeued with a new epoch and decided once."""
    system.serve()
    worker = system.worker()
    system.post("/api/experiment/setup", tag="t")
    experiment_id = system.submit(stub(0.9, 4))
    system.training(experiment_id)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    marker = f"AUTORESEARCH_RUN={experiment_id}.1".encode()
    eventually(lambda: not marked(marker), what="the end of the tree")
    system.worker("cpu-1")
    found = system.wait(experiment_id)
    assert found["status"] == "keep"
    assert [a["outcome"] for a in found["attempts"]] == ["expired", "completed"]
    assert events_of(system.folder / "home")[experiment_id] == 1


def marked(marker: bytes) -> list[str]:
    """Processes whose environment holds the marker."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue  # it ended, or is not ours to read
    return found


def test_an_orchestrator_killed_in_a_run_leaves_it_unharmed(system: System) -> None:
    """kill -9, started again on the same port: the run goes on, nothing acknowledged is missing."""
    orchestrator = system.serve()
    port = int(system.url.rsplit(":", 1)[1])
    system.worker()
    system.post("/api/experiment/setup", tag="t")
    experiment_id = system.submit(stub(0.9, 3))
    queued = system.submit(stub(0.8))
    system.training(experiment_id)
    os.kill(orchestrator.pid, signal.SIGKILL)
    orchestrator.wait()
    system.serve(port)
    found = system.wait(experiment_id)
    assert (found["status"], len(found["attempts"])) == ("keep", 1)
    assert system.wait(queued)["status"] == "keep"
    assert set(events_of(system.folder / "home").values()) == {1}


def test_redis_killed_in_a_run_comes_back_with_everything(system: System) -> None:
    """kill -9 of Valkey: the orchestrator starts it again, the run is decided once."""
    system.serve()
    system.worker()
    system.post("/api/experiment/setup", tag="t")
    done = system.wait(system.submit(stub(1.0)))
    experiment_id = system.submit(stub(0.9, 3))
    system.training(experiment_id)
    pid = next((system.folder / "home").glob("redis/*.pid")).read_text().strip()
    subprocess.run(["kill", "-9", pid], check=True)
    eventually(system.ready, what="Redis' return")
    found = system.wait(experiment_id)
    assert (found["status"], len(found["attempts"])) == ("keep", 1)
    del done["verdict"]["digest"]  # made for each caller that waits, and not stored
    assert system.get(f"/api/experiment/{done['id']}")["verdict"] == done["verdict"]
    assert set(events_of(system.folder / "home").values()) == {1}


def test_work_that_is_cancelled_stops_and_frees_the_gpu(system: System) -> None:
    system.serve()
    system.worker()
    system.post("/api/experiment/setup", tag="t")
    experiment_id = system.submit(stub(0.9, 60))
    system.training(experiment_id)
    system.post(f"/api/experiment/{experiment_id}/cancel")
    assert system.wait(experiment_id)["status"] == "cancelled"
    assert not marked(f"AUTORESEARCH_RUN={experiment_id}.1".encode())
    assert system.wait(system.submit(stub(0.8)))["status"] == "keep"


def test_a_worker_that_is_told_to_stop_hands_its_run_back(system: System) -> None:
    """SIGTERM with no time to drain: exit 0, out of the pool, the run queued again as no loss."""
    system.serve()
    worker = system.start(
        "worker", "--cpu", "--gpu-id", "cpu-0", "--orchestrator", system.url,
        "--drain-timeout", "0.2",
    )  # fmt: skip
    system.post("/api/experiment/setup", tag="t")
    experiment_id = system.submit(stub(0.9, 60))
    system.training(experiment_id)
    worker.terminate()
    assert worker.wait(20) == 0
    found = system.get(f"/api/experiment/{experiment_id}")
    assert (found["status"], found["attempts"][0]["outcome"]) == ("queued", "handed_back")
    assert system.get("/api/pool/list")["total"] == 0
