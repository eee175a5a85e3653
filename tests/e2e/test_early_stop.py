"""Early stop through real processes: a condemned run's whole tree ends, and it is reported once."""

import subprocess
import sys
from hashlib import sha256
from typing import Any

import pytest

from gpu_worker.devices import open_gpu
from orchestrator.rules.early_stop import CALIBRATED, SPARED_OF
from tests.e2e.conftest import System, eventually
from tests.e2e.test_main_job import events_of, marked

pytestmark = pytest.mark.slow  # thirty runs come first

# It stays at 40 % of its budget for a minute, with a child that has left its process group.
HOPELESS = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
for percent in range(0, 42, 2):
    print(f"step {percent} ({percent}%) | loss: {9.0 if percent == 0 else 3.2 + 2 - percent / 50}")
sys.stdout.flush()
time.sleep(60)
"""


def curve(level: float) -> list[dict[str, float]]:
    later = [{"step": p, "percent": p, "loss": level + 2 - p / 50} for p in range(2, 101, 2)]
    return [{"step": 0, "percent": 0, "loss": 9.0}, *later]


def calibrated(system: System, more: str = "") -> str:
    """A tag whose early stop has seen enough runs of a worker that is gone; the id of a queued run
    that it will not spare."""
    system.post("/api/experiment/setup", tag="t", early_stop=True)
    model = open_gpu("cpu").device.model  # a tag runs on one
    gpu = {"gpu_id": "gone", "gpu_index": 9, "gpu_name": model, "vram_mb": 1}
    system.post("/api/pool/register", **gpu)
    for number in range(CALIBRATED):
        system.submit(f"run = {number}\n")
        claim = {"gpu_id": "gone", "claim_id": f"claim-{number:04}"}
        job = system.post("/api/job/claim", **claim)["job"]
        level = 3.0 + 0.01 * number
        value = 0.3 * level + 0.001 * (number % 3)
        names = ("experiment_id", "gpu_id", "epoch", "lease_secret")
        report: dict[str, Any] = {name: job[name] for name in names}
        report |= {"metrics": {"val_bpb": value}, "curve": curve(level)}
        system.post("/api/job/finish", outcome="completed", **report)
    for number in range(100):
        found = system.submit(f"# {number}\n{more}\n{HOPELESS}")
        if int(sha256(found.encode()).hexdigest(), 16) % SPARED_OF:
            return found
        system.post(f"/api/experiment/{found}/cancel")
    raise AssertionError("all ids are spared")


def check_ended_once(system: System, experiment_id: str) -> None:
    found = system.wait(experiment_id)
    assert (found["status"], found["stopped_early"]) == ("discard", True)
    assert found["verdict"]["predicted_val_bpb"] == pytest.approx(0.96, abs=0.002)
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["stopped"]
    marker = f"AUTORESEARCH_RUN={experiment_id}.1".encode()
    eventually(lambda: not marked(marker), what="the end of the run's processes")
    assert events_of(system.folder / "home")[experiment_id] == 1
    audit = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "audit", "t"],
        env=system.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert audit.returncode == 0, audit.stdout + audit.stderr


def test_a_condemned_runs_process_tree_ends_and_it_is_reported_once(system: System) -> None:
    system.serve()
    experiment_id = calibrated(system)
    system.worker()
    system.training(experiment_id)
    check_ended_once(system, experiment_id)
    assert f"{experiment_id}.1: early_stop" in system.logs()


def test_an_orchestrator_killed_after_the_condemnation_loses_nothing(system: System) -> None:
    """The condemnation is in Redis: the next orchestrator that is asked tells the worker."""
    first = system.serve()
    experiment_id = calibrated(
        system, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    )
    system.worker(AUTORESEARCH_KILL_AFTER_SECONDS="8")  # the run holds out that long

    def condemned() -> bool:
        return bool(system.get(f"/api/experiment/{experiment_id}")["stopping"] == "early")

    eventually(condemned, 60, "the condemnation")
    first.kill()
    first.wait()
    system.serve(int(system.url.rpartition(":")[2]))
    check_ended_once(system, experiment_id)
