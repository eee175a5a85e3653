"""Runs one daemon for each GPU of this host: starts and restarts them, and forwards signals.

Each daemon is a process of its own, so that a driver that hangs with one GPU stops no other, and in
a session of its own, so that a terminal's Ctrl-C reaches it once, from here. A daemon that fails is
started again and adopts its run.
"""

import logging
import os
import signal
import sys

import anyio
import anyio.abc

from gpu_worker import daemon, devices, tree
from gpu_worker.gpu import DeviceError
from gpu_worker.settings import WorkerSettings
from gpu_worker.shutdown import SIGNALS
from gpu_worker.streams import log_to_stderr

logger = logging.getLogger(__name__)

RESTART_SECONDS = 2.0
FINAL_EXIT_CODES = (daemon.EXIT_DRAINED, daemon.EXIT_CANNOT_SERVE, daemon.EXIT_INTERRUPTED)


def run_all(settings: WorkerSettings) -> int:
    """Serve every GPU that this process may use; the exit code of the process."""
    log_to_stderr()
    try:
        return anyio.run(Fleet(settings, _gpus(settings)).serve)
    except DeviceError as error:
        logger.critical("%s", error)
        return daemon.EXIT_CANNOT_SERVE


def _gpus(settings: WorkerSettings) -> list[str]:
    """The flag `--gpu` of each daemon."""
    found = devices.usable()
    if not found:
        raise DeviceError("--gpu all: there is no NVIDIA GPU to use; --cpu goes without")
    if settings.gpu_id is not None and len(found) > 1:
        raise DeviceError(f"a --gpu-id names one GPU, but there are {len(found)} here")
    return [each.flag for each in found]


class Fleet:
    def __init__(self, settings: WorkerSettings, gpus: list[str]) -> None:
        self._environment = os.environ | settings.environment()
        self._gpus = gpus
        self._processes: set[anyio.abc.Process] = set()
        self._exit_codes: dict[str, int] = {}
        self._leaving = anyio.Event()

    async def serve(self) -> int:
        """Wait until every daemon has ended for good; the highest of their exit codes."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._forward_signals)
            async with anyio.create_task_group() as daemons:
                for gpu in self._gpus:
                    daemons.start_soon(self._keep_running, gpu)
            tasks.cancel_scope.cancel()
        # Empty when a signal came before any daemon had run.
        return max(self._exit_codes.values(), default=0)

    async def _forward_signals(self) -> None:
        with anyio.open_signal_receiver(*SIGNALS) as signals:
            async for number in signals:
                self._leaving.set()
                for process in self._processes:
                    tree.kill(process.pid, number)

    async def _keep_running(self, gpu: str) -> None:
        while not self._leaving.is_set():
            async with await anyio.open_process(
                [sys.executable, "-m", "gpu_worker", "--gpu", gpu, "--leave-with-parent"],
                stdin=None,
                stdout=None,
                stderr=None,
                env=self._environment,
                start_new_session=True,
            ) as process:
                self._processes.add(process)
                if self._leaving.is_set():  # the signal came while it started
                    tree.kill(process.pid, signal.SIGTERM)
                code = self._exit_codes[gpu] = await process.wait()
                self._processes.remove(process)
            if code in FINAL_EXIT_CODES:
                return
            pause = RESTART_SECONDS
            logger.warning("the daemon of GPU %s ended with %d; again in %g s", gpu, code, pause)
            with anyio.move_on_after(pause):
                await self._leaving.wait()
