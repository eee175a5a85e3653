"""Writes against the yardstick: register, acquire, heartbeat, complete and finish with a decision.

All servers share one Redis (AOF, fsync always) and take turns request by request.
"""

import itertools
import json
import random
from pathlib import Path

from bench.harness.figures import Measurements, Row
from bench.harness.servers import Process, RedisProcess, application, orchestrator, redis_server
from bench.harness.wire import Connection
from bench.orchestrator.texts import IDEA, METRICS
from bench.orchestrator.timing import Block, Lane, timed
from orchestrator.rules.race.state import FIRST_SEED

TAG = "writes"
KEEP_RULES = ("greedy", "race")
POOLS = (8, 1000)
LEASE = ("experiment_id", "gpu_id", "epoch", "lease_secret")


def run(folder: Path, repetitions: int, requests: int) -> tuple[Measurements, list[Row]]:
    measured = Measurements()
    with (
        redis_server(folder / "redis") as server,
        application(
            "bench.orchestrator.yardstick:app", folder / "yardstick", YARDSTICK_REDIS=server.url
        ) as yardstick,
        # The GPUs of the pool send no heartbeats, and must not go offline.
        orchestrator(server, folder / "home", offline_seconds=86_400) as ours,
    ):
        bench = _Writes(server, yardstick, ours)
        bench.repetition(Measurements(), requests // 4)  # connections, scripts, caches
        for _ in range(repetitions):
            bench.repetition(measured, requests)
    return measured, _rows(measured)


class _Writes:
    def __init__(self, server: RedisProcess, yardstick: Process, ours: Process) -> None:
        self._server, self._yardstick, self._ours = server, yardstick, ours
        self._to_yardstick = Connection(yardstick.port)
        self._to_ours = Connection(ours.port)
        self._numbers = itertools.count()
        self._random = random.Random(7)
        self._best = 2.0
        self._to_ours.post("/api/experiment/setup", tag=TAG)
        for rule in KEEP_RULES:
            self._to_ours.post("/api/experiment/setup", tag=rule, keep_rule=rule)
        self._fill_pool(0, POOLS[0])
        self._pool = POOLS[0]

    def repetition(self, measured: Measurements, requests: int) -> None:
        """Each kind of write once, in turn with the yardstick."""
        self._record(measured, "heartbeat", self._heartbeats(requests))
        register = self._registers(requests)
        self._record(measured, "register", register)
        ids = [json.loads(answer)["experiment_id"] for answer in register[0].answers]
        for size in POOLS:
            self._resize_pool(size)
            self._record(measured, f"acquire at {size}", self._acquires(ids[: requests // 2]))
        self._record(measured, "complete", self._completes(ids))
        self._resize_pool(POOLS[0])
        for rule in KEEP_RULES:
            self._to_ours.post("/api/steer/resume", tag=rule, reason="its turn")
            self._record(measured, f"finish under {rule}", self._finishes(rule, requests // 2))
            self._to_ours.post("/api/steer/pause", tag=rule, reason="the other's turn")

    @staticmethod
    def _record(measured: Measurements, name: str, blocks: list[Block]) -> None:
        for who, block in zip((name, f"{name}'s yardstick"), blocks, strict=True):
            measured.add(f"{who}: p50", block.p50_ms, "ms")
            measured.add(f"{who}: CPU", block.cpu_us, "us")

    def _in_turn(self, requests: list[bytes]) -> list[Block]:
        """Ours, and the yardstick's write after each of ours."""
        make = self._to_yardstick.prepare
        numbers = itertools.islice(self._numbers, len(requests))
        items = [make("POST", "/item", {"item_id": f"item-{n}", "value": 1.5}) for n in numbers]
        return timed(
            Lane(self._ours, self._to_ours, requests),
            Lane(self._yardstick, self._to_yardstick, items),
        )

    def _heartbeats(self, count: int) -> list[Block]:
        body = {"gpu_id": "gpu-0", "health": {"temperature_c": 61, "memory_used_mb": 70_000}}
        return self._in_turn([self._to_ours.prepare("POST", "/api/pool/heartbeat", body)] * count)

    def _registers(self, count: int) -> list[Block]:
        body = {"tag": TAG} | IDEA
        path = "/api/experiment/register"
        return self._in_turn([self._to_ours.prepare("POST", path, body)] * count)

    def _acquires(self, ids: list[str]) -> list[Block]:
        """In blocks of a small pool, so that an idle GPU is always there; releases untimed."""
        ours, yardstick, size = Block(), Block(), POOLS[0]
        for start in range(0, len(ids), size):
            bodies = [{"experiment_id": i} for i in ids[start : start + size]]
            path = "/api/pool/acquire"
            found = self._in_turn([self._to_ours.prepare("POST", path, body) for body in bodies])
            ours += found[0]
            yardstick += found[1]
            for answer in map(json.loads, found[0].answers):
                assert answer["acquired"], answer
                self._to_ours.post("/api/pool/release", gpu_id=answer["gpu_id"])
        return [ours, yardstick]

    def _completes(self, ids: list[str]) -> list[Block]:
        """Mostly discards, now and then a keep and a near miss, as a search has them."""
        requests = []
        for experiment_id in ids:
            kept = self._random.random() < 0.05
            self._best -= 0.0001 * kept
            val_bpb = self._best if kept else self._best + self._random.random() * 0.05
            body = {"experiment_id": experiment_id, "val_bpb": val_bpb} | METRICS
            requests.append(self._to_ours.prepare("POST", "/api/experiment/complete", body))
        return self._in_turn(requests)

    def _finishes(self, rule: str, count: int) -> list[Block]:
        """Reports of a pool whose queue always holds an idea; submissions and claims untimed. Under
        `race` every fourth idea reads as the champion does, so it is repeated, and its repeats read
        so too."""
        ours, yardstick = Block(), Block()
        for _ in range(max(1, count // POOLS[0])):
            reports = []
            for index in range(POOLS[0]):
                source = {"train_py": f"# {next(self._numbers)}\n", "hypothesis": "an idea"}
                self._to_ours.post("/api/experiment/submit", tag=rule, **source)
                claim = {"gpu_id": f"gpu-{index}", "claim_id": f"claim-{next(self._numbers)}"}
                job = self._to_ours.post("/api/job/claim", **claim)["job"]
                lease = {name: job[name] for name in LEASE}
                worse = job["seed"] == FIRST_SEED and self._random.random() < 0.75
                val_bpb = 1 + 0.01 * worse + self._random.gauss(0, 0.0015)
                body = {"outcome": "completed", "metrics": {"val_bpb": val_bpb} | METRICS}
                path = "/api/job/finish"
                reports.append(self._to_ours.prepare("POST", path, lease | body))
            found = self._in_turn(reports)
            ours += found[0]
            yardstick += found[1]
        return [ours, yardstick]

    def _fill_pool(self, start: int, stop: int) -> None:
        for index in range(start, stop):
            self._to_ours.post(
                "/api/pool/register",
                gpu_id=f"gpu-{index}", gpu_index=index % 8, gpu_name="Test GPU", vram_mb=80_000,
            )  # fmt: skip

    def _resize_pool(self, size: int) -> None:
        for index in range(size, self._pool):
            self._to_ours.post("/api/pool/deregister", gpu_id=f"gpu-{index}")
        self._fill_pool(self._pool, size)
        self._pool = size


def _rows(measured: Measurements) -> list[Row]:
    rows = []
    bars = {"register": 1.3, "acquire at 8": 1.3, "heartbeat": 1.3, "complete": 2.0}
    bars |= {"finish under greedy": 2.5, "finish under race": 2.5}
    for name, bar in bars.items():
        for quantity in ("p50", "CPU"):
            ours, yardstick = f"{name}: {quantity}", f"{name}'s yardstick: {quantity}"
            detail = f"{measured.series[ours].text()} ÷ {measured.series[yardstick].text()}"
            ratio = measured.ratio(ours, yardstick)
            rows.append(Row(f"{name} ÷ yardstick, {quantity}", ratio, bar, "x", detail=detail))
    small, large = (f"acquire at {size}: p50" for size in POOLS)
    detail = f"{measured.series[large].text()} ÷ {measured.series[small].text()}"
    ratio = measured.ratio(large, small)
    rows.append(Row("acquire at 1 000 GPUs ÷ at 8, p50", ratio, 1.2, "x", detail=detail))
    return rows
