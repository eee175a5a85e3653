"""suggest and summary of one search of 10^5 experiments, against the scanning way of answering."""

from pathlib import Path

from bench.harness.figures import Measurements, Row
from bench.harness.servers import application, orchestrator, redis_server
from bench.harness.wire import Connection
from bench.orchestrator.load import Loader, tag_name
from bench.orchestrator.timing import Lane, timed

PATHS = {"suggest": "/api/search/suggest", "summary": "/api/report/summary"}


def run(folder: Path, size: int, repetitions: int, requests: int) -> tuple[Measurements, list[Row]]:
    measured = Measurements()
    with (
        redis_server(folder / "redis") as server,
        orchestrator(server, folder / "home") as ours,
        application(
            "bench.orchestrator.scanning:app", folder / "scanning", SCANNED_EXPERIMENTS=str(size)
        ) as scanning,
    ):
        Loader(server, ours.port).load(size, tags=1)
        for repetition in range(repetitions + 1):
            into = measured if repetition else Measurements()  # the first one warms up
            for name, path in PATHS.items():
                lanes = []
                for process in (ours, scanning):
                    connection = Connection(process.port)
                    request = connection.prepare("POST", path, {"tag": tag_name(0)})
                    lanes.append(Lane(process, connection, [request] * requests))
                for who, block in zip(("ours", "scanning"), timed(*lanes), strict=True):
                    into.add(f"{name}, {who}: p50", block.p50_ms, "ms")
    return measured, _rows(measured, size)


def _rows(measured: Measurements, size: int) -> list[Row]:
    rows = []
    for name in PATHS:
        scanning, ours = f"{name}, scanning: p50", f"{name}, ours: p50"
        detail = f"{measured.series[scanning].text()} ÷ {measured.series[ours].text()}"
        what = f"{name} at {size:,}: the scanning way ÷ ours, p50"
        ratio = measured.ratio(scanning, ours)
        rows.append(Row(what, ratio, 20, "x", at_least=True, detail=detail))
    return rows
