"""The yardstick: the least that a FastAPI service on Redis does for a write.

One POST with a pydantic body and answer, and one writing EVALSHA of three commands. No guard, no
error map, no dependencies, no record: redis-py as its documentation has it.
"""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel
from redis.asyncio import Redis

SCRIPT = """
local count = redis.call('INCR', 'yardstick:count')
redis.call('HSET', 'yardstick:' .. ARGV[1], 'value', ARGV[2], 'count', count)
redis.call('ZADD', 'yardstick:all', count, ARGV[1])
return count
"""


class Item(BaseModel):
    item_id: str
    value: float


class Stored(BaseModel):
    item_id: str
    count: int


redis = Redis.from_url(os.environ["YARDSTICK_REDIS"], decode_responses=True)
sha = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await redis.script_load(SCRIPT)
    yield
    await redis.aclose()


app = FastAPI(lifespan=lifespan)


@app.post("/item")
async def store(item: Item) -> Stored:
    count = await redis.evalsha(sha, 0, item.item_id, str(item.value))
    return Stored(item_id=item.item_id, count=count)
