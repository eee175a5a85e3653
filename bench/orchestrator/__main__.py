"""What the orchestrator costs, as a table against the bars: see docs/performance.md.

    uv run python -m bench.orchestrator                      # everything, some 10 minutes
    uv run python -m bench.orchestrator --quick              # the same in small, to see it run
    uv run python -m bench.orchestrator --only writes,reads --json numbers.json

Parts: writes (against a bare FastAPI application), processes (two against one), gap (a worker's
idle time between two runs), reads (at 10^2, 10^4 and 10^6 experiments, the pool list, memory).
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness.figures import Measurements, Row, table
from bench.orchestrator import gap, processes, reads, writes

Part = Callable[[Path], tuple[Measurements, list[Row]]]


def parts(*, quick: bool) -> dict[str, Part]:
    repetitions, requests, runs = (2, 40, 8) if quick else (7, 300, 60)
    sizes = (100, 1000) if quick else (100, 10_000, 1_000_000)
    return {
        "writes": lambda folder: writes.run(folder, repetitions, requests),
        "processes": lambda folder: processes.run(folder, repetitions, requests),
        "gap": lambda folder: gap.run(folder, runs),
        "reads": lambda folder: reads.run(folder, sizes, repetitions, max(10, requests // 10)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="parts, with commas")
    parser.add_argument("--quick", action="store_true", help="small sizes; proves no bar")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    arguments = parser.parse_args()
    # The servers that were started must end with this process, also when it is terminated.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    known = parts(quick=arguments.quick)
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
