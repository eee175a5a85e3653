"""docs/reliability.md names a test for each fault: each is there, and none goes unnamed."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.findall(
    r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "docs/reliability.md").read_text("utf-8")
)
FAULT_TABLE = (
    "worker SIGKILL", "supervisor SIGKILL", "orchestrator SIGKILL", "Redis killed, restarted",
    "Redis paused or cut off", "orchestrator disk full", "Redis out of memory", "worker disk full",
    "clock ± 1 h", "duplicate request", "GPU lost", "hung training", "children that escape",
)  # fmt: skip


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, functions)}


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_named_test_exists(path: str, name: str) -> None:
    assert name in names_in(ROOT / path)


@pytest.mark.parametrize("fault", FAULT_TABLE)
def test_every_fault_has_a_row_with_a_test(fault: str) -> None:
    rows = (ROOT / "docs/reliability.md").read_text("utf-8").splitlines()
    assert any(row.startswith(f"| {fault}") and "::test_" in row for row in rows)


@pytest.mark.parametrize("path", sorted((ROOT / "tests/e2e").glob("test_*_faults.py")), ids=str)
def test_no_test_of_a_fault_goes_unnamed(path: Path) -> None:
    """A fault that is tested and not in the table is a promise that nobody can read."""
    found = {name for name in names_in(path) if name.startswith("test_")}
    assert found <= {name for _, name in NAMED}
