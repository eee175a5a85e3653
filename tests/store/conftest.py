"""A store on each kind of server that this machine has."""

from collections.abc import AsyncIterator

import pytest

from orchestrator.domain import Timing
from orchestrator.store.connection import Store

TIMING = Timing(heartbeat_seconds=5, lease_seconds=30, offline_seconds=60)


@pytest.fixture
async def store(each_redis_url: str) -> AsyncIterator[Store]:
    store = Store(each_redis_url, 5)
    yield store
    await store.close()
