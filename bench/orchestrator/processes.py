"""CPU a request with two orchestrator processes on one Redis, against one process.

Each process has a client of its own that writes without a pause, so the only difference is the
other process. The yardstick does the same in turn: by how much its ratio exceeds 1 comes from the
machine, whose cores and caches two processes share. Throughput has no bar, because clients and
Redis share the cores.
"""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness.figures import Measurements, Row
from bench.harness.servers import Process, application, orchestrator, redis_server
from bench.harness.wire import Connection
from bench.orchestrator.texts import IDEA

TAG = "processes"
# Which process each client writes to.
DRIVEN = {"one": (0,), "two": (0, 1)}
YARDSTICK = "bench.orchestrator.yardstick:app"


@dataclass(frozen=True)
class Target:
    """Two processes of one kind, and the write that they are sent."""

    prefix: str
    processes: tuple[Process, Process]
    path: str
    body: dict[str, Any]


def run(folder: Path, repetitions: int, requests: int) -> tuple[Measurements, list[Row]]:
    measured = Measurements()
    with (
        redis_server(folder / "redis") as server,
        orchestrator(server, folder / "home") as first,
        orchestrator(server, folder / "home") as second,
        application(YARDSTICK, folder / "yard-1", YARDSTICK_REDIS=server.url) as yard,
        application(YARDSTICK, folder / "yard-2", YARDSTICK_REDIS=server.url) as other_yard,
    ):
        Connection(first.port).post("/api/experiment/setup", tag=TAG)
        ours = Target("", (first, second), "/api/experiment/register", {"tag": TAG} | IDEA)
        bare = Target("yardstick, ", (yard, other_yard), "/item", {"item_id": "x", "value": 1.5})
        for repetition in range(repetitions + 1):
            into = measured if repetition else Measurements()  # the first one warms up
            for name, numbers in DRIVEN.items():
                for target in (ours, bare):
                    _drive(into, target.prefix + name, target, numbers, requests)
    rows = [_row(measured, "CPU per request, two processes ÷ one", "two: CPU", "one: CPU", 1.1)]
    for what, above, below in (
        ("the yardstick's", "yardstick, two: CPU", "yardstick, one: CPU"),
        ("throughput, two processes ÷ one", "two: throughput", "one: throughput"),
    ):
        rows.append(_row(measured, what, above, below))
    return measured, rows


def _row(
    measured: Measurements, what: str, above: str, below: str, bar: float | None = None
) -> Row:
    detail = f"{measured.series[above].text()} ÷ {measured.series[below].text()}"
    return Row(what, measured.ratio(above, below), bar, "x", detail=detail)


def _drive(
    measured: Measurements, name: str, target: Target, numbers: tuple[int, ...], requests: int
) -> None:
    """One client for each number, each sending `requests` writes as fast as they are answered."""
    servers = [target.processes[number] for number in numbers]
    connections = [Connection(server.port) for server in servers]

    def send(connection: Connection) -> None:
        request = connection.prepare("POST", target.path, target.body)
        for _ in range(requests):
            connection.send(request)

    clients = [threading.Thread(target=send, args=(connection,)) for connection in connections]
    distinct = {server.pid: server for server in servers}.values()
    before, start = sum(s.cpu_seconds() for s in distinct), time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    seconds, sent = time.perf_counter() - start, requests * len(servers)
    cpu = sum(server.cpu_seconds() for server in distinct) - before
    measured.add(f"{name}: CPU", cpu / sent * 1e6, "us")
    measured.add(f"{name}: throughput", sent / seconds, "requests/s")
