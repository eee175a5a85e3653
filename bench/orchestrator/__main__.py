"""What the orchestrator costs, as a table against the bars: see docs/performance.md.

    uv run python -m bench.orchestrator                      # everything, some 15 minutes
    uv run python -m bench.orchestrator --quick              # the same in small, to see it run
    uv run python -m bench.orchestrator --only writes,reads --json numbers.json

Parts: writes (against a bare FastAPI application), reads (at 10^2, 10^4 and 10^6 experiments, the
pool, memory), scan (against filtering a list), wakeup (against BLPOP), processes (two against one),
mlflow (against MLflow's tracking server, which uv fetches unless --mlflow names another), gap (a
worker's idle time between two runs).
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import gap
from bench.harness.figures import Measurements, Row, table
from bench.orchestrator import processes, reads, scan, tracking, wakeup, writes

Part = Callable[[Path], tuple[Measurements, list[Row]]]


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    repetitions: int = 7
    requests: int = 300
    sizes: tuple[int, ...] = (100, 10_000, 1_000_000)
    scanned: int = 100_000
    runs: int = 60


QUICK = Scale(repetitions=2, requests=40, sizes=(100, 1000), scanned=10_000, runs=8)


def parts(scale: Scale, mlflow: str) -> dict[str, Part]:
    n, few = scale.repetitions, max(10, scale.requests // 10)

    def gaps(folder: Path) -> tuple[Measurements, list[Row]]:
        measured = Measurements()
        for value in (found := gap.measure(folder, scale.runs)):
            measured.add("gap", value, "ms")
        return measured, gap.rows(found)

    return {
        "writes": lambda folder: writes.run(folder, n, scale.requests),
        "wakeup": lambda folder: wakeup.run(folder, n, few),
        "processes": lambda folder: processes.run(folder, n, scale.requests),
        "gap": gaps,
        "scan": lambda folder: scan.run(folder, scale.scanned, n, few),
        "mlflow": lambda folder: tracking.run(folder, mlflow, min(n, 5), min(few, 10)),
        "reads": lambda folder: reads.run(folder, scale.sizes, n, few),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="parts, with commas")
    parser.add_argument("--quick", action="store_true", help="small sizes; proves no bar")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--mlflow", default="uv tool run mlflow", help="what starts mlflow")
    arguments = parser.parse_args()
    # What was started must be ended, however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    known = parts(QUICK if arguments.quick else Scale(), arguments.mlflow)
    wanted = arguments.only.split(",") if arguments.only else list(known)
    if unknown := set(wanted) - set(known):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(known)}")

    numbers: dict[str, Any] = {}
    rows: list[Row] = []
    for name in wanted:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            measured, found = known[name](Path(folder))
        print(f"{name}: {time.monotonic() - start:.0f} s\n{table(found)}", file=sys.stderr)
        numbers[name] = measured.as_json()
        rows += found
    print(table(rows))
    if arguments.json:
        result = {"rows": [row.as_json() for row in rows], "numbers": numbers}
        arguments.json.write_text(json.dumps(result, indent=1), "utf-8")


if __name__ == "__main__":
    main()
