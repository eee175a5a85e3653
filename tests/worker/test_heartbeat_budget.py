"""How often a worker sends heartbeats: as the answers say between runs, as its claim says in a run.

An interval of a minute is one that the tests would not live to see.
"""

import random

import pytest

from gpu_worker.client import Client
from tests.worker.conftest import SLEEP, Host
from tests.worker.stub import Stub


@pytest.mark.anyio
async def test_workers_that_started_together_spread_over_whatever_interval_they_learn() -> None:
    random.seed(0)
    waits = []
    for _ in range(20):
        client = Client("http://127.0.0.1:1", None)
        client.heartbeat_seconds = 50.0
        waits.append(client.until_next_beat())
        await client.close()
    assert min(waits) < 10 < 40 < max(waits) <= 50


@pytest.mark.slow
def test_an_idle_worker_takes_the_interval_that_an_answer_tells_it(host: Host, stub: Stub) -> None:
    stub.heartbeat_seconds, stub.interval = 60.0, 0.1
    host.start()
    stub.wait_for(lambda: stub.count("/api/pool/heartbeat") > 4)


@pytest.mark.slow
def test_a_run_keeps_the_interval_of_its_claim(host: Host, stub: Stub) -> None:
    """A heartbeat that it sends meanwhile does not stretch it, or the lease would be too short."""
    stub.heartbeat_seconds, stub.interval = 0.1, 60.0
    host.start()
    stub.wait_for(lambda: stub.count("/api/pool/heartbeat"))
    run = stub.submit(SLEEP, heartbeat_seconds=0.1)
    stub.wait_for(lambda: stub.count("/api/job/renew") > 4)
    before = stub.count("/api/pool/heartbeat")
    stub.gpus.clear()  # so that it registers, and sends a heartbeat
    stub.wait_for(lambda: stub.count("/api/pool/heartbeat") > before + 1)
    beats = stub.count("/api/job/renew")
    stub.wait_for(lambda: stub.count("/api/job/renew") > beats + 4)
    stub.cancelled.add(run)
    assert stub.report(run)["outcome"] == "cancelled"
