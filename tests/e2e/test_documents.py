"""Every command of docs/terminal.md runs, in its order, against a running system."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import System, eventually, stub

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PRELUDE = f"""
set -euo pipefail
uv() {{ shift 2; {sys.executable} -m orchestrator.cli "$@"; }}
"""


def test_the_commands_of_the_terminal_document_work(system: System) -> None:
    """Blocks marked `text` need an id, a person or an extra; the others need a tag and a worker."""
    system.serve()
    system.worker()
    system.post("/api/experiment/setup", tag="mar11", time_budget_seconds=5)
    eventually(lambda: system.get("/api/pool/list")["idle"])
    (system.folder / "train.py").write_text(stub(1.25))
    environment = system.environment | {
        "AUTORESEARCH_ORCHESTRATOR": system.url, "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    text = (ROOT / "docs" / "terminal.md").read_text("utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for block in blocks:
        done = subprocess.run(
            ["bash", "-c", PRELUDE + block],
            cwd=system.folder, capture_output=True, text=True, timeout=60, check=False,
            env=environment,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert len(blocks) >= 4
    for name in (
        "progress.svg",
        "progress-dark.png",
        "results.tsv",
        "runs.jsonl",
        "decisions.jsonl",
    ):
        assert (system.folder / name).stat().st_size > 50, name
