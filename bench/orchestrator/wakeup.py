"""From a job's entry into the queue until its waiting worker has it, against BLPOP.

Both clocks start inside Redis, by its TIME in the script that enqueues (ours is in the experiment's
id), and stop when the waiter's blocking call returns. One machine, so one clock.
"""

import secrets
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from bench.harness.figures import Measurements, Row
from bench.harness.servers import RedisProcess, orchestrator, redis_server
from bench.harness.wire import Connection
from bench.orchestrator.texts import IDEA

PUSH = """
local time = redis.call('TIME')
redis.call('RPUSH', KEYS[1], time[1] * 1000000 + time[2])
"""
TAG, GPU = "wake-up", "wake-up-gpu"
# A waiter must stand in line before the next job comes, and the line be quiet.
PAUSE_SECONDS = 0.03
SOURCE = "# a train.py of the usual length\n" + "x = 1\n" * 4600


def run(folder: Path, repetitions: int, samples: int) -> tuple[Measurements, list[Row]]:
    measured = Measurements()
    with (
        redis_server(folder / "redis") as server,
        orchestrator(server, folder / "home") as ours,
    ):
        api = Connection(ours.port)
        api.post("/api/experiment/setup", tag=TAG)
        api.post("/api/pool/register", gpu_id=GPU, gpu_index=0, gpu_name="g", vram_mb=1)
        for _ in range(repetitions):
            measured.add("BLPOP: p50", statistics.median(_blpop(server, samples)), "ms")
            measured.add("claim: p50", statistics.median(_claims(ours.port, samples)), "ms")
    ratio = measured.ratio("claim: p50", "BLPOP: p50")
    detail = f"{measured.series['claim: p50'].text()} ÷ {measured.series['BLPOP: p50'].text()}"
    row = Row("job enqueued -> waiting worker has it ÷ BLPOP, p50", ratio, 3, "x", detail=detail)
    return measured, [row]


def _blpop(server: RedisProcess, samples: int) -> list[float]:
    producer, consumer = server.client(), server.client()
    push = producer.register_script(PUSH)

    def wait() -> int:
        popped = consumer.blpop(["wake-up"], timeout=10)
        return int(float(popped[1]))

    return _delays(samples, wait, lambda: push(keys=["wake-up"]))


def _claims(port: int, samples: int) -> list[float]:
    producer, consumer, finisher = Connection(port), Connection(port), Connection(port)
    idea = {k: v for k, v in IDEA.items() if k != "commit_sha"}
    jobs: SimpleQueue[dict[str, object]] = SimpleQueue()

    def wait() -> int:
        body = {"gpu_id": GPU, "claim_id": secrets.token_hex(8)}
        job = consumer.post("/api/job/claim?wait=10", **body)["job"]
        jobs.put(job)
        return int(job["experiment_id"][4:18], 16)

    def submit() -> None:
        source = f"# {secrets.token_hex(8)}\n{SOURCE}"
        producer.post("/api/experiment/submit", tag=TAG, train_py=source, **idea)
        job = jobs.get()
        lease = {name: job[name] for name in ("experiment_id", "gpu_id", "epoch")}
        finisher.post("/api/job/finish", outcome="completed", metrics={"val_bpb": 1.0}, **lease)

    return _delays(samples, wait, submit)


def _delays(samples: int, wait: Callable[[], int], push: Callable[[], object]) -> list[float]:
    """Milliseconds from the push (what `wait` answers, in µs) to the return of `wait`."""
    delays: list[float] = []

    def consume() -> None:
        for _ in range(samples):
            pushed = wait()
            delays.append((time.time() - pushed / 1e6) * 1e3)

    consumer = threading.Thread(target=consume)
    consumer.start()
    for _ in range(samples):
        time.sleep(PAUSE_SECONDS)
        push()
    consumer.join()
    return delays
