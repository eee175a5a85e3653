"""How many GPUs orchestrators on one Redis serve: a fleet of virtual workers over HTTP.

Each virtual GPU has two connections, as a worker does: one for heartbeats and renewals of its
lease, at the interval that it is told, and, between runs, one that claims and reports. Four in five
train (runs of 300 s, which end at random moments), the others wait in a claim; each run that ends
is followed by a new job. With --logs a piece of the log and the curve follow each renewal, as from
a training that prints. The GPUs are spread over the orchestrators. The whole fleet is one client
process on the same machine, so the latencies include its own delays.

A knee is extrapolated, not measured: there the process in question would use KNEE of a core, by its
CPU per request in this run. So measure at a rate that the machine bears: CPU per request depends
less than a latency on what else the cores do.

    uv run python -m bench.fleet --gpus 5000
    uv run python -m bench.fleet --gpus 2000 --processes 2 --heartbeats 400 --logs
    TMPDIR=/dev/shm uv run python -m bench.fleet --gpus 1000 --logs       # without the disk
    uv run python -m bench.fleet                 # 2 500, 5 000, 7 500, 10 000, while p99 < 250 ms
"""

import argparse
import asyncio
import base64
import contextlib
import gc
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.harness.channel import Channel
from bench.harness.figures import percentile
from bench.harness.servers import Process, RedisProcess, orchestrator, redis_server
from bench.harness.wire import HttpError
from gpu_worker.client import jitter

TAG = "fleet"
HEARTBEAT_SECONDS = 5.0
RUN_SECONDS = 300.0
TRAINING_SHARE = 0.8
CLAIM_WAIT_SECONDS = 20
STEPS = (2500, 5000, 7500, 10_000)
BAR_MS = 250.0
KNEE = 0.6  # of a core: at 48 % a p99 of 201 ms was measured, at 90 % one of 1.1 s
Report = dict[str, float]  # what a fleet of one size cost, by quantity
AT_ONCE = 32  # registrations and first submissions under way
LOG = {"offset": 0, "data": base64.b64encode(b"x" * 1024).decode()}
CURVE = [{"step": n, "percent": n / 2.56, "loss": 3.0} for n in range(128)]
HEALTH = {"temperature_c": 61, "memory_used_mb": 70_000, "utilization_percent": 99}


@dataclass
class Latencies:
    """Milliseconds by kind of request, of those sent while `recording`."""

    recording: bool = False
    by_kind: dict[str, list[float]] = field(default_factory=dict)

    async def of(self, kind: str, call: Coroutine[Any, Any, Any]) -> Any:
        start = time.perf_counter()
        answer = await call
        if self.recording:
            self.by_kind.setdefault(kind, []).append((time.perf_counter() - start) * 1e3)
        return answer


class Gpu:
    """One virtual worker."""

    def __init__(self, number: int, port: int, latencies: Latencies, *, logs: bool) -> None:
        self._id = f"gpu-{number:05d}"
        self.interval = HEARTBEAT_SECONDS
        self._phase = random.random() * 1e6
        self._logs = logs
        self._beats = Channel(port)
        self._work = Channel(port)
        self._latencies = latencies
        self._job: dict[str, Any] | None = None

    async def register(self) -> None:
        await self._work.post(
            "/api/pool/register", gpu_id=self._id, gpu_index=0, gpu_name="Test GPU", vram_mb=80_000
        )

    async def beat(self) -> None:
        """Send heartbeats; during a run renewals of its lease, which are heartbeats too."""
        while True:
            late = (time.perf_counter() + self._phase) % self.interval
            await asyncio.sleep(self.interval - late)
            job = self._job
            if job is None:
                beat = self._beats.post("/api/pool/heartbeat", gpu_id=self._id, health=HEALTH)
            else:
                beat = self._beats.post("/api/job/renew", health=HEALTH, **job)
            try:
                answer = await self._latencies.of("heartbeat", beat)
                if job is None:
                    if self._job is None:
                        self.interval = answer["heartbeat_seconds"]
                elif self._logs:
                    progress = self._beats.post("/api/job/progress", log=LOG, curve=CURVE, **job)
                    await self._latencies.of("progress", progress)
            except HttpError:
                if self._job is job:  # else its run ended while the renewal was on its way
                    raise

    async def work(self, submissions: "asyncio.Queue[None]") -> None:
        """Claim, train, report; each run that ends is followed by a new submission."""
        remaining = random.random() * RUN_SECONDS
        for claim in range(1_000_000):
            answer = await self._work.post(
                f"/api/job/claim?wait={jitter(CLAIM_WAIT_SECONDS)}",
                gpu_id=self._id,
                claim_id=f"{self._id}-{claim}",
            )
            if answer["job"] is None:
                continue
            lease = {
                name: answer["job"][name]
                for name in ("experiment_id", "gpu_id", "epoch", "lease_secret")
            }
            self._job, self.interval = lease, answer["job"]["heartbeat_seconds"]
            self._work.close()
            await asyncio.sleep(remaining)
            remaining, self._job = RUN_SECONDS, None
            metrics = {"val_bpb": 0.99 + random.random() / 10}
            report = self._work.post(
                "/api/job/finish", outcome="completed", metrics=metrics, **lease
            )
            await self._latencies.of("finish", report)
            submissions.put_nowait(None)


class Fleet:
    def __init__(self, gpus: int, ports: Sequence[int], *, logs: bool) -> None:
        self.latencies = Latencies()
        self._gpus = [
            Gpu(number, ports[number % len(ports)], self.latencies, logs=logs)
            for number in range(gpus)
        ]
        self._agent = Channel(ports[0])
        self._submissions: asyncio.Queue[None] = asyncio.Queue()
        self._seed = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Register all GPUs, queue the first jobs, start heartbeats and work."""
        await self._agent.post("/api/experiment/setup", tag=TAG)
        await self._baseline()
        await _at_once(gpu.register() for gpu in self._gpus)
        for _ in range(int(len(self._gpus) * TRAINING_SHARE)):
            await self._submit()
        for gpu in self._gpus:
            self._spawn(gpu.beat())
            self._spawn(gpu.work(self._submissions))
        self._spawn(self._submit_on_demand())

    async def _baseline(self) -> None:
        """Without a result, reports would wait for the first submission's."""
        idea = dict.fromkeys(("hypothesis", "description", "category", "diff_summary"), "fleet")
        path = "/api/experiment/register"
        made = await self._agent.post(path, tag=TAG, commit_sha="c0ffee", **idea)
        experiment_id = made["experiment_id"]
        await self._agent.post("/api/experiment/complete", experiment_id=experiment_id, val_bpb=1.0)

    def interval(self) -> float:
        """Seconds between two heartbeats of a GPU, the median."""
        return percentile([gpu.interval for gpu in self._gpus], 50)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    def check(self) -> None:
        """Raise the error of a virtual worker that has stopped."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def _submit_on_demand(self) -> None:
        while True:
            await self._submissions.get()
            await self.latencies.of("submit", self._submit())

    async def _submit(self) -> None:
        """One source with many seeds, so that the queue is measured and not the compiler."""
        self._seed += 1
        await self._agent.post(
            "/api/experiment/submit",
            tag=TAG,
            hypothesis="fleet",
            train_py="x = 1\n",
            seed=self._seed,
        )


async def _at_once(calls: Any) -> None:
    """Run the calls, `AT_ONCE` at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(call: Coroutine[Any, Any, None]) -> None:
        async with gate:
            await call

    await asyncio.gather(*(one(call) for call in calls))


class Meter:
    """Running totals of servers and client, and what they grew by from one `read` to the next."""

    def __init__(self, server: RedisProcess, processes: Sequence[Process]) -> None:
        self._server, self._processes = server, processes
        self._totals = self._read()

    def _read(self) -> dict[str, float]:
        with self._server.client() as client:
            commands = client.info("stats")["total_commands_processed"]
        return {
            "seconds": time.perf_counter(), "commands": float(commands),
            "orchestrators": sum(process.cpu_seconds() for process in self._processes),
            "redis": self._server.cpu_seconds(), "client": time.process_time(),
        }  # fmt: skip

    def read(self) -> dict[str, float]:
        before, self._totals = self._totals, self._read()
        return {name: total - before[name] for name, total in self._totals.items()}


async def measure(
    gpus: int, seconds: float, server: RedisProcess, processes: Sequence[Process], *, logs: bool
) -> Report:
    """Measure a fleet of `gpus` for `seconds`, after 25 s and one interval of warm-up."""
    with server.client() as client:
        empty = client.info("memory")["used_memory"]
    fleet = Fleet(gpus, [process.port for process in processes], logs=logs)
    await fleet.start()
    await asyncio.sleep(5 * HEARTBEAT_SECONDS)
    await asyncio.sleep(fleet.interval())
    gc.disable()  # collections of the client, of up to 0.3 s, would count as the server's
    meter = Meter(server, processes)
    fleet.latencies.recording = True
    await asyncio.sleep(seconds)
    fleet.check()
    gc.enable()
    grown, by_kind = meter.read(), fleet.latencies.by_kind
    with server.client() as client:
        used = client.info("memory")["used_memory"] - empty
    requests = sum(map(len, by_kind.values()))
    return {
        "GPUs": gpus,
        "orchestrators": len(processes),
        "interval (s)": fleet.interval(),
        "heartbeat p50 (ms)": percentile(by_kind["heartbeat"], 50),
        "heartbeat p99 (ms)": percentile(by_kind["heartbeat"], 99),
        "requests/s": requests / grown["seconds"],
        "CPU per request: orchestrators (ms)": grown["orchestrators"] / requests * 1e3,
        "Redis (ms)": grown["redis"] / requests * 1e3,
        "client (ms)": grown["client"] / requests * 1e3,
        "busiest core (%)": 100
        * max(grown["orchestrators"] / len(processes), grown["redis"], grown["client"])
        / grown["seconds"],
        "Redis commands per request": grown["commands"] / requests,
        "Redis MB per 1 000 GPUs": used / 2**20 / gpus * 1000,
        "RSS of an orchestrator (MB)": max(process.resident_mb() for process in processes),
    }


def knees(report: Report) -> str:
    """Where one process of each kind would have used KNEE of a core, by CPU per request."""
    per_gpu = report["requests/s"] / report["GPUs"]
    lines = [f"Extrapolated to {KNEE:.0%} of a core, GPUs at {report['interval (s)']:.3g} s:"]
    for process, figure in (
        ("an orchestrator", "CPU per request: orchestrators (ms)"),
        ("Redis", "Redis (ms)"),
    ):
        knee = KNEE * 1e3 / report[figure]
        lines.append(f"  {process}: {knee:,.0f} requests/s, {knee / per_gpu:,.0f} GPUs")
    return "\n".join(lines)


def run(gpus: int, options: argparse.Namespace) -> Report:
    """One fleet on fresh orchestrators and a fresh Redis."""
    flags = {"max_heartbeats_per_second": options.heartbeats} if options.heartbeats else {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(redis_server(folder / "redis"))
        processes = [
            stack.enter_context(orchestrator(server, folder / "home", **flags))
            for _ in range(options.processes)
        ]
        return asyncio.run(measure(gpus, options.seconds, server, processes, logs=options.logs))


def table(reports: list[Report]) -> str:
    """The reports as Markdown."""
    lines = [f"| {' | '.join(reports[0])} |", "|---" * len(reports[0]) + "|"]
    for report in reports:
        figures = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in report.values())
        lines.append(f"| {' | '.join(figures)} |")
    return "\n".join(lines)


def raise_descriptor_limit(wanted: int = 65_536) -> None:
    """Two connections a GPU; the orchestrator, started from here, inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(ValueError):  # only root may raise the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, hard),) * 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gpus", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--seconds", type=float, default=20, help="how long each is measured")
    parser.add_argument("--processes", type=int, default=1, help="orchestrators on one Redis")
    parser.add_argument("--heartbeats", type=float, help="a second of all GPUs, else as shipped")
    parser.add_argument("--logs", action="store_true", help="runs send a log and a curve too")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    arguments = parser.parse_args()
    raise_descriptor_limit()
    reports: list[Report] = []
    for gpus in arguments.gpus:
        reports.append(run(gpus, arguments))
        print(table(reports[-1:]), knees(reports[-1]), sep="\n", file=sys.stderr)
        if reports[-1]["heartbeat p99 (ms)"] >= BAR_MS:
            break
    print(table(reports))
    if arguments.json:
        arguments.json.write_text(json.dumps(reports, indent=1), "utf-8")


if __name__ == "__main__":
    main()
