"""How long a GPU idles between two runs: from the end of a tree to the start of the next launcher.

A real orchestrator and a real worker (on the CPU, with a train.py that prints its result at once)
run a full queue. The times are the worker's own: its journal notes when a run's processes are gone
(`ended`) and when the next launcher has been executed (`started`).

    uv run python -m bench.orchestrator --only gap
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.harness.figures import Measurements, Row, percentile
from bench.harness.servers import ROOT, ended, orchestrator, redis_server
from bench.harness.wire import Connection
from orchestrator.settings import HomePaths

TAG, GPU = "gap", "gap-gpu"
SOURCE = """
from autoresearch_run import measured
measured(0.99)
print("---")
print("val_bpb: 0.99")
"""
RUN_SECONDS = 10.0  # more than a run takes on a busy machine


def measure(folder: Path, runs: int) -> list[float]:
    """Milliseconds between runs, of a queue of `runs`."""
    home = folder / "home"
    with (
        redis_server(folder / "redis") as server,
        orchestrator(server, home, prepare_py=ROOT / "prepare.py") as process,
    ):
        api = Connection(process.port)
        api.post("/api/experiment/setup", tag=TAG)
        for number in range(runs):
            # One source with many seeds, so that the queue is full at once.
            fields = {"tag": TAG, "hypothesis": "gap", "train_py": SOURCE, "seed": number}
            api.post("/api/experiment/submit", **fields)
        with ended(_worker(process.port, home, folder)):
            _await_finish(api, runs)
    journal = HomePaths(home).worker_dir(GPU) / "journal.jsonl"
    return gaps([json.loads(line) for line in journal.read_text("utf-8").splitlines()])


def gaps(entries: list[dict[str, Any]]) -> list[float]:
    """From each `ended` to the `started` after it, in milliseconds."""
    found, end = [], None
    for entry in entries:
        if entry["event"] == "ended":
            end = entry["monotonic"]
        elif entry["event"] == "started" and end is not None:
            found.append((entry["monotonic"] - end) * 1e3)
            end = None
    return found


def _worker(port: int, home: Path, folder: Path) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable, "-m", "orchestrator.cli", "worker", "--gpu", "cpu", "--gpu-id", GPU,
        "--orchestrator", f"http://127.0.0.1:{port}", "--home", str(home), "--check", "false",
        "--launcher", sys.executable, "--lock-dir", str(folder / "locks"),
    ]  # fmt: skip
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AUTORESEARCH_")}
    with (folder / "worker.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=clean)


def _await_finish(api: Connection, runs: int) -> None:
    deadline = time.monotonic() + runs * RUN_SECONDS
    while True:
        stats = api.get(f"/api/report/summary?tag={TAG}")["stats"]
        if stats["total"] >= runs:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"the queue was not done in time: {stats}")
        time.sleep(0.5)


def run(folder: Path, runs: int) -> tuple[Measurements, list[Row]]:
    measured = Measurements()
    found = measure(folder, runs)
    for value in found:
        measured.add("gap", value, "ms")
    detail = f"p90 {percentile(found, 90):.1f} ms, {len(found)} gaps"
    what = "exit of one run's tree -> exec of the next run's launcher, median"
    return measured, [Row(what, measured.median("gap"), 50, "ms", detail=detail)]
