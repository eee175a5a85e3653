"""The worker's fixtures, and a world to attack for each test or for each sandbox level."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpu_worker.isolation import Level
from tests.hostile.zoo import TOKEN, World
from tests.worker.conftest import Host, fork_server  # noqa: F401 - a fixture
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
