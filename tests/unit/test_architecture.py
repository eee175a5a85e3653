"""The layers hold: which package imports which, and who spells Redis keys."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("orchestrator", "gpu_worker")


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def test_the_contracts_of_import_linter_hold() -> None:
    """pyproject.toml says which package may import which."""
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["prepare.py", "corpus.py", "download.py", "train.py"])
def test_the_training_stack_imports_neither_package(name: str) -> None:
    assert not imported(ROOT / name) & set(PACKAGES)


def test_no_package_imports_the_training_stack() -> None:
    """An agent's edit of train.py can break nothing but its own run, which executes the scripts."""
    for package in PACKAGES:
        scripts = ROOT / package / "scripts"
        for path in {*(ROOT / package).rglob("*.py")} - {*scripts.glob("*.py")}:
            assert not imported(path) & {"train", "prepare", "corpus", "download", "torch"}, path


def test_the_supervisor_starts_from_the_standard_library_alone() -> None:
    """It stands between two runs: no package may slow its start."""
    code = "import sys, gpu_worker.supervisor; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not {"pydantic", "httpx", "anyio", "redis"} & set(done.stdout.split())
