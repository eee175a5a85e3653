"""Which waiting claim a job wakes, and what happens when that claim cannot use it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.errors import Unavailable
from orchestrator.services.core.wakeups import JobWaiter, Wakeups
from orchestrator.store.events import Event

pytestmark = pytest.mark.anyio


def queued(**data: Any) -> Event:
    return Event(id="1-0", kind="queued", tag="t", subject="exp-1", data=data)


class Stream:
    """An event stream that holds what a test puts there."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[list[Event] | Exception] = asyncio.Queue()
        self.reads = 0
        self.end, self.asked_after = "0-0", ""
        self._asked = asyncio.Event()

    async def last_id(self) -> str:
        return self.end

    async def after(self, event_id: str, _wait_seconds: float) -> list[Event]:
        self.reads += 1
        self.asked_after = event_id
        self._asked.set()
        found = await self.coming.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def bring(self, found: list[Event] | Exception) -> None:
        """Let the reader read this, and return when it comes back for more."""
        self._asked.clear()
        self.coming.put_nowait(found)
        await self._asked.wait()


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def wakeups(stream: Stream) -> Wakeups:
    return Wakeups(stream, 1.0)  # type: ignore[arg-type]


@asynccontextmanager
async def followed(wakeups: Wakeups, *waiters: JobWaiter) -> AsyncIterator[None]:
    """The stream is read; the waiters have looked since that began, and wait."""
    reader = asyncio.ensure_future(wakeups.run())
    await wakeups.following()
    await asyncio.sleep(0)
    for waiter in waiters:
        waiter.look()
    yield
    reader.cancel()


async def test_one_job_wakes_one_waiter_and_the_next_job_the_next(
    wakeups: Wakeups, stream: Stream
) -> None:
    with wakeups.waiting_for_jobs("a") as a, wakeups.waiting_for_jobs("b") as b:
        async with followed(wakeups, a, b):
            await stream.bring([queued()])
            assert (a.woken.is_set(), b.woken.is_set()) == (True, False)
            await stream.bring([queued()])
            assert b.woken.is_set()


async def test_a_job_meant_for_one_gpu_wakes_that_gpu(wakeups: Wakeups, stream: Stream) -> None:
    with wakeups.waiting_for_jobs("a") as a, wakeups.waiting_for_jobs("b") as b:
        async with followed(wakeups, a, b):
            await stream.bring([queued(gpu_id="b")])
            assert (a.woken.is_set(), b.woken.is_set()) == (False, True)


async def test_a_caller_that_goes_before_it_has_looked_leaves_its_job_to_the_next(
    wakeups: Wakeups, stream: Stream
) -> None:
    gone = wakeups.waiting_for_jobs("a")
    a = gone.__enter__()
    with wakeups.waiting_for_jobs("b") as b:
        async with followed(wakeups, a, b):
            await stream.bring([queued()])
            assert (a.woken.is_set(), b.woken.is_set()) == (True, False)
            gone.__exit__(None, None, None)
            assert b.woken.is_set()


async def test_a_gpu_that_may_have_no_job_passes_it_on_and_is_not_woken_again(
    wakeups: Wakeups, stream: Stream
) -> None:
    with wakeups.waiting_for_jobs("busy") as busy, wakeups.waiting_for_jobs("idle") as idle:
        async with followed(wakeups, busy, idle):
            await stream.bring([queued()])
            job = busy.look()
            assert job is not None
            wakeups.pass_on(job, busy)
            assert idle.look() is job
            await stream.bring([queued()])
            assert (busy.woken.is_set(), idle.woken.is_set()) == (False, True)


async def test_all_look_for_themselves_when_the_stream_could_not_be_read(
    wakeups: Wakeups, stream: Stream
) -> None:
    with wakeups.waiting_for_jobs("a") as a, wakeups.deciding("exp-1") as decided:
        async with followed(wakeups, a):
            decided.clear()
            await stream.bring(Unavailable("Redis does not answer"))
            assert a.woken.is_set()
            assert decided.is_set()


async def test_a_stream_that_ends_earlier_after_a_failover_is_read_from_its_end(
    wakeups: Wakeups, stream: Stream
) -> None:
    """The new primary lacks the last events, and its clock may be behind: no new one looks old."""
    async with followed(wakeups):
        await stream.bring([replace(queued(), id="1000-0")])
        stream.end = "900-0"
        await stream.bring(Unavailable("the primary is gone"))
        assert stream.asked_after == "900-0"
        await stream.bring([replace(queued(), id="900-1")])
        stream.end = "950-0"
        await stream.bring(Unavailable("the network"))
        assert stream.asked_after == "900-1", "nothing is skipped"


async def test_who_waits_before_the_reader_has_its_place_looks_again(wakeups: Wakeups) -> None:
    """A job that came between a waiter's look and that place is not told by the stream."""
    with wakeups.waiting_for_jobs("a") as a:
        a.look()
        reader = asyncio.ensure_future(wakeups.run())
        await wakeups.following()
        assert a.woken.is_set()
        assert a.look() is None  # woken for no job in particular
    reader.cancel()


def steered(action: str, subject: str = "") -> Event:
    data = {"action": action, "by": "human"}
    return Event(id="1-0", kind="steered", tag="t", subject=subject, data=data)


async def test_a_resumed_tag_wakes_all_who_may_have_a_job(wakeups: Wakeups, stream: Stream) -> None:
    """Nobody knows for how many of them it has one. Other acts wake nobody."""
    with (
        wakeups.waiting_for_jobs("busy") as busy,
        wakeups.waiting_for_jobs("a") as a,
        wakeups.waiting_for_jobs("b") as b,
    ):
        async with followed(wakeups, busy, a, b):
            busy.busy = True
            for action in ("pause", "note", "cancel", "drain"):
                await stream.bring([steered(action, "a")])
            assert not a.woken.is_set()
            await stream.bring([steered("resume")])
            assert [w.woken.is_set() for w in (busy, a, b)] == [False, True, True]


async def test_an_undrained_gpu_is_woken_and_by_later_jobs_too(
    wakeups: Wakeups, stream: Stream
) -> None:
    with wakeups.waiting_for_jobs("a") as a, wakeups.waiting_for_jobs("b") as b:
        async with followed(wakeups, a, b):
            a.busy = True  # it was woken while it was drained, and passed the job on
            await stream.bring([steered("undrain", "a")])
            assert (a.woken.is_set(), b.woken.is_set()) == (True, False)
            a.look()
            await stream.bring([queued()])
            assert a.woken.is_set()
