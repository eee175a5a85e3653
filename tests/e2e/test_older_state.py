"""State written by version 0.1 opens in this one: a home folder after kill -9, and a backup.

`tests/data` holds both, and what that version answered about them. They were written by its own
processes: keeps, a near miss, a crash, a time-out, a cancelled run, a run lost once, hand-runs, a
note, a pinned strategy that was released, a paused tag, a drained GPU, and a log in pieces.
"""

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.conftest import System

DATA = Path(__file__).parent.parent / "data"
ANSWERS = json.loads((DATA / "answers-0.1.json").read_text("utf-8"))


def autoresearch(system: System, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *arguments],
        env=system.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_what_it_answers(system: System) -> None:
    for tag in ("mar11", "apr02"):
        assert system.get("/api/experiment/history", tag=tag) == ANSWERS[tag]["history"]
        summary: dict[str, Any] = system.get("/api/report/summary", tag=tag)
        # By now the hand-run that was under way has been left for longer than it may take.
        assert summary["stats"].pop("abandoned") == (1 if tag == "apr02" else 0)
        expected: dict[str, Any] = json.loads(json.dumps(ANSWERS[tag]["summary"]))
        del expected["stats"]["abandoned"]
        expected["stats"] |= {"candidates": 0, "repeats": 0}  # words of the keep rule race
        assert summary == expected
    log = ANSWERS["log"]
    path = f"{system.url}/api/experiment/{log['experiment_id']}/log"
    content = httpx.get(path, timeout=40).content
    assert hashlib.sha256(content).hexdigest() == log["sha256"]
    assert httpx.get(path, headers={"Range": "bytes=-100"}, timeout=40).content == content[-100:]


def check_that_it_goes_on(system: System) -> None:
    """A queued run of the older version is trained once the tag and its GPU are free again."""
    queued = system.get("/api/experiment/history", tag="mar11", status="queued")["experiments"]
    system.post("/api/steer/resume", tag="mar11", reason="back")
    system.post("/api/pool/undrain", gpu_id="gpu-old", reason="a new fan")
    system.worker("gpu-old")
    decided = [system.wait(experiment["id"]) for experiment in queued]
    assert {experiment["status"] for experiment in decided} <= {"keep", "discard"}


def test_a_home_folder_of_the_version_before_starts_and_audits_clean(system: System) -> None:
    with tarfile.open(DATA / "home-0.1.tar.gz") as archive:
        archive.extractall(system.folder, filter="data")
    system.serve()
    check_what_it_answers(system)
    check_that_it_goes_on(system)
    assert "all as the journal says" in autoresearch(system, "audit")


def test_a_backup_of_the_version_before_restores_and_audits_clean(system: System) -> None:
    autoresearch(system, "restore", str(DATA / "backup-0.1.tar.gz"))
    assert "all as the journal says" in autoresearch(system, "audit")
    system.serve()
    check_what_it_answers(system)
    check_that_it_goes_on(system)
