"""A fork server: a process that has imported the worker forks a worker for each request.

Importing takes most of a second, on a busy machine more, and the suite starts some fifty workers.
Everything else about them is real: processes, signals, sockets, files. The daemons of a fleet and
the supervisors start from scratch.

Requests and answers are lines of JSON: {"start": {...}} -> pid, {"poll": pid} -> exit code or null.
"""

import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from signal import Signals
from typing import Any


class ForkServer:
    """The test's side."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


class Worker:
    """One worker process, with the part of Popen's interface that tests need."""

    def __init__(self, server: ForkServer, **start: Any) -> None:
        self._server = server
        self.pid: int = server.ask({"start": start})
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float = 15.0) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, "the worker did not end in time"
            time.sleep(0.01)
        return code

    def send_signal(self, number: Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _become_worker(start: dict[str, Any]) -> int:
    from gpu_worker.__main__ import main

    os.setsid()
    os.environ.clear()
    os.environ.update(start["env"])
    sys.path[:0] = start["env"].get("PYTHONPATH", "").split(os.pathsep)
    os.chdir(start["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    errors = os.open(start["stderr"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    return main(start["arguments"])


def _start(start: dict[str, Any]) -> int:
    pid = os.fork()
    if pid != 0:
        return pid
    code = 1
    try:
        code = _become_worker(start)
    except BaseException:  # noqa: BLE001 - a fork must not return into its parent's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _answer_requests() -> None:
    import gpu_worker.__main__  # noqa: F401 - the slow import

    for line in sys.stdin:
        request = json.loads(line)
        answer = _start(request["start"]) if "start" in request else _poll(request["poll"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _answer_requests()
