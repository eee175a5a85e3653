"""CPU a request with two orchestrator processes on one Redis, against one process.

Each process has a client of its own that writes without a pause, so what differs is the neighbour.
Besides, two clients on the one process: its loop then serves two requests a turn, which is cheaper.
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
# Which process each client writes to.
DRIVEN = {"one": (0,), "two": (0, 1), "one with two clients": (0, 0)}


def run(folder: Path, repetitions: int, requests: int) -> tuple[Measurements, list[Row]]:
    measured = Measurements()
    with (
        redis_server(folder / "redis") as server,
        orchestrator(server, folder / "home") as first,
        orchestrator(server, folder / "home") as second,
    ):
        both = (first, second)
        Connection(first.port).post("/api/experiment/setup", tag=TAG)
        for repetition in range(repetitions + 1):
            into = measured if repetition else Measurements()  # the first one warms up
            for name, numbers in DRIVEN.items():
                _drive(into, name, [both[n] for n in numbers], requests)
    return measured, [
        _row(measured, "CPU per request, two processes ÷ one", "two: CPU", "one: CPU", 1.1),
        _row(
            measured,
            "the same against one process with two clients",
            "two: CPU",
            "one with two clients: CPU",
        ),
        _row(
            measured,
            "throughput, two processes ÷ one with two clients (shared cores)",
            "two: throughput",
            "one with two clients: throughput",
        ),
    ]


def _row(
    measured: Measurements, what: str, above: str, below: str, bar: float | None = None
) -> Row:
    detail = f"{measured.series[above].text()} ÷ {measured.series[below].text()}"
    return Row(what, measured.ratio(above, below), bar, "x", detail=detail)


def _drive(measured: Measurements, name: str, targets: list[Process], requests: int) -> None:
    """One client a target, each sending `requests` registrations as fast as they are answered."""
    connections = [Connection(target.port) for target in targets]

    def send(connection: Connection) -> None:
        request = connection.prepare("POST", "/api/experiment/register", {"tag": TAG} | IDEA)
        for _ in range(requests):
            connection.send(request)

    clients = [threading.Thread(target=send, args=(connection,)) for connection in connections]
    servers = {target.pid: target for target in targets}.values()
    before, start = sum(s.cpu_seconds() for s in servers), time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    seconds, sent = time.perf_counter() - start, requests * len(targets)
    cpu = sum(server.cpu_seconds() for server in servers) - before
    measured.add(f"{name}: CPU", cpu / sent * 1e6, "us")
    measured.add(f"{name}: throughput", sent / seconds, "requests/s")
