"""A real search on the GPUs of this machine, and what came of it.

    python3 -m bench.search --gpus all --minutes 20 --budget 60 --out FOLDER

Brings up the system (`autoresearch up`). One built-in agent more than there are GPUs search in one
tag, so that the queue is never empty. When the time is over, what is queued is cancelled and what
runs is awaited. FOLDER gets a backup, results.tsv, the chart, and figures.json, which is printed as
a table. Training data must be there (uv run prepare.py). The home is a temporary folder unless
AUTORESEARCH_HOME names one, whose compile caches are used.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Queue
from statistics import fmean

import pynvml

from orchestrator.cli.client import Client
from orchestrator.cli.errors import ApiError
from orchestrator.cli.export import all_rows
from orchestrator.cli.run.demo_search import Search
from orchestrator.demo.agent import Agent
from orchestrator.schemas import (
    CancelRequest,
    ExperimentDetail,
    PauseAnswer,
    SetupRequest,
    TagSteerRequest,
)

TAG = "search"
COMMAND = [sys.executable, "-m", "orchestrator.cli"]
START_SECONDS = 120.0


@contextmanager
def system(folder: Path, gpus: str) -> Iterator[str]:
    """The URL of a system whose workers take runs."""
    environment = os.environ | {"AUTORESEARCH_HOME": str(folder), "AUTORESEARCH_PORT": "0"}
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [*COMMAND, "up", "--gpu", gpus, "--launcher", sys.executable, "--json"]
    with (folder / "up.log").open("wb") as log:
        up = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert up.stdout is not None
        line = up.stdout.readline()
        if not line:
            raise SystemExit((folder / "up.log").read_text())
        yield json.loads(line)["url"]
    finally:
        up.terminate()
        up.wait(60)


class Busy(threading.Thread):
    """Samples once a second how busy each GPU is, by NVML; without NVML there are no samples."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.percent: list[float] = []
        self.over = threading.Event()

    def run(self) -> None:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            gpus = range(pynvml.nvmlDeviceGetCount())
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in gpus]
            while not self.over.wait(1.0):
                rates = [pynvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in handles]
                self.percent.append(fmean(rates))


def agent(url: str, seed: int, end: float, baseline: Queue[ExperimentDetail]) -> None:
    """Search until `end`, then take back what has not begun. The first agent runs the baseline and
    hands it on to the others; what another one has tried already is not tried again."""
    source = Path("train.py").read_text("utf-8")
    with Client(url) as client:
        going = Search(client, TAG, sys.maxsize, Agent(source, seed))
        if seed > 0:
            try:
                first = baseline.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                return  # the baseline failed, or took all the time
            baseline.put(first)
            going.decided.append(first)
            going.agent.observe(first.id, None, first.val_bpb)
        while time.monotonic() < end and going.ended is None:
            with suppress(ApiError):
                for _ in going.run():
                    if seed == 0 and going.decided and baseline.empty():
                        baseline.put(going.decided[0])
                    if time.monotonic() > end:
                        break
        current = going.current
        if current is not None and current.status == "queued":
            client.cancel(current.id, CancelRequest(reason="time is over"))


def drained(client: Client) -> None:
    """Wait until nothing runs; a paused tag starts nothing."""
    request = TagSteerRequest(tag=TAG, reason="time is over")
    client.post("/api/steer/pause", PauseAnswer, request)
    while client.summary(TAG).stats.running:
        time.sleep(1)


def figures(
    client: Client, began: datetime, seconds: float, busy: list[float]
) -> dict[str, float | str]:
    """What the search came to; `seconds` are those in which the GPUs had work."""
    runs = [row for row in all_rows(client, TAG) if row.training_seconds]
    gpus = len(client.pool().workers)
    by_arm = Counter[str]()
    for row in runs:
        kind = "repeats" if row.status == "repeat" else row.category == "merge" and "merges"
        by_arm[kind or "ideas"] += row.training_seconds or 0.0
    keeps = Counter[str]()
    for row in runs:
        if row.status == "keep":
            verdict = client.experiment(row.id).verdict
            confirmed = getattr(verdict, "confirmed", None)  # only `race` says so
            keeps[{True: "confirmed", False: "provisional", None: "on one run"}[confirmed]] += 1
    best = client.best(TAG).best
    interval = best.estimate and f"{best.estimate.low:.6f} to {best.estimate.high:.6f}"
    return {
        "began": began.isoformat(timespec="seconds"),
        "GPUs": gpus,
        "minutes": round(seconds / 60, 1),
        "runs": len(runs),
        "runs per GPU and hour": round(len(runs) / (gpus * seconds / 3600), 1),
        "GPUs train, % of the clock": round(100 * by_arm.total() / (gpus * seconds), 1),
        "GPUs busy by NVML, %": round(fmean(busy), 1) if busy else "no NVML",
        "baseline's first run": next(row.val_bpb for row in runs if row.val_bpb is not None),
        "best": best.val_bpb,
        "best, 95 % interval": interval or "one run",
        **{f"keeps, {kind}": count for kind, count in keeps.items()},
    } | {f"GPU-hours of {name}": round(s / 3600, 3) for name, s in by_arm.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gpus", default="all", help="as for `autoresearch up --gpu`")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--budget", type=float, default=60, help="seconds of training in each run")
    parser.add_argument("--keep-rule", default="race", choices=["greedy", "greedy+merge", "race"])
    parser.add_argument("--out", type=Path, default=Path("search"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        system(home := Path(os.environ.get("AUTORESEARCH_HOME") or scratch), options.gpus) as url,
        Client(url) as client,
    ):
        client.setup(
            SetupRequest(tag=TAG, time_budget_seconds=options.budget, keep_rule=options.keep_rule)
        )
        deadline = time.monotonic() + START_SECONDS
        while not (gpus := len(client.pool().workers)):
            if time.monotonic() > deadline:
                raise SystemExit("no worker takes runs: see `autoresearch doctor`")
            time.sleep(0.5)
        began, start, busy = datetime.now(UTC), time.monotonic(), Busy()
        end = start + 60 * options.minutes
        busy.start()
        baseline: Queue[ExperimentDetail] = Queue()
        agents = [
            threading.Thread(target=agent, args=(url, seed, end, baseline))
            for seed in range(gpus + 1)
        ]
        for one in agents:
            one.start()
        for one in agents:
            one.join()
        busy.over.set()
        drained(client)
        found = figures(client, began, time.monotonic() - start, busy.percent)
        # Again: a search must not be lost because somebody cleaned up meanwhile.
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "figures.json").write_text(json.dumps(found, indent=1) + "\n")
        for name, value in found.items():
            print(f"{name:28} {value}")
        environment = os.environ | {"AUTORESEARCH_ORCHESTRATOR": url}
        environment["AUTORESEARCH_HOME"] = str(home)
        for words in (
            ["export", TAG, "-o", str(options.out / "results.tsv")],
            ["chart", TAG, "-o", str(options.out / "progress.svg")],
            ["backup", str(options.out / "backup.tar.gz")],
        ):
            subprocess.run([*COMMAND, *words], env=environment, check=True)


if __name__ == "__main__":
    main()
