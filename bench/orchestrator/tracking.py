"""One experiment from its registration to its verdict, against the same work in MLflow.

Ours: register, complete; its answer has the decision and the best. MLflow's tracking server on
SQLite: create a run, log eight metrics in one batch, terminate it, look up the best. Both over one
kept-alive connection, ten runs of the one and ten of the other in turn, with 10^3 and 10^4 runs
there already.
"""

import contextlib
import itertools
import json
import os
import random
import shlex
import signal
import sqlite3
import statistics
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.harness.figures import Measurements, Row
from bench.harness.servers import listening, orchestrator, redis_server
from bench.harness.wire import Connection
from bench.orchestrator.load import Loader, tag_name
from bench.orchestrator.texts import IDEA, METRICS

BARS = {1000: 20.0, 10_000: 40.0}
START_SECONDS = 180.0
IN_A_ROW = 10  # of each side; one at a time, each finds the caches full of the other


def run(
    folder: Path, command: str, repetitions: int, samples: int
) -> tuple[Measurements, list[Row]]:
    """`command` starts mlflow (`uv tool run mlflow`, say)."""
    measured, rows = Measurements(), []
    for size, bar in BARS.items():
        with (
            redis_server(folder / f"redis-{size}") as server,
            orchestrator(server, folder / f"home-{size}" / "home") as ours,
            _mlflow(folder / f"mlflow-{size}", command) as port,
        ):
            # One tag takes all, as MLflow's one experiment does.
            Loader(server, ours.port).load(size, tags=1)
            mine, theirs = _Ours(ours.port), _MLflow(port, folder / f"mlflow-{size}")
            theirs.fill(size)
            for repetition in range(repetitions + 1):
                into = measured if repetition else Measurements()  # the first one warms up
                ours_ms, theirs_ms = _in_turn(mine, theirs, samples)
                into.add(f"ours at {size}", ours_ms, "ms")
                into.add(f"MLflow at {size}", theirs_ms, "ms")
        above, below = f"MLflow at {size}", f"ours at {size}"
        detail = f"{measured.series[above].text()} ÷ {measured.series[below].text()}"
        what = f"MLflow's work on one run ÷ ours, at {size:,} runs"
        ratio = measured.ratio(above, below)
        rows.append(Row(what, ratio, bar, "x", at_least=True, detail=detail))
    return measured, rows


def _in_turn(mine: "_Ours", theirs: "_MLflow", samples: int) -> tuple[float, float]:
    """Median milliseconds of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(0, samples, IN_A_ROW):
        for kept, work in zip(times, (mine.one, theirs.one), strict=True):
            for _ in range(IN_A_ROW):
                start = time.perf_counter()
                work()
                kept.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


class _Ours:
    def __init__(self, port: int) -> None:
        self._api = Connection(port)
        self._tag = tag_name(0)
        self._random = random.Random(7)

    def one(self) -> None:
        registered = self._api.post("/api/experiment/register", tag=self._tag, **IDEA)
        experiment_id, val_bpb = registered["experiment_id"], 0.99 + self._random.random() / 10
        verdict = self._api.post(
            "/api/experiment/complete", experiment_id=experiment_id, val_bpb=val_bpb, **METRICS
        )
        assert verdict["best_val_bpb"] <= val_bpb


class _MLflow:
    def __init__(self, port: int, folder: Path) -> None:
        self._port = port
        self._api = Connection(port)
        self._database = folder / "mlflow.db"
        self._random = random.Random(7)
        created = self._call("experiments/create", name="bench")
        self._experiment = created["experiment_id"]

    def _call(self, path: str, **body: Any) -> Any:
        return self._api.post(f"/api/2.0/mlflow/{path}", **body)

    def one(self) -> str:
        now = int(time.time() * 1e3)
        run = self._call("runs/create", experiment_id=self._experiment, start_time=now)
        run_id = run["run"]["info"]["run_id"]
        values = {"val_bpb": 0.99 + self._random.random() / 10} | METRICS
        metrics = [
            {"key": key, "value": value, "timestamp": now, "step": 0}
            for key, value in values.items()
        ]
        self._call("runs/log-batch", run_id=run_id, metrics=metrics)
        self._call("runs/update", run_id=run_id, status="FINISHED", end_time=now)
        best = {"max_results": 1, "order_by": ["metrics.val_bpb ASC"]}
        found = self._call("runs/search", experiment_ids=[self._experiment], **best)
        assert found["runs"]
        return str(run_id)

    def fill(self, count: int) -> None:
        """Copies of one run, row by row in each table that knows it, written to the database."""
        template = self.one()
        with contextlib.closing(sqlite3.connect(self._database, timeout=30)) as database:
            tables = [
                name
                for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")
                if name in ("runs", "metrics", "latest_metrics", "tags", "params")
            ]
            ids = [uuid.uuid4().hex for _ in range(count)]
            for table in tables:
                for row in database.execute(
                    f"SELECT * FROM {table} WHERE run_uuid = ?",  # noqa: S608 - fixed names
                    (template,),
                ).fetchall():
                    places = ", ".join("?" * len(row))
                    copies = ([i if v == template else v for v in row] for i in ids)
                    database.executemany(f"INSERT INTO {table} VALUES ({places})", copies)  # noqa: S608
            spread = ((0.99 + self._random.random() / 10, i) for i in ids)
            database.executemany(
                "UPDATE latest_metrics SET value = ? WHERE key = 'val_bpb' AND run_uuid = ?", spread
            )
            # SQLite plans by guesses without it: the best lookup took 10 s at 10^4 runs.
            database.execute("ANALYZE")
            database.commit()
        self._api = Connection(self._port)  # the server has closed the idle one by now


@contextlib.contextmanager
def _mlflow(folder: Path, command: str) -> Iterator[int]:
    """MLflow's tracking server with one worker; its port."""
    folder.mkdir(parents=True)
    with listening() as sock:
        port = int(sock.getsockname()[1])
    arguments = [
        *shlex.split(command), "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    # Its own job runners would take CPU from its tracking server.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | {
        name: value
        for name, value in os.environ.items()
        if name not in ("VIRTUAL_ENV", "PYTHONPATH")
    }
    with (folder / "server.log").open("wb") as log:
        # In a session of its own: it starts workers, and all of them must end.
        process = subprocess.Popen(
            arguments, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
        )
    try:
        _await_health(process, port, folder / "server.log")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await_health(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    for _ in itertools.count():
        with contextlib.suppress(OSError, json.JSONDecodeError):
            connection = Connection(port)
            connection.send(connection.prepare("GET", "/health"))
            connection.close()
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"MLflow did not start:\n{log.read_text('utf-8')[-2000:]}")
        time.sleep(0.3)
