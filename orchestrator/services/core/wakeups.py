"""Wakes waiting requests: one task per process reads the event stream, many requests wait on it.

A queued job wakes one waiting claim, not all, so that a burst of jobs costs one claim each. The
stream is a hint: waiters also look by themselves from time to time.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from orchestrator.domain import profile_of
from orchestrator.errors import AutoresearchError
from orchestrator.store.events import Event, EventStore, order
from orchestrator.store.jobs import NothingToClaim

logger = logging.getLogger(__name__)

# How long a waiter sleeps before it looks by itself. Each look is a script, and there may be
# thousands of waiters.
LOOK_SECONDS = 15.0
# The same for a GPU that may have no job now: no event tells when it is free or fit again.
BUSY_LOOK_SECONDS = 5.0
# After a read, the events of the next 20 ms are read together, so that a burst costs few reads.
REST_SECONDS = 0.02
SUBSCRIBER_BACKLOG = 2000


@dataclass(eq=False)
class JobWaiter:
    """A claim in its long poll."""

    gpu_id: str
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    job: Event | None = None  # the job that woke it, until it looks
    last: NothingToClaim | None = None  # the answer to its last claim
    busy: bool = False  # its GPU could not take a job that woke it: jobs wake others

    def look(self) -> Event | None:
        """Get ready to be woken again, just before a claim; returns the job that woke it."""
        job, self.job = self.job, None
        self.woken.clear()
        return job

    def may_take(self, job: Event) -> bool:
        gpu_id, profile, model = (job.data.get(n) for n in ("gpu_id", "profile", "gpu_model"))
        if self.busy or self.woken.is_set():
            return False
        if gpu_id:
            return bool(gpu_id == self.gpu_id)
        if self.last is None:
            return True
        if model not in (None, self.last.gpu_model):
            return False
        return profile in (None, self.last.platform, profile_of(self.last.platform))


class Wakeups:
    def __init__(self, events: EventStore, poll_seconds: float) -> None:
        self._events = events
        self._poll_seconds = poll_seconds
        self._deciding: dict[asyncio.Event, str] = {}  # who waits for which experiment
        self._jobs: dict[JobWaiter, None] = {}  # a queue: the longest waiting comes first
        self._subscribers: set[asyncio.Queue[Event | None]] = set()
        self._following = asyncio.Event()
        self._last = "0-0"  # the event read last
        self.closed = False

    async def run(self) -> None:
        """Follow the stream until cancelled, also through times without Redis."""
        interrupted = False
        while True:
            try:
                if not self._following.is_set():
                    self._last = await self._events.last_id()
                    self._following.set()
                    self._wake_all()  # events before this place reach nobody
                if interrupted:  # after a failover it may end earlier
                    self._last = min(self._last, await self._events.last_id(), key=order)
                    interrupted = False
                events = await self._events.after(self._last, self._poll_seconds)
                for event in events:
                    self._last = event.id
                    self._dispatch(event)
                if events:
                    await anyio.sleep(REST_SECONDS)
            except AutoresearchError as error:
                logger.warning("Event stream: %s", error)
                await anyio.sleep(0.5)
                interrupted = True
                self._wake_all()  # the stream may have lost events

    async def following(self) -> None:
        """Wait until every new event reaches the queues of subscribers."""
        await self._following.wait()

    def close(self) -> None:
        """The service stops: end every long poll and stream now, as if its time were up."""
        self.closed = True
        self._wake_all()
        self._following.set()
        for queue in self._subscribers:
            queue.put_nowait(None)

    def _wake_all(self) -> None:
        for waiter in self._deciding:
            waiter.set()
        for job_waiter in self._jobs:
            job_waiter.woken.set()

    def _dispatch(self, event: Event) -> None:
        if event.kind == "decided":
            for waiter, experiment_id in self._deciding.items():
                if experiment_id == event.subject:
                    waiter.set()
        if event.kind == "queued":
            self._wake_one(event)
        if event.kind == "steered":
            self._wake_released(event)
        for queue in list(self._subscribers):
            if queue.qsize() < SUBSCRIBER_BACKLOG:
                queue.put_nowait(event)
            else:  # too slow: its stream ends, and it resumes from its last event id
                self._subscribers.discard(queue)
                queue.put_nowait(None)

    def _wake_one(self, job: Event) -> None:
        """Wake the claim that has waited longest of those that may get the job."""
        for waiter in self._jobs:
            if waiter.may_take(job):
                waiter.job = job
                waiter.woken.set()
                return

    def pass_on(self, job: Event, waiter: JobWaiter) -> None:
        """Wake the next claim for a job that `waiter` could not take."""
        waiter.busy = True
        self._wake_one(job)

    def _wake_released(self, event: Event) -> None:
        """A resumed tag may have jobs for all; an undrained GPU may take jobs again."""
        action = event.data.get("action")
        for waiter in self._jobs:
            if action == "undrain" and waiter.gpu_id == event.subject:
                waiter.busy = False
                waiter.woken.set()
            elif action == "resume" and not waiter.busy:
                waiter.woken.set()

    @contextmanager
    def deciding(self, experiment_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the run may be decided; clear it before each look."""
        waiter = asyncio.Event()
        self._deciding[waiter] = experiment_id
        try:
            yield waiter
        finally:
            del self._deciding[waiter]

    @contextmanager
    def waiting_for_jobs(self, gpu_id: str) -> Iterator[JobWaiter]:
        """Enter the queue of claims that a new job wakes."""
        waiter = JobWaiter(gpu_id)
        self._jobs[waiter] = None
        try:
            yield waiter
        finally:
            del self._jobs[waiter]
            if waiter.job is not None:  # it leaves without a look at this job
                self._wake_one(waiter.job)

    @contextmanager
    def subscription(self) -> Iterator["asyncio.Queue[Event | None]"]:
        """All events after `following`; None ends a subscriber that fell too far behind."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._subscribers.add(queue)
        try:
            yield queue
        finally:
            self._subscribers.discard(queue)
