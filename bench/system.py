"""The whole system on this machine with real experiments: what each run reached and what it cost.

Starts `autoresearch up` in a home of its own (embedded Valkey, orchestrator, one worker), submits
the baseline and as many one-constant variants as asked for, waits for the verdicts, and prints a
table: val_bpb, tokens, MFU, seconds outside training, and the GPU's memory before and after.

    uv run python -m bench.system --budget 120 --experiments 2
    uv run python -m bench.system --launcher python3        # on a host without uv's environment

Training data must be there (uv run prepare.py); AUTORESEARCH_CACHE says where.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pynvml

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = ("MATRIX_LR", "EMBEDDING_LR", "WEIGHT_DECAY")
START_SECONDS = 60


def gpu_memory_mb() -> float | None:
    """Memory in use on the first GPU, or None without one."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    used = pynvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20
    pynvml.nvmlShutdown()
    return float(used)


def sources(count: int) -> list[tuple[str, str]]:
    """The baseline, and variants of it with one learning rate changed by a quarter."""
    baseline = (ROOT / "train.py").read_text("utf-8")
    found = [("baseline", baseline)]
    for name in VARIANTS[: count - 1]:
        match = re.search(rf"^{name} = ([0-9.e-]+)", baseline, re.MULTILINE)
        if match is None:
            raise SystemExit(f"train.py has no constant {name}")
        value = float(match[1]) * 0.75
        text = baseline[: match.start(1)] + repr(value) + baseline[match.end(1) :]
        found.append((f"{name} {match[1]} -> {value:g}", text))
    return found


def wait_for(client: httpx.Client, path: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if client.get(path).status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        if time.monotonic() > deadline:
            raise SystemExit("the orchestrator did not start")
        time.sleep(0.2)


def seconds_between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end[:-1]) - datetime.fromisoformat(start[:-1])).total_seconds()


def run(client: httpx.Client, budget: float, count: int) -> list[dict[str, Any]]:
    """Submit everything at once and wait; the details in order of submission."""
    client.post("/api/experiment/setup", json={"tag": "bench", "time_budget_seconds": budget})
    ids = []
    for hypothesis, text in sources(count):
        body = {"tag": "bench", "hypothesis": hypothesis, "train_py": text, "category": "optimizer"}
        answer = client.post("/api/experiment/submit", json=body)
        answer.raise_for_status()
        ids.append(answer.json()["experiment_id"])
    details = []
    for experiment_id in ids:
        while True:
            answer = client.get(f"/api/experiment/{experiment_id}/wait", params={"timeout": 20})
            if answer.status_code == 200:
                break
        details.append(answer.json())
        print(f"  {details[-1]['hypothesis']}: {details[-1]['status']}", file=sys.stderr)
    return details


def table(details: list[dict[str, Any]]) -> str:
    rows = [f"{'experiment':30} status   val_bpb   tokens_M  steps  MFU_%  VRAM_MB  outside_s"]
    for d in details:
        wall = seconds_between(d["attempts"][-1]["claimed_at"], d["attempts"][-1]["ended_at"])
        outside = wall - (d["training_seconds"] or 0)
        rows.append(
            f"{d['hypothesis'][:30]:30} {d['status']:8} {d['val_bpb'] or 0:.6f} "
            f"{d['total_tokens_m'] or 0:9.1f} {d['num_steps'] or 0:6} {d['mfu_percent'] or 0:6.2f} "
            f"{d['peak_vram_mb'] or 0:8.0f} {outside:10.1f}"
        )
        if d["error"]:
            rows.append(f"    {d['error'][-300:]}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=float, default=120, help="seconds of training each")
    parser.add_argument("--experiments", type=int, default=2, help="runs, at most 4")
    parser.add_argument("--launcher", help="what runs train.py instead of `uv run`")
    parser.add_argument("--port", type=int, default=3199)
    arguments = parser.parse_args()

    before = gpu_memory_mb()
    with tempfile.TemporaryDirectory() as home:
        command = [
            sys.executable, "-m", "orchestrator.cli", "up",
            "--home", home, "--port", str(arguments.port), "--project", str(ROOT),
        ]  # fmt: skip
        if arguments.launcher:
            command += ["--launcher", arguments.launcher]
        with (Path.cwd() / "bench-system.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)
        client = httpx.Client(base_url=f"http://127.0.0.1:{arguments.port}", timeout=60)
        try:
            wait_for(client, "/readyz")
            details = run(client, arguments.budget, arguments.experiments)
            summary = client.get("/api/report/summary", params={"tag": "bench"}).json()
            pool = client.get("/api/pool/list").json()
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(120)
    print(table(details))
    print("best:", json.dumps(summary["best"]), "stats:", json.dumps(summary["stats"]))
    print("worker:", json.dumps(pool["workers"]))
    print(f"`up` ended with {code}; GPU memory before {before} MB, after {gpu_memory_mb()} MB")


if __name__ == "__main__":
    main()
