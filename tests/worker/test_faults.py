"""What each fault does to a run, injected into real processes (docs/reliability.md)."""

import json
import os
import signal
import time

import pytest

from gpu_worker.order import orphan_seconds
from tests.worker.conftest import BLOCK, SLEEP, WAIT, Host, end, eventually
from tests.worker.stub import Json, Stub

# Prints numbers, so that gaps and doubles in its log show, until the test releases it.
COUNTING = """
import os, time
number = 0
while not os.path.exists("go"):
    print(number, flush=True)
    number += 1
    time.sleep(0.02)
"""


def _journal(host: Host) -> list[Json]:
    return [json.loads(line) for line in host.folder.journal.read_text().splitlines()]


def test_a_killed_worker_that_comes_back_adopts_its_run(host: Host, stub: Stub) -> None:
    """Same epoch, one start, and a log without gaps or doubles."""
    run = stub.submit(COUNTING + BLOCK)
    worker = host.start()
    stub.wait_for(lambda: run in stub.logs)
    end(worker, signal.SIGKILL)
    host.start()
    eventually(lambda: f"{run}: adopted" in host.log)
    host.release(run)
    assert stub.report(run)["outcome"] == "completed"
    numbers = stub.output(run).partition("---")[0].split()
    assert numbers == [str(number) for number in range(len(numbers))]
    assert [entry["event"] for entry in _journal(host)] == ["started", "ended"]


def test_a_killed_worker_that_stays_away_leaves_no_tree_behind(host: Host, stub: Stub) -> None:
    """A lease later the run is dead; the next worker reports it as lost."""
    stub.lease_seconds = 1.5
    run = stub.submit(SLEEP)
    worker = host.start()
    stub.wait_for(lambda: run in stub.logs)
    end(worker, signal.SIGKILL)
    killed = time.monotonic()
    eventually(lambda: host.processes() == {})
    assert time.monotonic() - killed < 5
    host.start()
    report = stub.report(run)
    assert report["outcome"] == "lost"
    assert "gone until the lease ran out" in report["error"]


@pytest.mark.parametrize("heartbeat", [0.1, 5, 15])
def test_an_orphan_is_dead_before_another_worker_can_get_its_run(heartbeat: float) -> None:
    """The last renewal may be a heartbeat older than the last tick."""
    lease = 30.0
    last_tick = heartbeat  # the last renewal was at 0
    assert last_tick + orphan_seconds(lease, heartbeat) < lease
    assert orphan_seconds(lease, heartbeat) > lease / 3


def test_a_run_that_ended_while_its_worker_was_dead_is_reported_by_the_next(
    host: Host, stub: Stub
) -> None:
    """The supervisor's result waits on disk."""
    run = stub.submit(WAIT + BLOCK)
    worker = host.start()
    stub.wait_for(lambda: run in stub.logs)
    end(worker, signal.SIGKILL)
    host.release(run)
    eventually(host.run_folder(run).result.exists)
    host.start()
    assert stub.report(run)["outcome"] == "completed"
    assert stub.output(run).endswith("depth: 2\n")


def test_a_killed_supervisor_costs_its_run_and_nothing_else(
    host: Host, stub: Stub, level: str
) -> None:
    """The tree is dead, the run is given back, and the GPU trains the next one."""
    run = stub.submit(SLEEP)
    worker = host.start(sandbox=level)
    stub.wait_for(lambda: run in stub.logs)
    killed = time.monotonic()
    os.kill(host.supervisor_of(run), signal.SIGKILL)
    assert stub.report(run)["outcome"] == "lost"
    assert host.processes_of(run) == {}
    assert time.monotonic() - killed < 5
    assert stub.report(stub.submit(BLOCK))["outcome"] == "completed"
    assert end(worker) == 0
    assert [entry["event"] for entry in _journal(host)] == ["started", "ended"] * 2


def test_worker_and_supervisor_killed_together_leave_no_tree_behind(host: Host, stub: Stub) -> None:
    """The guard kills the tree; the next worker reports the loss."""
    run = stub.submit(SLEEP)
    worker = host.start(sandbox="none")
    stub.wait_for(lambda: run in stub.logs)
    supervisor = host.supervisor_of(run)
    worker.send_signal(signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    worker.wait()
    eventually(lambda: host.processes() == {})
    host.start()
    assert "supervisor died" in stub.report(run)["error"]


def test_a_run_goes_on_while_the_orchestrator_is_away(host: Host, stub: Stub) -> None:
    """Its result is delivered once the orchestrator answers again."""
    run = stub.submit(WAIT + BLOCK)
    host.start()
    stub.wait_for(lambda: run in stub.logs)
    stub.stop()
    host.release(run)
    eventually(host.run_folder(run).result.exists)
    eventually(lambda: "cannot serve" in host.log)
    stub.start()
    assert stub.report(run)["outcome"] == "completed"
    assert stub.output(run).endswith("depth: 2\n")
    eventually(lambda: "is back" in host.log)


def test_a_result_waits_on_disk_for_the_orchestrator_and_a_new_worker(
    host: Host, stub: Stub
) -> None:
    """The first worker drains without an answer; the next one delivers the result first."""
    run = stub.submit(WAIT + BLOCK)
    worker = host.start()
    stub.wait_for(lambda: run in stub.logs)
    stub.mode = "503"
    host.release(run)
    eventually(host.run_folder(run).result.exists)
    worker.send_signal(signal.SIGINT)
    eventually(lambda: "draining" in host.log)
    assert end(worker, signal.SIGINT) == 130
    assert f"kept for the next start: {run}" in host.log
    stub.mode = "up"
    another = stub.submit(BLOCK)
    host.start()
    stub.report(another)
    assert list(stub.finished) == [run, another]
    assert stub.finished[run]["outcome"] == "completed"


def test_what_a_run_wrote_is_deleted_before_its_report_is_settled(host: Host, stub: Stub) -> None:
    """On a full disk the orchestrator could not take the report."""
    run = stub.submit(WAIT + "os.mkdir('deep'); open('deep/big', 'w').close()\n" + BLOCK)
    host.start()
    stub.wait_for(lambda: run in stub.logs)
    stub.mode = "503"
    host.release(run)
    workspace = host.run_folder(run).workspace
    eventually(lambda: {path.name for path in workspace.iterdir()} <= {"train.py", "prepare.py"})
    stub.mode = "up"
    assert stub.report(run)["outcome"] == "completed"


def test_an_orchestrator_that_does_not_answer_is_asked_again(host: Host, stub: Stub) -> None:
    """Connections that break without an answer stop neither the worker nor its run."""
    stub.mode = "silent"
    run = stub.submit(WAIT + BLOCK)
    worker = host.start()
    eventually(lambda: "cannot serve" in host.log)
    stub.mode = "up"
    stub.wait_for(lambda: run in stub.logs)
    stub.mode = "silent"
    host.release(run)
    eventually(host.run_folder(run).result.exists)
    assert worker.poll() is None
    stub.mode = "up"
    assert stub.report(run)["outcome"] == "completed"


def test_a_claim_whose_answer_was_lost_gets_the_same_job(host: Host, stub: Stub) -> None:
    """The claim is sent again with its id, so no job is claimed twice or lost."""
    stub.lose_claim_answers = 2
    run = stub.submit(BLOCK)
    host.start()
    assert stub.report(run)["outcome"] == "completed"
    claims = [body["claim_id"] for path, body in stub.calls if path == "/api/job/claim"]
    assert claims[:3] == [claims[0]] * 3
    assert len(stub.leases) == 1


def test_a_run_whose_lease_is_lost_is_killed_and_dropped(host: Host, stub: Stub) -> None:
    """409 on a renewal: another worker may have the run. The tree dies, nothing is reported."""
    run = stub.submit(SLEEP)
    host.start(kill_after_seconds=60)
    stub.wait_for(lambda: run in stub.logs)
    stub.lost.add(run)
    eventually(lambda: host.processes_of(run) == {})
    after = stub.submit(BLOCK)
    assert stub.report(after)["outcome"] == "completed"
    assert run not in stub.finished
    assert f"{run}: the lease is lost" in host.log


def test_a_report_with_a_stale_epoch_is_dropped(host: Host, stub: Stub) -> None:
    """The lease is lost between the last renewal and the end: the report gets 409."""
    stub.heartbeat_seconds = 1.0
    run = stub.submit(WAIT)
    host.start()
    stub.wait_for(lambda: stub.count("/api/job/renew"))
    stub.lost.add(run)
    host.release(run)
    assert stub.report(stub.submit(BLOCK))["outcome"] == "completed"
    assert run not in stub.finished
    assert "dropped" in host.log


def test_a_gpu_that_the_orchestrator_has_forgotten_registers_again(host: Host, stub: Stub) -> None:
    """After a Redis that restarted empty the pool fills again by itself."""
    worker = host.start(claim_wait_seconds=0.2)
    stub.wait_for(lambda: stub.count("/api/job/claim"))
    with stub.changed:
        stub.gpus.clear()
    assert stub.report(stub.submit(BLOCK))["outcome"] == "completed"
    assert end(worker) == 0
    assert stub.count("/api/pool/register") == 2


def test_a_refused_registration_ends_the_worker_with_a_reason(host: Host, stub: Stub) -> None:
    stub.refuse_registration = True
    assert host.start().wait(timeout=15) == 2
    assert "does not take this worker" in host.log
