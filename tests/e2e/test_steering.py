"""Steering real workers: a pause holds the queue, a requeue ends a tree, a drain outlives all.

That a resume and an undrain wake a waiting claim at once: tests/api/test_steering.py."""

import signal
import time
from pathlib import Path

from tests.e2e.conftest import System, eventually, stub

WHY = {"reason": "because"}


def status(system: System, experiment_id: str) -> str:
    return str(system.get(f"/api/experiment/{experiment_id}")["status"])


def processes_with(word: str) -> list[str]:
    """Command lines of all processes that hold this word."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            line = (process / "cmdline").read_bytes() if process.name.isdigit() else b""
        except OSError:
            continue  # it has just ended
        if word.encode() in line:
            found.append(line.replace(b"\0", b" ").decode())
    return found


def test_a_pause_holds_the_queue_and_a_resume_lets_it_go(system: System) -> None:
    """The run that was under way is not touched; the worker waits in its long poll meanwhile."""
    system.serve()
    system.worker()
    system.post("/api/experiment/setup", tag="t")
    first = system.submit(stub(0.9, 1.5))
    eventually(lambda: status(system, first) == "running", what="a running run")
    system.post("/api/steer/pause", tag="t", **WHY)
    second = system.submit(stub(0.8))
    assert system.wait(first)["status"] == "keep"
    time.sleep(1)
    assert status(system, second) == "queued"
    system.post("/api/steer/resume", tag="t", **WHY)
    assert system.wait(second)["status"] == "keep"


def test_a_requeued_run_s_processes_end_and_it_is_trained_again(system: System) -> None:
    """Child and all; the second attempt is no loss and gives the verdict."""
    system.serve()
    system.worker()
    system.post("/api/experiment/setup", tag="t")
    mark = f"child-of-{system.folder.name}"
    source = f"""
import os, subprocess, sys, time
if os.environ["AUTORESEARCH_RUN"].endswith(".1"):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)", {mark!r}])
    time.sleep(100)
""" + stub(0.9)
    experiment_id = system.submit(source)
    eventually(lambda: processes_with(mark), what="the child of the first attempt")
    answer = system.post(f"/api/experiment/{experiment_id}/requeue", **WHY)
    assert answer["requeueing"]
    found = system.wait(experiment_id)
    assert (found["status"], found["val_bpb"]) == ("keep", 0.9)
    assert [a["outcome"] for a in found["attempts"]] == ["requeued", "completed"]
    assert processes_with(mark) == []


def test_a_drain_outlives_the_worker_and_ends_with_the_undrain(system: System) -> None:
    """Its run ends with a verdict. A new worker for the same GPU is drained from the start."""
    system.serve()
    worker = system.worker()
    system.post("/api/experiment/setup", tag="t")
    first = system.submit(stub(0.9, 1.5))
    eventually(lambda: status(system, first) == "running", what="a running run")
    system.post("/api/pool/drain", gpu_id="cpu-0", **WHY)
    second = system.submit(stub(0.8))
    assert system.wait(first)["status"] == "keep"
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert system.get("/api/pool/list")["workers"] == []
    system.worker()
    eventually(lambda: system.get("/api/pool/list")["workers"], what="the new worker")
    time.sleep(1)
    [gpu] = system.get("/api/pool/list")["workers"]
    assert (gpu["status"], gpu["drain"]["reason"]) == ("draining", "because")
    assert status(system, second) == "queued"
    system.post("/api/pool/undrain", gpu_id="cpu-0", **WHY)
    assert system.wait(second)["status"] == "keep"
