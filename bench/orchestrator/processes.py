"""CPU a request with two orchestrator processes on one Redis, against one process.

Each process has a client of its own that writes without a pause, so what differs is the neighbour.
(Two clients on one process would make its loop serve two requests a turn, and that cheaper.)
Throughput is told but not judged: clients and Redis share the cores.
"""

import threading
import time
from pathlib import Path

from bench.harness.figures import Measurements, Row
from bench.harness.servers import Process, orchestrator, redis_server
from bench.harness.wire import Connection
from bench.orchestrator.texts import IDEA

TAG = "processes"


def run(folder: Path, repetitions: int, requests: int) -> tuple[Measurements, list[Row]]:
    measured = Measurements()
    with (
        redis_server(folder / "redis") as server,
        orchestrator(server, folder / "home") as first,
        orchestrator(server, folder / "home") as second,
    ):
        Connection(first.port).post("/api/experiment/setup", tag=TAG)
        for repetition in range(repetitions + 1):
            into = measured if repetition else Measurements()  # the first one warms up
            for name, targets in (("one", (first,)), ("two", (first, second))):
                _drive(into, name, targets, requests)
    ratio = measured.ratio("two: CPU", "one: CPU")
    detail = f"{measured.series['two: CPU'].text()} ÷ {measured.series['one: CPU'].text()}"
    gain = measured.ratio("two: throughput", "one: throughput")
    return measured, [
        Row("CPU per request, two processes ÷ one", ratio, 1.1, "x", detail=detail),
        Row("throughput, two processes ÷ one (shared cores)", gain, None, "x"),
    ]


def _drive(measured: Measurements, name: str, targets: tuple[Process, ...], requests: int) -> None:
    """One client a target, each sending `requests` registrations as fast as they are answered."""
    connections = [Connection(target.port) for target in targets]

    def send(connection: Connection) -> None:
        request = connection.prepare("POST", "/api/experiment/register", {"tag": TAG} | IDEA)
        for _ in range(requests):
            connection.send(request)

    clients = [threading.Thread(target=send, args=(connection,)) for connection in connections]
    before, start = sum(t.cpu_seconds() for t in targets), time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    seconds, sent = time.perf_counter() - start, requests * len(targets)
    cpu = sum(target.cpu_seconds() for target in targets) - before
    measured.add(f"{name}: CPU", cpu / sent * 1e6, "us")
    measured.add(f"{name}: throughput", sent / seconds, "requests/s")
