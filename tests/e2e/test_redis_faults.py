"""Redis paused, cut off or killed while a real worker trains through a real orchestrator.

What a caller alone sees of that: tests/api/test_redis_faults.py.
"""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import System, eventually, stub
from tests.e2e.faults import decisions, embedded_url, outcomes, own_redis, try_post

pytestmark = pytest.mark.slow

LEASE = 2.0  # as System sets it


def spooled(system: System) -> list[Path]:
    """Results that wait on the worker's disk."""
    return list((system.folder / "home").glob("workers/*/runs/*/result.json"))


@pytest.mark.parametrize("fault", ["paused", "refused", "withheld"])
def test_a_run_that_ends_while_redis_is_away_is_decided_once_on_its_return(
    system: System, fault: str
) -> None:
    """Away for more than a lease. Callers get 503 with Retry-After, training goes on, the result
    is spooled and delivered; nobody takes the silence of the worker for its death."""
    with own_redis(system) as (proxy, pid, url):
        system.serve(REDIS_URL=proxy.url, AUTORESEARCH_REDIS_TIMEOUT_SECONDS="0.5")
        system.worker()
        system.post("/api/experiment/setup", tag="t")
        experiment_id = system.submit(stub(0.9, 2))
        system.training(experiment_id)
        if fault == "paused":
            os.kill(pid, signal.SIGSTOP)
        elif fault == "refused":
            proxy.set("refuse")
        else:
            proxy.set("drop answers")
        away = time.monotonic()
        refused = try_post(system, "/api/search/set-strategy", tag="t", mode="combine", reason="r")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        eventually(lambda: spooled(system), what="the spooled result")
        time.sleep(max(0.0, away + 1.5 * LEASE - time.monotonic()))
        if fault == "paused":
            os.kill(pid, signal.SIGCONT)
        else:
            proxy.set("pass")
        assert system.wait(experiment_id)["status"] == "keep"
        assert outcomes(system, experiment_id) == ["completed"]
        assert system.wait(system.submit(stub(0.8)))["status"] == "keep"
        assert set(decisions(url).values()) == {1}


def test_a_decision_whose_orchestrator_was_killed_before_it_could_answer_is_replayed(
    system: System,
) -> None:
    """kill -9 between the decision and its answer: the same request, sent to the next one, hears
    the verdict of the first, and nothing is decided again."""
    with own_redis(system) as (proxy, _, url):
        system.serve(REDIS_URL=url)
        port = int(system.url.rsplit(":", 1)[1])
        system.post("/api/experiment/setup", tag="t")
        body: dict[str, Any] = dict.fromkeys(
            ("hypothesis", "description", "category", "diff_summary"), "x"
        )
        ids = [
            system.post("/api/experiment/register", tag="t", commit_sha="abcdef0", **body)[
                "experiment_id"
            ]
            for _ in range(2)
        ]
        system.post("/api/experiment/complete", experiment_id=ids[0], val_bpb=1.0)
        system.processes[-1].terminate()
        system.processes[-1].wait()
        orchestrator = system.serve(port, REDIS_URL=proxy.url)
        report = {"experiment_id": ids[1], "val_bpb": 0.9}
        headers = {"idempotency-key": "k"}

        def complete() -> httpx.Response:
            return httpx.post(
                f"{system.url}/api/experiment/complete", json=report, headers=headers, timeout=30
            )

        def complete_in_vain() -> None:
            with pytest.raises(httpx.TransportError):
                complete()

        caller = threading.Thread(target=complete_in_vain)
        proxy.trap(b"keep_commit", "withhold")  # a word of the verdict: the decision is on its way
        caller.start()
        assert proxy.sprung.wait(20)
        eventually(lambda: decisions(url)[ids[1]] == 1, what="the decision")
        os.kill(orchestrator.pid, signal.SIGKILL)
        orchestrator.wait()
        caller.join()
        system.serve(port, REDIS_URL=url)
        answer = eventually(
            lambda: found if (found := complete()).status_code == 200 else None, what="the answer"
        )
        assert (answer.json()["status"], answer.json()["delta"]) == ("keep", pytest.approx(0.1))
        assert complete().content == answer.content
        assert decisions(url) == {ids[0]: 1, ids[1]: 1}


def test_a_killed_orchestrator_is_ready_again_within_five_seconds(system: System) -> None:
    """Its Redis lives on, so there is nothing to load. The best of three, and on a machine too busy
    to start one at all in that time, no longer than the first start took."""
    started = time.monotonic()
    orchestrator = system.serve()
    first = time.monotonic() - started
    port = int(system.url.rsplit(":", 1)[1])
    took = []
    for _ in range(3):
        os.kill(orchestrator.pid, signal.SIGKILL)
        orchestrator.wait()
        started = time.monotonic()
        orchestrator = system.serve(port)
        took.append(time.monotonic() - started)
        if took[-1] < 5:
            break
    assert min(took) < max(5, 1.5 * first)


def test_of_several_orchestrators_on_one_redis_any_may_be_killed(system: System) -> None:
    """The worker of the one that stays goes on; the other's worker finds it when it is back."""
    system.serve()
    first = system.url
    victim = system.serve()
    second, port = system.url, int(system.url.rsplit(":", 1)[1])
    system.worker("cpu-0", first)
    system.worker("cpu-1", second)
    system.url = first
    system.post("/api/experiment/setup", tag="t")
    eventually(lambda: system.get("/api/pool/list")["idle"] == 2, what="both workers")
    ids = [system.submit(stub(1 - i / 10, 2, str(i))) for i in range(2)]
    for experiment_id in ids:
        system.training(experiment_id)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    eventually(
        lambda: "keep" in {system.get(f"/api/experiment/{i}")["status"] for i in ids},
        what="a verdict through the one that stayed",
    )
    system.serve(port)
    for experiment_id in ids:
        system.wait(experiment_id)
        # The lease may have ended while its orchestrator was away: then it ran twice.
        assert outcomes(system, experiment_id)[-1] == "completed"
    assert decisions(embedded_url(system)) == dict.fromkeys(ids, 1)


def test_an_orchestrator_paused_for_longer_than_a_lease_reaps_nobody_when_it_wakes(
    system: System,
) -> None:
    """Nobody could renew meanwhile, so it waits a whole lease before it judges."""
    orchestrator = system.serve()
    system.worker()
    system.post("/api/experiment/setup", tag="t")
    experiment_id = system.submit(stub(0.9, 5))
    system.training(experiment_id)
    os.kill(orchestrator.pid, signal.SIGSTOP)
    time.sleep(1.5 * LEASE)
    os.kill(orchestrator.pid, signal.SIGCONT)
    assert system.wait(experiment_id)["status"] == "keep"
    assert outcomes(system, experiment_id) == ["completed"]
