"""A daemon that an engine such as Ray places: an actor of the engine starts, watches and drains it.

- It is a process in a session of its own, and goes on when the whole engine dies: the engine places
  daemons, and no run needs it.
- If the actor ends while the engine lives, the engine may give the GPU to another program, so the
  daemon drains.
- A later actor for the same GPU kills a daemon that it finds there. Its own daemon adopts the run,
  as after any kill -9.

`python -m gpu_worker.placed ENGINE_PID FLAG...` is that daemon; the flags are those of gpu_worker.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from gpu_worker import fleet, tree
from gpu_worker.__main__ import main as serve
from gpu_worker.settings import WorkerSettings

# Only the daemon itself has it in its environment, so a later actor finds the daemon by it.
_MARKER = "AUTORESEARCH_PLACED"

# Within this time after its actor, which sees that first, an engine is gone that dies.
_ENGINE_SECONDS = 5.0
_TAIL_BYTES = 2000


class Placed:
    """The daemon of one GPU, in the actor's process, whose environment has the worker's settings.

    `flags` name the GPU, `environment` is the daemon's, and the engine lives on this host as long
    as the process `engine` does.
    """

    def __init__(self, name: str, flags: list[str], environment: dict[str, str], engine: int):
        settings = WorkerSettings()
        settings.paths.make_private()
        settings.paths.require()
        self._log = settings.paths.logs_dir / f"{name}.log"
        self._flags = " ".join(flags)
        self._place = f"{settings.orchestrator} {self._flags}"
        self._environment = environment | {_MARKER: self._place}
        self._command = [sys.executable, "-m", "gpu_worker.placed", str(engine), *flags]
        self._process: subprocess.Popen[bytes] | None = None
        self._said: str | None = None
        self._leaving = threading.Event()
        self._thread = threading.Thread()
        self.start()

    def start(self) -> dict[str, Any]:
        """Start the daemon, unless it runs; the state."""
        if not self._thread.is_alive():
            self._leaving.clear()
            self._thread = threading.Thread(target=self._keep_running, daemon=True)
            self._thread.start()
        return self.state()

    def drain(self) -> dict[str, Any]:
        """Have the daemon end its run or hand it back, and leave; the state, which says when it has
        left. May be called again and again."""
        if not self._leaving.is_set():
            self._leaving.set()
            self._forward_drain()  # once, because the daemon's last steps are open to signals
        return self.state()

    def state(self) -> dict[str, Any]:
        process, serving = self._process, self._thread.is_alive()
        alive = process is not None and process.poll() is None
        return {
            "host": socket.gethostname(),
            "flags": self._flags,
            "pid": process.pid if process and alive else None,
            "state": ("draining" if self._leaving.is_set() else "running") if serving else "ended",
            "exit_code": process.returncode if process and not alive else None,
            "said": self._said,
            "log": str(self._log),
        }

    def _keep_running(self) -> None:
        """Restart the daemon until it ends for good."""
        while not self._leaving.is_set():
            code = None
            try:
                tree.sweep(_MARKER, self._place)
                code = self._run_once()
            except OSError as error:  # a full disk, say: tried again, as after a daemon's end
                self._said = str(error)
            if code in fleet.FINAL_EXIT_CODES:
                return
            self._leaving.wait(fleet.RESTART_SECONDS)

    def _run_once(self) -> int:
        """The exit code of a daemon, which says its last words in `_said`."""
        with self._log.open("a+b") as log:
            begin = log.tell()
            with subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,  # reads as ended when this process has ended
                stdout=log,
                stderr=log,
                start_new_session=True,
            ) as process:
                self._process = process
                self._forward_drain()  # which came while it started
                code = process.wait()
            log.seek(max(begin, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        why = [line for line in lines if "CRITICAL" in line]
        self._said = [None, *lines, *why][-1]
        return code

    def _forward_drain(self) -> None:
        if self._leaving.is_set() and self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)


def main() -> int:
    del os.environ[_MARKER]
    engine = int(sys.argv[1])
    threading.Thread(target=_leave_with_the_actor, args=(engine,), daemon=True).start()
    return serve(sys.argv[2:])


def _leave_with_the_actor(engine: int) -> None:
    """Drain once the actor has ended, unless the engine has died too."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    deadline = time.monotonic() + _ENGINE_SECONDS
    while _lives(engine):
        if time.monotonic() > deadline:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        return tree.stat(pid)[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


if __name__ == "__main__":
    sys.exit(main())
