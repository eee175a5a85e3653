"""Who is woken by a job, and what becomes of a wake-up that cannot be used."""

import asyncio
from typing import Any

import pytest

from orchestrator.errors import Unavailable
from orchestrator.services.notices import Notices
from orchestrator.store.events import Event

pytestmark = pytest.mark.anyio


def queued(**data: Any) -> Event:
    return Event(id="1-0", kind="queued", tag="t", subject="exp-1", data=data)


class Stream:
    """An event stream from which a test has its reader read."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[list[Event] | Exception] = asyncio.Queue()
        self.asked_again = asyncio.Event()

    async def last_id(self) -> str:
        return "0-0"

    async def after(self, _event_id: str, _wait_seconds: float) -> list[Event]:
        self.asked_again.clear()
        found = await self.coming.get()
        if not found:
            self.asked_again.set()
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def notices(stream: Stream) -> Notices:
    return Notices(stream, 1.0)  # type: ignore[arg-type]


async def follow(notices: Notices, stream: Stream, *coming: list[Event] | Exception) -> None:
    """Let the reader read what comes, and come back for more."""
    for item in (*coming, []):
        stream.coming.put_nowait(item)
    reader = asyncio.ensure_future(notices.run())
    await stream.asked_again.wait()
    reader.cancel()


async def test_one_job_wakes_one_waiter_and_the_next_job_the_next(
    notices: Notices, stream: Stream
) -> None:
    with notices.waiting_for_jobs("a") as a, notices.waiting_for_jobs("b") as b:
        await follow(notices, stream, [queued()])
        assert (a.woken.is_set(), b.woken.is_set()) == (True, False)
        await follow(notices, stream, [queued()])
        assert b.woken.is_set()


async def test_a_job_meant_for_one_gpu_wakes_that_gpu(notices: Notices, stream: Stream) -> None:
    with notices.waiting_for_jobs("a") as a, notices.waiting_for_jobs("b") as b:
        await follow(notices, stream, [queued(gpu_id="b")])
        assert (a.woken.is_set(), b.woken.is_set()) == (False, True)


async def test_a_caller_that_goes_before_it_has_looked_leaves_its_job_to_the_next(
    notices: Notices, stream: Stream
) -> None:
    gone = notices.waiting_for_jobs("a")
    a = gone.__enter__()
    with notices.waiting_for_jobs("b") as b:
        await follow(notices, stream, [queued()])
        assert (a.woken.is_set(), b.woken.is_set()) == (True, False)
        gone.__exit__(None, None, None)
        assert b.woken.is_set()


async def test_a_waiter_that_has_looked_keeps_nothing_for_the_next(
    notices: Notices, stream: Stream
) -> None:
    with notices.waiting_for_jobs("a") as a:
        await follow(notices, stream, [queued()])
        job = a.look()
        assert job is not None
        assert not a.woken.is_set()
        assert a.look() is None


async def test_a_gpu_that_may_have_no_job_passes_it_on_and_is_not_woken_again(
    notices: Notices, stream: Stream
) -> None:
    with notices.waiting_for_jobs("busy") as busy, notices.waiting_for_jobs("idle") as idle:
        await follow(notices, stream, [queued()])
        job = busy.look()
        assert job is not None
        notices.pass_on(job, busy)
        assert idle.look() is job
        await follow(notices, stream, [queued()])
        assert (busy.woken.is_set(), idle.woken.is_set()) == (False, True)


async def test_all_look_for_themselves_when_the_stream_could_not_be_read(
    notices: Notices, stream: Stream
) -> None:
    with notices.waiting_for_jobs("a") as a, notices.deciding("exp-1") as decided:
        await follow(notices, stream, Unavailable("Redis does not answer"))
        assert a.woken.is_set()
        assert decided.is_set()
