"""Real worker processes against a stub orchestrator, and which of them are alive."""

import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_worker import isolation, tree
from gpu_worker.folders import RunFolder, WorkerFolder
from orchestrator.settings import HomePaths
from tests.worker.fork_server import ForkServer, Worker
from tests.worker.stub import Stub

GPU_ID = "test-host:cpu"


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    stub.start()
    yield stub
    stub.stop()
    assert stub.violations == []


class Host:
    """A host's home folder and the worker processes on it."""

    def __init__(self, home: Path, stub: Stub, fork_server: ForkServer) -> None:
        self.home = home
        self.stub = stub
        self.workers: list[Worker] = []
        (home / "worker.err").touch()
        self._fork_server = fork_server

    def start(self, *arguments: str, **variables: Any) -> Worker:
        """Start a worker on the CPU; settings as `drain_timeout=1`."""
        settings = {
            "home": self.home,
            "orchestrator": self.stub.url,
            "launcher": sys.executable,
            "lock_dir": self.home / "locks",
            "gpu_id": GPU_ID,
            "gpu": "cpu",
            "check": "0",
            "free_space_bytes": "0",
            "kill_after_seconds": "1",
            "claim_wait_seconds": "5",
            **variables,
        }
        env = os.environ | {f"AUTORESEARCH_{k.upper()}": str(v) for k, v in settings.items()}
        worker = Worker(
            self._fork_server,
            arguments=arguments,
            env=env,
            cwd=str(variables.get("cwd", self.home)),
            stderr=str(self.home / "worker.err"),
        )
        self.workers.append(worker)
        return worker

    @property
    def log(self) -> str:
        """What all workers have written to stderr."""
        return (self.home / "worker.err").read_text()

    @property
    def folder(self) -> WorkerFolder:
        return WorkerFolder(HomePaths(self.home).worker_dir(GPU_ID))

    def run_folder(self, run: str) -> RunFolder:
        experiment, _, epoch = run.rpartition(".")
        return self.folder.run(experiment, int(epoch))

    def processes(self) -> dict[int, str]:
        """Every living process that this home's workers have started, with its command line.
        Runs and checks in `strict` do not know the home, but the files that they work with are in
        it."""
        of_runs = self._processes_with("AUTORESEARCH_WORKSPACE", f"{self.home}/", whole=False)
        of_checks = self._processes_with("AUTORESEARCH_HOST_CHECK", "", whole=False)
        own = self._processes_with("AUTORESEARCH_HOME", str(self.home))
        ours = {pid: line for pid, line in of_checks.items() if f"{self.home}/" in line}
        return own | of_runs | ours

    def processes_of(self, run: str) -> dict[int, str]:
        """Those of one run."""
        return self._processes_with("AUTORESEARCH_WORKSPACE", str(self.run_folder(run).workspace))

    def supervisor_of(self, run: str) -> int:
        """The run's supervisor. Its guard has the same command line and one descendant less."""

        def candidates() -> dict[int, int]:
            found = [p for p, line in self.processes().items() if "gpu_worker.supervisor" in line]
            below = {pid: set(tree.descendants(pid)) for pid in found}
            of_run = set(self.processes_of(run))
            return {pid: len(pids) for pid, pids in below.items() if pids & of_run}

        sizes: dict[int, int] = eventually(candidates)
        return max(sizes, key=sizes.__getitem__)

    def release(self, *runs: str) -> None:
        """Let runs whose train.py begins with WAIT go on."""
        for run in runs:
            (workspace,) = self.home.glob(f"workers/*/runs/{run}/workspace")
            (workspace / "go").touch()

    @staticmethod
    def _processes_with(variable: str, value: str, *, whole: bool = True) -> dict[int, str]:
        marker, found = f"{variable}={value}".encode(), {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
                if any(v == marker if whole else v.startswith(marker) for v in variables):
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = line.decode()
            except OSError:
                continue
        return found

    def close(self) -> None:
        """End every process, also after a failure."""
        for worker in self.workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        tree.sweep("AUTORESEARCH_HOME", str(self.home))


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def host(tmp_path: Path, stub: Stub, fork_server: ForkServer) -> Iterator[Host]:
    host = Host(tmp_path, stub, fork_server)
    yield host
    host.close()


@pytest.fixture(params=["strict", "pid", "none"])
def level(request: pytest.FixtureRequest) -> isolation.Level:
    """Every sandbox level that works on this host."""
    chosen: isolation.Level = request.param
    if works(chosen) is None:
        pytest.skip(f"no sandbox {chosen} here")
    return chosen


@functools.cache
def works(level: isolation.Level) -> isolation.Sandbox | None:
    """The sandbox of that level for this Python, if the host has it."""
    try:
        return isolation.prepare(level, [sys.executable])
    except isolation.SandboxError:
        return None


def eventually(what: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Wait until `what()` is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found


def end(worker: Worker, number: signal.Signals = signal.SIGTERM) -> int:
    """Signal a worker and wait for its exit code."""
    worker.send_signal(number)
    return worker.wait()


# The beginning of a train.py that goes on when the test calls `host.release(run)`.
WAIT = """
import os, time
print("up", flush=True)
while not os.path.exists("go"):
    time.sleep(0.02)
"""
SLEEP = "import time; print('up', flush=True); time.sleep(60)\n"
BLOCK = """
print('---')
print('val_bpb: 1.234500')
print('training_seconds: 0.1')
print('total_seconds: 0.2')
print('peak_vram_mb: 100.5')
print('mfu_percent: 12.50')
print('total_tokens_M: 1.5')
print('num_steps: 10')
print('num_params_M: 0.3')
print('depth: 2')
"""
