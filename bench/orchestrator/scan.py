"""suggest and summary at 10^5 experiments, against the scanning way of answering them.

Twice: all of them in the search that is asked about, and spread over ten searches, which spares the
scanning way most of its work after the first filter.
"""

from pathlib import Path

from bench.harness.figures import Measurements, Row
from bench.harness.servers import application, orchestrator, redis_server
from bench.harness.wire import Connection
from bench.orchestrator.load import TAGS, Loader, tag_name
from bench.orchestrator.timing import Lane, timed

PATHS = {"suggest": "/api/search/suggest", "summary": "/api/report/summary"}
BAR = 20


def run(folder: Path, size: int, repetitions: int, requests: int) -> tuple[Measurements, list[Row]]:
    measured, rows = Measurements(), []
    for tags, where in ((1, "in one tag"), (TAGS, f"over {TAGS} tags")):
        _measure(measured, folder / str(tags), size, tags, where, repetitions, requests)
        rows += [_row(measured, name, size, where) for name in PATHS]
    return measured, rows


def _measure(
    measured: Measurements,
    folder: Path,
    size: int,
    tags: int,
    where: str,
    repetitions: int,
    requests: int,
) -> None:
    variables = {"SCANNED_EXPERIMENTS": str(size), "SCANNED_TAGS": str(tags)}
    with (
        redis_server(folder / "redis") as server,
        orchestrator(server, folder / "home") as ours,
        application("bench.orchestrator.scanning:app", folder / "scan", **variables) as scanning,
    ):
        Loader(server, ours.port).load(size, tags)
        for repetition in range(repetitions + 1):
            into = measured if repetition else Measurements()  # the first one warms up
            for name, path in PATHS.items():
                lanes = []
                for process in (ours, scanning):
                    connection = Connection(process.port)
                    request = connection.prepare("POST", path, {"tag": tag_name(0)})
                    lanes.append(Lane(process, connection, [request] * requests))
                for who, block in zip(("ours", "scanning"), timed(*lanes), strict=True):
                    into.add(f"{name} {where}, {who}: p50", block.p50_ms, "ms")


def _row(measured: Measurements, name: str, size: int, where: str) -> Row:
    scanning, ours = f"{name} {where}, scanning: p50", f"{name} {where}, ours: p50"
    detail = f"{measured.series[scanning].text()} ÷ {measured.series[ours].text()}"
    what = f"{name} at {size:,} {where}: the scanning way ÷ ours, p50"
    ratio = measured.ratio(scanning, ours)
    return Row(what, ratio, BAR, "x", at_least=True, detail=detail)
