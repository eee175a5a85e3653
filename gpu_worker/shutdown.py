"""How a daemon is stopped: a signal or a spot notice drains it, a second SIGINT stops it at once.

- SIGUSR1: no new run, and the present one may take its time. Where the end is known long before.
- SIGTERM, SIGINT, SIGHUP, also after SIGUSR1: the present run has `drain_timeout` seconds left.

Code that waits for something inside `limit` is cancelled when the drain ends.
"""

import logging
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio.abc import TaskStatus

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
# The longest grace once everything has to stop at once: for a last call to the orchestrator.
AT_ONCE_SECONDS = 1.0


class Shutdown:
    def __init__(self) -> None:
        self.draining = anyio.Event()  # no new run
        self.leaving = anyio.Event()  # and the present one has to end soon
        self.at_once = anyio.Event()
        self._limits: dict[anyio.CancelScope, float] = {}
        self._longest = math.inf

    async def watch_signals(self, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGUSR1:
                    logger.info("SIGUSR1: this run is the last")
                    self.drain(after_the_run=True)
                elif not self.leaving.is_set():
                    logger.info("%s: draining", signal.Signals(number).name)
                    self.drain()
                elif number == signal.SIGINT:
                    logger.info("second SIGINT: stopping at once")
                    self.at_once.set()
                    self.drain(AT_ONCE_SECONDS)

    def drain(self, longest: float = math.inf, *, after_the_run: bool = False) -> None:
        """No body in `limit` gets more than `longest` seconds from now on."""
        self.draining.set()
        if not after_the_run:
            self.leaving.set()
        self._longest = min(self._longest, longest)
        self._apply_limits()

    @contextmanager
    def limit(self, grace_seconds: float) -> Iterator[anyio.CancelScope]:
        """Cancel the body `grace_seconds` after the drain begins (or now, if it has begun)."""
        with anyio.CancelScope() as scope:
            self._limits[scope] = grace_seconds
            if self.draining.is_set():
                self._apply_limits()
            try:
                yield scope
            finally:
                del self._limits[scope]

    def _apply_limits(self) -> None:
        now = anyio.current_time()
        for scope, grace in self._limits.items():
            scope.deadline = min(scope.deadline, now + min(grace, self._longest))
