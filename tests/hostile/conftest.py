"""The worker's fixtures, and a world to attack for each test or for each sandbox level."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpu_worker import cgroup
from gpu_worker.isolation import Level
from tests.hostile.zoo import TOKEN, World
from tests.worker.conftest import Host, eventually, fork_server  # noqa: F401 - a fixture
from tests.worker.fork_server import ForkServer
from tests.worker.stub import Stub

MakeWorld = Callable[[Level], World]


@contextmanager
def world_at(level: Level, home: Path, fork_server: ForkServer) -> Iterator[World]:  # noqa: F811
    stub = Stub()
    stub.start()
    host = Host(home, stub, fork_server)
    world = World(host, stub)
    try:
        host.start(sandbox=level, token=TOKEN, cache=world.cache)
        yield world
    finally:
        host.close()
        world.close()
        stub.stop()


@contextmanager
def little_memory(fork_server: ForkServer, size: int) -> Iterator[None]:  # noqa: F811
    """New workers are in a cgroup with that much memory, and make those of their runs below it."""
    parent = cgroup.find_parent()
    if parent is None:
        pytest.skip("no cgroup can be made here")
    box = parent / f"little-memory-{os.getpid()}"
    workers, before = box / "workers", _cgroup_of(fork_server.pid)
    workers.mkdir(parents=True)
    (box / "memory.max").write_text(str(size))
    (workers / "cgroup.procs").write_text(str(fork_server.pid))
    try:
        yield
    finally:
        (before / "cgroup.procs").write_text(str(fork_server.pid))
        eventually(lambda: not (workers / "cgroup.procs").read_text())
        left = [path for path in box.iterdir() if path.is_dir() and path != workers]
        workers.rmdir()
        box.rmdir()
        assert not left, "a run's cgroup is still there"


def _cgroup_of(pid: int) -> Path:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return Path("/sys/fs/cgroup") / next(line[4:] for line in lines if line.startswith("0::/"))


@pytest.fixture(scope="module")
def shared_world(
    tmp_path_factory: pytest.TempPathFactory,
    fork_server: ForkServer,  # noqa: F811
) -> Iterator[MakeWorld]:
    """One world for each level."""
    open_worlds: dict[Level, World] = {}
    closing = []

    def make(level: Level) -> World:
        if level not in open_worlds:
            context = world_at(level, tmp_path_factory.mktemp(level), fork_server)
            open_worlds[level] = context.__enter__()
            closing.append(context)
        return open_worlds[level]

    yield make
    for context in closing:
        context.__exit__(None, None, None)
