"""How a daemon is asked to go: a signal drains it, a second SIGINT stops it at once.

Whoever waits for something that must not outlast a drain does so inside `limit`.
"""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio.abc import TaskStatus

logger = logging.getLogger(__name__)

# What is left for a last word to the orchestrator when everything has to stop at once.
HASTE_SECONDS = 1.0


class Shutdown:
    def __init__(self) -> None:
        self.draining = anyio.Event()
        self.at_once = anyio.Event()
        self._limits: dict[anyio.CancelScope, float] = {}

    async def watch_signals(self, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                if not self.draining.is_set():
                    logger.info("%s: draining", signal.Signals(number).name)
                    self.drain()
                elif number == signal.SIGINT:
                    logger.info("second SIGINT: stopping at once")
                    self._stop_at_once()

    @contextmanager
    def limit(self, grace_seconds: float) -> Iterator[anyio.CancelScope]:
        """Cancel the body `grace_seconds` after the drain begins (or now, if it has begun)."""
        with anyio.CancelScope() as scope:
            self._limits[scope] = grace_seconds
            if self.at_once.is_set():
                self._shorten(scope, min(grace_seconds, HASTE_SECONDS))
            elif self.draining.is_set():
                self._shorten(scope, grace_seconds)
            try:
                yield scope
            finally:
                del self._limits[scope]

    def drain(self) -> None:
        self.draining.set()
        for scope, grace in self._limits.items():
            self._shorten(scope, grace)

    def _stop_at_once(self) -> None:
        self.at_once.set()
        for scope, grace in self._limits.items():
            self._shorten(scope, min(grace, HASTE_SECONDS))

    @staticmethod
    def _shorten(scope: anyio.CancelScope, seconds: float) -> None:
        scope.deadline = min(scope.deadline, anyio.current_time() + seconds)
