"""Disks that fill up under a running system: the orchestrator's, its Redis', a worker's."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis

from tests.e2e.conftest import System, eventually, stub
from tests.e2e.faults import Disk, decisions, embedded_url, outcomes, own_redis, try_post

pytestmark = pytest.mark.slow

MakeDisk = Callable[..., Disk]

# Goes on until it finds the file that it was told of, and talks all the time and more at its end.
TALK = """
import os, sys, time
from autoresearch_run import measured
print("step", flush=True)
while not os.path.exists({flag!r}):
    print("x" * 1000, flush=True)
    time.sleep(0.01)
print("x" * 100_000)
measured(0.9)
print("---\\nval_bpb: 0.900000", flush=True)
"""


@pytest.fixture
def make_disk(system: System) -> Iterator[MakeDisk]:
    """Disks that are gone after the test, and before the system's last words are read."""
    made: list[Disk] = []

    def make(*folders: Path, mib: int = 8) -> Disk:
        made.append(Disk(*folders, mib=mib))
        return made[-1]

    yield make
    system.stop()
    for disk in made:
        disk.close()


def test_a_full_disk_of_the_orchestrator_refuses_sources_and_holds_up_no_verdict(
    system: System, make_disk: MakeDisk, tmp_path: Path
) -> None:
    """submit is 503 and leaves nothing behind, on disk or in Redis. The run that goes on meanwhile
    loses the rest of its log and is decided all the same."""
    home, flag = tmp_path / "home", tmp_path / "enough"
    disk = make_disk(home / "sources", home / "runs")
    disk.writers.append(system.serve().pid)
    system.worker(AUTORESEARCH_SANDBOX="none")  # the run looks for a file of the test's
    system.post("/api/experiment/setup", tag="t")
    running = system.submit(TALK.format(flag=str(flag)))
    system.training(running)
    disk.fill()
    before = sorted(home.glob("sources/**/*"))
    refused = try_post(
        system, "/api/experiment/submit", tag="t", hypothesis="h", train_py=stub(0.5)
    )
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert [p for p in sorted(home.glob("sources/**/*")) if p not in before and p.is_file()] == []
    assert system.get("/api/experiment/history", tag="t")["total"] == 1
    flag.touch()
    found = system.wait(running)
    assert (found["status"], found["val_bpb"]) == ("keep", 0.9)
    assert any("log is not complete" in warning for warning in found["warnings"])
    assert outcomes(system, running) == ["completed"]
    assert not list(home.glob("runs/**/.*")), "a half-written file was left"
    disk.free()
    again = system.wait(system.submit(stub(0.5)))
    assert (again["status"], len(again["attempts"])) == ("keep", 1)


def test_a_full_disk_of_redis_loses_nothing_that_was_acknowledged(
    system: System, make_disk: MakeDisk, tmp_path: Path
) -> None:
    """Redis ends when it cannot keep a write. 503 until there is space, then all goes on, and the
    run that ended meanwhile is decided once."""
    disk = make_disk(tmp_path / "home" / "redis", mib=16)
    if not disk.mounted:
        pytest.skip("Redis' own disk can be filled only where one can be mounted")
    system.serve()
    system.worker()
    system.post("/api/experiment/setup", tag="t")
    done = system.wait(system.submit(stub(1.0)))
    running = system.submit(stub(0.9, 3))
    system.training(running)
    disk.fill()

    def refused() -> bool:
        answer = try_post(system, "/api/experiment/setup", tag="u")
        return answer.status_code == 503 and answer.headers["retry-after"] == "2"

    eventually(refused, what="503 for want of disk")
    disk.free()
    eventually(system.ready, 60, "Redis' return")
    found = system.wait(running)
    assert found["status"] == "keep"
    del done["verdict"]["digest"]  # made for each caller that waits, and not stored
    assert system.get(f"/api/experiment/{done['id']}")["verdict"] == done["verdict"]
    assert decisions(embedded_url(system)) == {done["id"]: 1, running: 1}
    system.post("/api/experiment/setup", tag="after")


def test_a_full_memory_of_redis_costs_no_run(system: System) -> None:
    """Out of memory for several leases: 503 for what is new, and the run that goes on is renewed,
    decided and nobody else's in between."""
    with own_redis(system) as (_, _, url):
        system.serve(REDIS_URL=url)
        system.worker()
        system.post("/api/experiment/setup", tag="t")
        running = system.submit(stub(0.9, 6))
        system.training(running)
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory", "1")
            body = {"tag": "t", "hypothesis": "h", "train_py": stub(0.5)}
            refused = try_post(system, "/api/experiment/submit", **body)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
            assert system.wait(running)["status"] == "keep"
            client.config_set("maxmemory", "0")
        assert outcomes(system, running) == ["completed"]
        assert system.wait(system.submit(stub(0.5)))["status"] == "keep"
        assert set(decisions(url).values()) == {1}


def test_a_worker_below_its_floor_of_disk_says_so_in_the_pool_and_claims_nothing(
    system: System, make_disk: MakeDisk, tmp_path: Path
) -> None:
    """The job waits in the queue, unharmed, until there is space."""
    disk = make_disk(tmp_path / "small")
    if not disk.mounted:
        pytest.skip("a floor of free space needs a disk of its own")
    disk.fill()
    system.serve()
    system.worker(AUTORESEARCH_HOME=str(tmp_path / "small"), AUTORESEARCH_FREE_SPACE_BYTES="100000")
    system.post("/api/experiment/setup", tag="t")
    experiment_id = system.submit(stub(0.9))
    eventually(
        lambda: [worker["status"] for worker in workers(system)] == ["unfit"],
        what="what a worker says that has just come",
    )
    assert "MiB free at" in workers(system)[0]["problem"]
    assert system.get(f"/api/experiment/{experiment_id}")["attempts"] == []
    disk.free()
    assert system.wait(experiment_id)["status"] == "keep"
    eventually(lambda: workers(system)[0]["problem"] is None, what="the end of the problem")


def workers(system: System) -> list[dict[str, str]]:
    found: list[dict[str, str]] = system.get("/api/pool/list")["workers"]
    return found


def test_a_disk_that_fills_up_during_a_run_stops_its_log_and_not_the_run(
    system: System, make_disk: MakeDisk, tmp_path: Path
) -> None:
    """The result is in the part of the output that no disk took, and it counts."""
    flag = tmp_path / "enough"
    disk = make_disk(tmp_path / "small")
    if not disk.mounted:
        pytest.skip("a worker's disk can be filled only where one can be mounted")
    system.serve()
    system.worker(
        AUTORESEARCH_HOME=str(tmp_path / "small"),
        AUTORESEARCH_FREE_SPACE_BYTES="100000",
        AUTORESEARCH_SANDBOX="none",
    )
    system.post("/api/experiment/setup", tag="t")
    experiment_id = system.submit(TALK.format(flag=str(flag)))
    system.training(experiment_id)
    disk.fill()
    flag.touch()
    found = system.wait(experiment_id)
    assert (found["status"], found["val_bpb"], len(found["attempts"])) == ("keep", 0.9, 1)
    assert any("No space left" in warning for warning in found["warnings"])
    log = httpx.get(f"{system.url}/api/experiment/{experiment_id}/log").content
    assert log.startswith(b"step\nxxx")
    disk.fill()  # the run that is over has freed some space
    eventually(lambda: workers(system)[0]["status"] == "unfit", what="word of the full disk")
    disk.free()
    assert system.wait(system.submit(stub(0.5)))["status"] == "keep"
