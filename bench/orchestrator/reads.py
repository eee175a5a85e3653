"""Every read at three sizes of the history, the pool list at 1 000 GPUs, and memory.

The sizes are served at the same time and asked in turn. The answers are of one size: the tag holds
as many keeps at each size, and lists are asked for as many entries. If the answer of the smallest
history is shorter all the same, the largest is compared with the next one.
"""

import contextlib
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness.figures import Measurements, Row
from bench.harness.servers import Process, orchestrator, redis_server
from bench.harness.wire import Connection
from bench.orchestrator.load import Loader, settled, tag_name
from bench.orchestrator.timing import Lane, timed

TAG = tag_name(0)
POOL = 1000


@dataclass(frozen=True)
class Filled:
    """One orchestrator on a Redis that holds `size` experiments."""

    size: int
    process: Process
    connection: Connection
    redis: Any
    bytes_each: float
    record_bytes: float


def run(
    folder: Path, sizes: tuple[int, ...], repetitions: int, requests: int
) -> tuple[Measurements, list[Row]]:
    measured = Measurements()
    with contextlib.ExitStack() as stack:
        filled = [_filled(stack, folder / str(size), size) for size in sizes]
        for repetition in range(repetitions + 1):
            into = measured if repetition else Measurements()  # the first one warms up
            for name in _requests(filled[0]):
                lanes = [
                    Lane(e.process, e.connection, [_requests(e)[name]] * requests) for e in filled
                ]
                for each, block in zip(filled, timed(*lanes), strict=True):
                    into.add(f"{name} at {each.size}: p50", block.p50_ms, "ms")
                    into.add(f"{name} at {each.size}: CPU", block.cpu_us, "us")
                    into.add(f"{name} at {each.size}: answer", len(block.answers[0]), "bytes")
        rows = _growth_rows(measured, sizes, list(_requests(filled[0])))
        rows += _memory_rows(measured, filled)
        return measured, rows + _pool(measured, filled[0], repetitions)


def _filled(stack: contextlib.ExitStack, folder: Path, size: int) -> Filled:
    server = stack.enter_context(redis_server(folder / "redis", appendonly=False))
    process = stack.enter_context(orchestrator(server, folder / "home"))
    loader = Loader(server, process.port)
    bytes_each = loader.load(size)
    client = server.client()
    client.config_set("appendonly", "yes")
    settled(client)
    own = statistics.median(loader.record_bytes(copies=min(100, size // 10)))
    return Filled(size, process, Connection(process.port), client, bytes_each, own)


def _requests(filled: Filled) -> dict[str, bytes]:
    """Each read of the contract, prepared, by name."""
    ids = filled.redis.zrange(f"ar:{{{TAG}}}:all", -2, -1)
    get: Callable[[str], bytes] = lambda path: filled.connection.prepare("GET", path)  # noqa: E731
    return {
        "history, a page of 10": get(f"/api/experiment/history?tag={TAG}&limit=10"),
        "history of discards, 2": get(f"/api/experiment/history?tag={TAG}&status=discard&limit=2"),
        "best": get(f"/api/experiment/best?tag={TAG}"),
        "near-misses, 2": get(f"/api/experiment/near-misses?tag={TAG}&limit=2"),
        "detail": get(f"/api/experiment/{ids[0]}"),
        "diff of two": get(f"/api/report/diff?experiment_a={ids[0]}&experiment_b={ids[1]}"),
        "strategy": get(f"/api/search/strategy?tag={TAG}"),
        "suggest": get(f"/api/search/suggest?tag={TAG}"),
        "digest": get(f"/api/experiment/{ids[0]}/digest"),
        "brief": get(f"/api/report/brief?tag={TAG}"),
        "summary": get(f"/api/report/summary?tag={TAG}"),
        "tags": get("/api/report/tags"),
        "metrics": get("/metrics"),
    }


def _growth_rows(measured: Measurements, sizes: tuple[int, ...], names: list[str]) -> list[Row]:
    rows = []
    large = sizes[-1]
    for name in names:
        # A brief of ten experiments is shorter than one of a thousand.
        length = {size: measured.series[f"{name} at {size}: answer"].median for size in sizes}
        small = next(size for size in sizes if length[size] > 0.9 * length[large])
        above, below = f"{name} at {large}: p50", f"{name} at {small}: p50"
        detail = f"{measured.series[above].text()} ÷ {measured.series[below].text()}"
        what = f"{name}: at {large:,} experiments ÷ at {small:,}, p50"
        rows.append(Row(what, measured.ratio(above, below), 1.2, "x", detail=detail))
    return rows


def _memory_rows(measured: Measurements, filled: list[Filled]) -> list[Row]:
    rows = []
    for each in filled:
        measured.add(f"memory each at {each.size}", each.bytes_each, "bytes")
        measured.add(f"own keys each at {each.size}, median", each.record_bytes, "bytes")
    largest = filled[-1]
    detail = f"growth of used_memory; of it {largest.record_bytes:.0f} in the experiment's own keys"
    what = f"Redis memory per finished experiment at {largest.size:,}"
    rows.append(Row(what, largest.bytes_each / 1024, 3.0, "KB", detail=detail))
    return rows


def _pool(measured: Measurements, filled: Filled, repetitions: int) -> list[Row]:
    """The pool list, and how many commands it sends to Redis."""
    for index in range(1, POOL):  # the loader has registered one
        filled.connection.post(
            "/api/pool/register", gpu_id=f"g-{index}", gpu_index=0, gpu_name="g", vram_mb=1
        )
    request = filled.connection.prepare("GET", "/api/pool/list")
    for _ in range(repetitions):
        [block] = timed(Lane(filled.process, filled.connection, [request] * 5))
        measured.add("pool list: p50", block.p50_ms, "ms")
    assert json.loads(block.answers[0])["total"] == POOL
    detail = measured.series["pool list: p50"].text()
    sent = _commands_of(filled, request)
    return [Row(f"pool list at {POOL:,} GPUs, commands to Redis", sent, 1, detail=detail)]


def _commands_of(filled: Filled, request: bytes, count: int = 50) -> float:
    """Commands that one request sends, all kinds together. The reaper's and the event reader's own
    few a second disappear in the rounding."""
    before = _commands(filled.redis)
    for _ in range(count):
        filled.connection.send(request)
    return float(round((_commands(filled.redis) - before) / count))


def _commands(client: Any) -> int:
    """Commands from clients so far; those inside of scripts do not count as round trips."""
    stats = client.info("commandstats")
    inside = ("hgetall", "zrange", "time", "info", "hmget", "zrangebyscore")
    return sum(v["calls"] for k, v in stats.items() if k.removeprefix("cmdstat_") not in inside)
