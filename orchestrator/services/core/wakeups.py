"""Wakes whoever waits: one reader of the event stream a process, many waiters.

A wake-up reaches whoever it is for: what the reader may have missed wakes everybody, and a claim
that was woken and cannot use it passes it on. Nothing depends on that all the same: waiters look
for themselves from time to time.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from orchestrator.errors import AutoresearchError
from orchestrator.store.events import Event, EventStore

logger = logging.getLogger(__name__)

# How long a waiter trusts in being woken before it looks for itself. Each look is a script: of five
# thousand waiters that look every five seconds a thousand a second.
LOOK_SECONDS = 15.0
# A GPU that may have no job now is not woken by one, nor by becoming fit or free again.
BUSY_LOOK_SECONDS = 5.0
# What happens within this time after a notice is read in one go. One that comes after some quiet is
# passed on at once; in a burst, reading each by itself cost as much as the request that caused it.
REST_SECONDS = 0.005
SUBSCRIBER_BACKLOG = 2000


@dataclass(eq=False)
class JobWaiter:
    """A claim in its long poll. Which profile its GPU has it learns with the first empty answer."""

    gpu_id: str
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    job: Event | None = None  # what it was woken for, until it has looked
    unfit: bool = False  # may have no job now; it still looks for itself
    _asked: bool = False
    _profile: str | None = None

    def look(self) -> Event | None:
        """It looks now, so the next job wakes it again; answers what it was woken for."""
        job, self.job = self.job, None
        self.woken.clear()
        return job

    def learn(self, profile: str | None) -> None:
        self._asked, self._profile = True, profile

    def may_take(self, event: Event) -> bool:
        if self.unfit:
            return False
        gpu_id, profile = event.data.get("gpu_id"), event.data.get("profile")
        if gpu_id:
            return bool(gpu_id == self.gpu_id)
        return profile is None or not self._asked or profile == self._profile


class Wakeups:
    def __init__(self, events: EventStore, poll_seconds: float) -> None:
        self._events = events
        self._poll_seconds = poll_seconds
        self._deciding: dict[str, list[asyncio.Event]] = {}
        self._jobs: dict[JobWaiter, None] = {}  # a line: those who have waited longest first
        self._subscribers: set[asyncio.Queue[Event | None]] = set()
        self._wants = 0  # how many wait, of whatever kind
        self._wanted = asyncio.Event()
        self._following = asyncio.Event()
        self._last: str | None = None  # the event last read, while the stream is followed
        self.closed = False

    async def run(self) -> None:
        """Follow the stream for ever, while anybody waits; a Redis that is away is waited for.

        A reader that nobody needs would cost each process a read for every event of all others.
        """
        while True:
            if not self._wants:
                self._last = None
                self._following.clear()
                await self._wanted.wait()
            try:
                if self._last is None:
                    self._last = await self._events.last_id()
                    self._following.set()
                    self._wake_all()  # what came before that place they find by looking
                events = await self._events.after(self._last, self._poll_seconds)
                for event in events:
                    self._last = event.id
                    self._dispatch(event)
                if events:
                    await anyio.sleep(REST_SECONDS)
            except AutoresearchError as error:
                logger.warning("Event stream: %s", error)
                await anyio.sleep(0.5)
                self._wake_all()  # whatever happened meanwhile: all look for themselves

    async def following(self) -> str:
        """Wait until events reach the queues of subscribers; the id of the last that did not."""
        await self._following.wait()
        return self._last or "0-0"

    @contextmanager
    def _wanting(self) -> Iterator[None]:
        """The stream is followed while the block lasts."""
        self._wants += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._wants -= 1
            if not self._wants:
                self._wanted.clear()

    def close(self) -> None:
        """The service is going away: end every long poll and stream now, as if its time were up."""
        self.closed = True
        self._wake_all()
        self._following.set()
        for queue in self._subscribers:
            queue.put_nowait(None)

    def _wake_all(self) -> None:
        for waiters in self._deciding.values():
            for waiter in waiters:
                waiter.set()
        for job_waiter in self._jobs:
            job_waiter.woken.set()

    def _dispatch(self, event: Event) -> None:
        if event.kind == "decided":
            for waiter in self._deciding.get(event.subject, ()):
                waiter.set()
        if event.kind == "queued":
            self._wake_one(event)
        if event.kind == "steered":
            self._wake_released(event)
        for queue in list(self._subscribers):
            if queue.qsize() < SUBSCRIBER_BACKLOG:
                queue.put_nowait(event)
            else:  # too slow: it is cut off, and resumes from its last event id
                self._subscribers.discard(queue)
                queue.put_nowait(None)

    def _wake_one(self, job: Event) -> None:
        """One job wakes one waiter, the one that has waited longest."""
        for waiter in self._jobs:
            if not waiter.woken.is_set() and waiter.may_take(job):
                waiter.job = job
                waiter.woken.set()
                return

    def expect_job(self) -> None:
        """This process is about to queue a job: who has waited longest claims at once. Its claim
        follows the job on the same connection, so that Redis does both in one go. The notice of the
        job comes all the same, and wakes another if this one could not have it."""
        for waiter in self._jobs:
            if not waiter.woken.is_set() and not waiter.unfit:
                waiter.woken.set()
                return

    def _wake_released(self, event: Event) -> None:
        """A resumed tag may have jobs for all who wait; an undrained GPU may take jobs again."""
        action = event.data.get("action")
        for waiter in self._jobs:
            if action == "undrain" and waiter.gpu_id == event.subject:
                waiter.unfit = False
                waiter.woken.set()
            elif action == "resume" and not waiter.unfit:
                waiter.woken.set()

    def pass_on(self, job: Event, waiter: JobWaiter) -> None:
        """`waiter` cannot take the job that it was woken for: the next in line is woken."""
        waiter.unfit = True
        self._wake_one(job)

    @contextmanager
    def deciding(self, experiment_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the run may be decided: clear it before each look at it."""
        waiter = asyncio.Event()
        waiters = self._deciding.setdefault(experiment_id, [])
        waiters.append(waiter)
        try:
            with self._wanting():
                yield waiter
        finally:
            waiters.remove(waiter)
            if not waiters:
                self._deciding.pop(experiment_id, None)

    @contextmanager
    def waiting_for_jobs(self, gpu_id: str) -> Iterator[JobWaiter]:
        """Stand in the line of those whom a new job wakes."""
        waiter = JobWaiter(gpu_id)
        self._jobs[waiter] = None
        try:
            with self._wanting():
                yield waiter
        finally:
            del self._jobs[waiter]
            if waiter.job is not None:  # its caller is gone before it has looked
                self._wake_one(waiter.job)

    @contextmanager
    def subscription(self) -> Iterator["asyncio.Queue[Event | None]"]:
        """All events from `following` on; None ends a subscriber that fell too far behind."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._subscribers.add(queue)
        try:
            with self._wanting():
                yield queue
        finally:
            self._subscribers.discard(queue)
