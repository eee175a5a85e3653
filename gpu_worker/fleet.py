"""One daemon for each GPU of this host: starts them, starts them again, passes signals on.

Each daemon is a process of its own, so that a driver that hangs with one GPU holds up no other, and
in a session of its own, so that a terminal's Ctrl-C reaches it once, through us. A daemon that
fails is started again and adopts the run that it left.
"""

import logging
import os
import signal
import sys

import anyio
import anyio.abc

from gpu_worker import daemon, gpu, tree
from gpu_worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_FINAL = (daemon.EXIT_DRAINED, daemon.EXIT_CANNOT_SERVE, daemon.EXIT_INTERRUPTED)


def run_all(settings: WorkerSettings) -> int:
    """Serve every GPU that this process may use; the exit code of the process."""
    daemon.log_to_stderr()
    try:
        nvml = gpu.load_nvml()
        indices = gpu.usable_indices(nvml) if nvml else []
    except gpu.DeviceError as error:
        logger.critical("%s", error)
        return daemon.EXIT_CANNOT_SERVE
    if not indices:
        logger.critical("--gpu all: there is no NVIDIA GPU to use; --cpu goes without")
        return daemon.EXIT_CANNOT_SERVE
    if settings.gpu_id is not None and len(indices) > 1:
        logger.critical("a --gpu-id names one GPU, but there are %d here", len(indices))
        return daemon.EXIT_CANNOT_SERVE
    return anyio.run(Fleet(settings, indices).serve)


class Fleet:
    def __init__(self, settings: WorkerSettings, indices: list[int]) -> None:
        self._environment = settings.environment()
        self._indices = indices
        self._processes: dict[int, anyio.abc.Process] = {}
        self._exit_codes: dict[int, int] = {}
        self._leaving = anyio.Event()

    async def serve(self) -> int:
        """Until every daemon has ended for good; the highest of their exit codes."""
        async with anyio.create_task_group() as everything:
            everything.start_soon(self._pass_signals_on)
            async with anyio.create_task_group() as daemons:
                for index in self._indices:
                    daemons.start_soon(self._keep_alive, index)
            everything.cancel_scope.cancel()
        # Empty when a signal came before any daemon had run.
        return max(self._exit_codes.values(), default=0)

    async def _pass_signals_on(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                self._leaving.set()
                for process in self._processes.values():
                    tree.kill(process.pid, number)

    async def _keep_alive(self, index: int) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._leaving.is_set():
            started = anyio.current_time()
            code = await self._run(index)
            self._exit_codes[index] = code
            if code in _FINAL:
                return
            if anyio.current_time() - started > _LONGEST_PAUSE_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            logger.warning("the daemon of GPU %s ended with %d; again in %g s", index, code, pause)
            with anyio.move_on_after(pause):
                await self._leaving.wait()
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _run(self, index: int) -> int:
        process = await anyio.open_process(
            [sys.executable, "-m", "gpu_worker", "--gpu", str(index), "--leave-with-parent"],
            stdin=None,
            stdout=None,
            stderr=None,
            env=os.environ | self._environment,
            start_new_session=True,
        )
        async with process:
            self._processes[index] = process
            if self._leaving.is_set():  # the signal came while it was being started
                tree.kill(process.pid, signal.SIGTERM)
            try:
                return await process.wait()
            finally:
                del self._processes[index]
