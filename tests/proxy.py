"""The proxy of bench/harness/proxy.py for tests that block: it runs on a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from bench.harness import proxy
from bench.harness.proxy import Mode, Trap

__all__ = ["Proxy", "Trap"]


class Proxy:
    """Passes connections to a port of its own on to `target`: a Unix socket, or a port."""

    def __init__(self, target: str | int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._proxy = proxy.Proxy(target)
        self._run(self._proxy.start())
        self.sprung = self._proxy.sprung

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    @property
    def port(self) -> int:
        return self._proxy.port

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def set(self, mode: Mode) -> None:
        async def change() -> None:
            self._proxy.set(mode)

        self._run(change())

    def trap(self, needle: bytes, what: Trap) -> None:
        """Do so, once, with the first request that holds `needle`."""
        self._proxy.trap(needle, what)

    def close(self) -> None:
        self._run(self._proxy.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
