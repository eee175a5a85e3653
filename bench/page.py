"""What the dashboard costs: first paint in a browser, an idle page, claims beside many pages.

    uv run python -m bench.page [--runs 1000 100000] [--clients 200] [--json FILE]

Needs Chromium (`chromium` on the PATH). Starts its own Redis and orchestrator, and ends them.
"""

import argparse
import asyncio
import contextlib
import json
import secrets
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.harness.figures import Measurements
from bench.harness.servers import Process, RedisProcess, ended, orchestrator, redis_server
from bench.harness.wire import Connection
from bench.histories import write

CHROMIUM_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
LOADS = 7
IDLE_SECONDS = 20
ROUNDS = 4
CLAIMS = 60
# Ten claims a second: three thousand GPUs of five minutes a run.
PACE_SECONDS = 0.1


# ---------------------------------------------------------------------------- in the browser


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        raise SystemExit("no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield chromium
        chromium.close()


def opened(chromium: Any, url: str) -> tuple[Any, dict[str, float]]:
    """A page in a new context, so that nothing is cached, and its marks in ms."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(url)
    text = "performance.getEntriesByType('mark').map(mark => [mark.name, mark.startTime])"
    marks: dict[str, float] = {}
    while "tag:complete" not in marks:
        page.wait_for_timeout(50)
        marks = dict(page.evaluate(text))
    return page, marks


def paints(
    chromium: Any, redis: RedisProcess, folder: Path, runs: int, found: Measurements
) -> None:
    """Cold loads of the Tag page: the first right after the start of the orchestrator, the others
    later. The chart is drawn in the frame after its mark, so one frame is added."""
    with orchestrator(redis, folder / f"paint-{runs}") as process:
        url = f"http://127.0.0.1:{process.port}/t/t{runs}"
        for load in range(LOADS + 1):
            page, marks = opened(chromium, url)
            name = f"{runs} runs, {'right after the start' if load == 0 else 'later'}"
            found.add(f"{name}: chart", marks["tag:chart"] + 1000 / 60, "ms")
            found.add(f"{name}: all parts", marks["tag:complete"], "ms")
            page.context.close()


def idle(chromium: Any, process: Process, runs: int, found: Measurements) -> None:
    """The orchestrator's CPU with one open page and with none, in turn."""
    for _ in range(2):
        found.add("idle, no page", cpu_share(process), "% of a core")
        page, _ = opened(chromium, f"http://127.0.0.1:{process.port}/t/t{runs}")
        time.sleep(4)
        asked: list[str] = []
        page.on("request", lambda request, seen=asked: seen.append(request.url))
        found.add("idle, one page", cpu_share(process), "% of a core")
        found.add(f"requests of an idle page in {IDLE_SECONDS} s", len(asked), "")
        page.context.close()


def cpu_share(process: Process) -> float:
    before, start = process.cpu_seconds(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return 100 * (process.cpu_seconds() - before) / (time.monotonic() - start)


# ---------------------------------------------------------------------------- beside open pages


def read_streams(port: int, clients: int) -> None:
    """Keep `clients` event streams open and read them, until standard input ends."""
    selector = selectors.DefaultSelector()
    for _ in range(clients):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(b"GET /api/events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        selector.register(sock, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print(json.dumps({"reading": clients}), flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return
            assert isinstance(key.fileobj, socket.socket)
            if not key.fileobj.recv(1 << 16):
                raise SystemExit("a stream ended")


@contextlib.contextmanager
def streams(port: int, clients: int) -> Iterator[None]:
    if not clients:
        yield
        return
    command = [sys.executable, "-m", "bench.page", "--read-streams", str(port), str(clients)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with ended(process):
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(1)
        yield


class Fleet:
    """One worker that claims and finishes, with the time of its claims."""

    def __init__(self, port: int) -> None:
        self._api = Connection(port)
        self._api.post("/api/experiment/setup", tag="claims")
        gpu = {"gpu_id": "g", "gpu_index": 0, "gpu_name": "Test GPU", "vram_mb": 80_000}
        self._api.post("/api/pool/register", **gpu)

    def claim_ms(self) -> float:
        """Submit, claim, finish; the time of the claim."""
        source = f"# {secrets.token_hex(8)}\n"
        self._api.post("/api/experiment/submit", tag="claims", hypothesis="h", train_py=source)
        body = {"gpu_id": "g", "claim_id": secrets.token_hex(8)}
        start = time.perf_counter()
        job = self._api.post("/api/job/claim", **body)["job"]
        took = (time.perf_counter() - start) * 1000
        lease = {name: job[name] for name in ("experiment_id", "gpu_id", "epoch", "lease_secret")}
        metrics = {"val_bpb": 0.98}
        self._api.post("/api/job/finish", outcome="completed", metrics=metrics, **lease)
        return took


def claims(process: Process, clients: int, found: Measurements) -> None:
    """Claims with no stream open and with many, in turn, so that drift affects both."""
    fleet = Fleet(process.port)
    for _ in range(20):
        fleet.claim_ms()
    for _ in range(ROUNDS):
        for count in (0, clients):
            with streams(process.port, count):
                before, start = process.cpu_seconds(), time.monotonic()
                took = []
                for _ in range(CLAIMS):
                    took.append(fleet.claim_ms())
                    time.sleep(PACE_SECONDS)
                share = 100 * (process.cpu_seconds() - before) / (time.monotonic() - start)
            found.add(f"claim, {count} streams, median", statistics.median(took), "ms")
            found.add(f"claim, {count} streams, p95", statistics.quantiles(took, n=20)[-1], "ms")
            found.add(f"CPU at ten claims a second, {count} streams", share, "% of a core")


# ---------------------------------------------------------------------------- all of it


def measure(runs: list[int], clients: int, only: str | None) -> Measurements:
    found = Measurements()
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name) / "redis") as redis:
        folder = Path(name)
        if only != "claims":
            for count in runs:
                asyncio.run(write(redis.url, f"t{count}", count, min(count / 84, 200)))
            with browser() as chromium:
                for count in runs:
                    paints(chromium, redis, folder, count, found)
                with orchestrator(redis, folder / "idle") as process:
                    idle(chromium, process, min(runs), found)
        if only != "paint":
            with orchestrator(redis, folder / "claims") as process:
                claims(process, clients, found)
                pair = [f"claim, {count} streams, median" for count in (clients, 0)]
                found.add(f"claim, {clients} streams against none", found.ratio(*pair), "times")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--only", choices=["paint", "claims"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--read-streams", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read_streams:
        read_streams(*given.read_streams)
        return
    found = measure(given.runs, given.clients, given.only)
    for name, series in found.series.items():
        print(f"{name}: {series.text()}")
    if given.json:
        given.json.write_text(json.dumps(found.as_json(), indent=2), "utf-8")


if __name__ == "__main__":
    main()
