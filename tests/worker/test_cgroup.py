"""The cgroup of a run: where it may be, and how much memory it allows."""

import os
from pathlib import Path

import pytest

from gpu_worker import cgroup

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
GIB = 1 << 30


def layout(root: Path, own: str, controllers: dict[str, str]) -> Path:
    """A tree of cgroups as files, each with what it hands on; a folder like /proc/self."""
    for name, enabled in controllers.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "cgroup.procs").touch()
        (root / name / "cgroup.subtree_control").write_text(enabled)
    process = root.with_name("process")
    process.mkdir()
    (process / "cgroup").write_text(own)
    return process


@pytest.mark.parametrize(
    ("own", "controllers", "expected"),
    [
        ("0::/\n", {"": "cpu memory pids"}, ""),
        ("0::/u/app/scope\n", {"u/app/scope": "", "u/app": "memory pids"}, "u/app"),
        ("0::/a/b\n", {"": "memory pids", "a": "cpu", "a/b": ""}, ""),
        ("0::/a/b\n", {"": "cpu io", "a": "memory", "a/b": ""}, None),
        ("0::/../other\n", {"": "memory pids"}, None),
        ("4:memory:/a\n0::/\n", {}, None),  # version 1, with 2 mounted elsewhere
        ("4:memory:/a\n", {"": "memory pids"}, None),
    ],
)  # fmt: skip
def test_runs_get_their_cgroup_in_the_nearest_one_that_limits_memory_and_processes(
    tmp_path: Path, own: str, controllers: dict[str, str], expected: str | None
) -> None:
    process = layout(tmp_path / "cgroup", own, controllers)
    found = cgroup.find_parent(tmp_path / "cgroup", process)
    assert found == (None if expected is None else tmp_path / "cgroup" / expected)


@pytest.mark.parametrize(
    ("total", "allowed"),
    [(256 * GIB, 240 * GIB), (16 * GIB, 14 * GIB), (3 * GIB, 1.5 * GIB)],
)
def test_a_run_leaves_memory_for_the_worker_and_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, allowed: int
) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": total}.get)
    (tmp_path / "memory.max").write_text("max\n")
    assert cgroup.memory_bytes(tmp_path) == allowed


def test_a_limit_above_counts_as_the_memory_that_there_is(tmp_path: Path) -> None:
    parent = tmp_path / "unit" / "runs"
    parent.mkdir(parents=True)
    (parent / "memory.max").write_text("max\n")
    (parent.parent / "memory.max").write_text(f"{1 << 28}\n")
    assert cgroup.memory_bytes(parent) == 1 << 27
