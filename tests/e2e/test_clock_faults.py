"""Clocks that are an hour off, or jump by two in mid-run: on the orchestrator's host, the worker's,
Redis'.

libfaketime stands in for a clock that was set (bench/harness/clock.py).
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from bench.harness.clock import FAKED_CLOCK, LIBRARIES, Clock
from tests.conftest import server_binaries
from tests.e2e.conftest import System, eventually, stub
from tests.e2e.faults import decisions, outcomes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed"),
]

HOUR = 3600


@pytest.fixture
def redis_on(system: System, tmp_path: Path) -> Iterator[Callable[[Clock | None], str]]:
    """Start a Redis by that clock; it ends after the system that uses it."""
    with ExitStack() as stack:

        def start(clock: Clock | None) -> str:
            folder = tmp_path / "redis"
            folder.mkdir()
            process = subprocess.Popen(
                [
                    server_binaries()[0], "--port", "0", "--unixsocket", str(folder / "s"),
                    "--dir", str(folder), "--save", "", "--appendonly", "yes",
                    "--appendfsync", "always",
                ],
                env=os.environ | (clock.variables if clock else {}),
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.terminate)
            url = f"unix://{folder / 's'}"
            eventually((folder / "s").exists, what="Redis")
            return url

        yield start
        system.stop()


@pytest.mark.parametrize("host", ["orchestrator", "worker", "redis"])
@pytest.mark.parametrize("first", [HOUR, -HOUR], ids=["back", "forward"])
def test_a_clock_that_is_an_hour_off_and_jumps_in_a_run_decides_once_and_leaves_nothing_stuck(
    system: System, redis_on: Callable[[Clock | None], str], tmp_path: Path, host: str, first: int
) -> None:
    """An hour off from the start, two hours' jump to the other side in a run. Nobody's run is taken
    for dead; verdicts stay in order; and a worker that dies afterwards is found dead, its run goes
    to another and its GPU reads offline, all in seconds, not in hours."""
    clock = Clock(tmp_path / "clock")
    clock.set(first)
    url = redis_on(clock if host == "redis" else None)
    of_orchestrator = dict(clock.variables) if host == "orchestrator" else {}
    of_worker = clock.variables | {"PYTHONPATH": str(FAKED_CLOCK)} if host == "worker" else {}
    # Longer than a busy machine takes to fetch what a run needs.
    of_orchestrator |= {"AUTORESEARCH_LEASE_SECONDS": "6", "AUTORESEARCH_OFFLINE_SECONDS": "3"}
    system.serve(REDIS_URL=url, **of_orchestrator)
    worker = system.worker("cpu-0", **of_worker)
    system.post("/api/experiment/setup", tag="t")
    before = system.submit(stub(1.0, 0.2))
    system.wait(before)
    during = system.submit(stub(0.9, 3))
    system.training(during)
    clock.set(-first)
    system.wait(during)
    after = system.submit(stub(0.8, 0.2))
    system.wait(after)
    assert [outcomes(system, i) for i in (before, during, after)] == [["completed"]] * 3
    records = system.get("/api/experiment/history", tag="t")["experiments"]
    assert [record["id"] for record in records] == [before, during, after]
    moments = [record["finished_at"] for record in records]
    assert moments == sorted(set(moments)), "finished_at is strictly increasing"

    left = system.submit(stub(0.7, 3))
    system.training(left)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    system.worker("cpu-1")
    assert system.wait(left)["gpu_id"] == "cpu-1"
    assert outcomes(system, left) == ["expired", "completed"]
    eventually(lambda: status_of(system, "cpu-0") == "offline", what="word of the dead worker")
    eventually(lambda: status_of(system, "cpu-1") == "idle", what="the other's rest")
    assert decisions(url) == dict.fromkeys((before, during, after, left), 1)


def status_of(system: System, gpu_id: str) -> str:
    workers = system.get("/api/pool/list")["workers"]
    return next(worker["status"] for worker in workers if worker["id"] == gpu_id)


def test_redis_clock_set_back_while_a_gpu_dies_does_not_keep_it_in_the_pool(
    system: System, redis_on: Callable[[Clock | None], str], tmp_path: Path
) -> None:
    """Its last heartbeat lies an hour ahead. It reads offline all the same, and no hand-run is
    given it."""
    clock = Clock(tmp_path / "clock")
    clock.set(0)
    url = redis_on(clock)
    system.serve(REDIS_URL=url, AUTORESEARCH_OFFLINE_SECONDS="2")
    system.post("/api/experiment/setup", tag="t")
    system.post("/api/pool/register", gpu_id="g", gpu_index=0, gpu_name="x", vram_mb=1)
    clock.set(-HOUR)
    eventually(lambda: status_of(system, "g") == "offline", what="word of the dead GPU")
    words = dict.fromkeys(("hypothesis", "description", "category", "diff_summary"), "x")
    by_hand = system.post("/api/experiment/register", tag="t", commit_sha="abcdef0", **words)
    found = system.post("/api/pool/acquire", experiment_id=by_hand["experiment_id"])
    assert not found["acquired"]
    with redis.Redis.from_url(url) as client:
        assert client.zcard("ar:idle") == 0
