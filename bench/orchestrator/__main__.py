"""wip"""

import sys, tempfile
from pathlib import Path
from bench.harness.figures import table
from bench.orchestrator import writes

with tempfile.TemporaryDirectory() as f:
    measured, rows = writes.run(Path(f), int(sys.argv[1]), int(sys.argv[2]))
    for n, s in measured.series.items():
        print(f"{n:30} {s.text()}")
    print(table(rows))
