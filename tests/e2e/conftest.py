"""The whole system as real processes: orchestrators, workers, stub trainings, the user's Redis."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.harness.ports import free_port

# What a stub does is chosen in its first lines; the rest is a short training's output.
STUB = """
import sys, time
from autoresearch_run import measured
SECONDS, BPB = {seconds}, {bpb}
for step in range(4):
    sys.stdout.write(f"\\rstep {{step:05d}} ({{25.0 * step:5.1f}}%) | loss: {{9 - step}}.0 | ")
    sys.stdout.flush()
    time.sleep(SECONDS / 4)
measured(BPB)
print("\\n---")
print(f"val_bpb: {{BPB:.6f}}")
print("training_seconds: 1.0\\npeak_vram_mb: 100.0\\nnum_steps: 4\\ndepth: 2")
"""


def stub(bpb: float, seconds: float = 0.05, note: str = "") -> str:
    """A train.py that takes `seconds` and reaches `bpb`."""
    return f"# {note}\n" + STUB.format(bpb=bpb, seconds=seconds)


def eventually(condition: Any, seconds: float = 30, what: str = "the condition") -> Any:
    """The first true value of `condition()`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.05)


class System:
    """Processes of one home folder, ended with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "AUTORESEARCH_HOME": str(folder / "home"),
            "AUTORESEARCH_LOCK_DIR": str(folder / "locks"),
            # Stubs need no packages, and start twice as fast without looking for them.
            "AUTORESEARCH_LAUNCHER": f"{sys.executable} -I -S",
            "AUTORESEARCH_CHECK": "false",
            "AUTORESEARCH_FREE_SPACE_BYTES": "0",
            "AUTORESEARCH_LEASE_SECONDS": "2",
            "AUTORESEARCH_HEARTBEAT_SECONDS": "0.3",
            "AUTORESEARCH_GRACE_SECONDS": "20",
            "AUTORESEARCH_REDIS_TIMEOUT_SECONDS": "2",
            "AUTORESEARCH_KILL_AFTER_SECONDS": "1",
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.url = ""

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        number = len(self.processes)
        with (self.folder / f"{number}-{arguments[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli", *arguments],
                env=self.environment | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o022,  # the usual one
            )
        self.processes.append(process)
        return process

    def serve(self, port: int | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """An orchestrator; the last one started is the one spoken to."""
        port = port or free_port()
        self.url = f"http://127.0.0.1:{port}"
        process = self.start("serve", "--port", str(port), **environment)

        def up() -> bool:
            assert process.poll() is None, f"the orchestrator on port {port} ended"
            return self.ready()

        eventually(up, 60, "the orchestrator")
        return process

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def worker(
        self, gpu_id: str = "cpu-0", url: str = "", **environment: str
    ) -> subprocess.Popen[bytes]:
        flags = ("--gpu-id", gpu_id, "--orchestrator", url or self.url)
        return self.start("worker", "--cpu", *flags, **environment)

    def post(self, path: str, _status: tuple[int, ...] = (200, 202), **body: Any) -> Any:
        response = httpx.post(self.url + path, json=body, timeout=40)
        assert response.status_code in _status, response.text
        return response.json()

    def get(self, path: str, **query: Any) -> Any:
        response = httpx.get(self.url + path, params=query, timeout=40)
        assert response.status_code < 300, response.text
        return response.json()

    def submit(self, train_py: str, tag: str = "t", **fields: Any) -> str:
        body = {"tag": tag, "hypothesis": "h", "train_py": train_py} | fields
        return str(self.post("/api/experiment/submit", **body)["experiment_id"])

    def wait(self, experiment_id: str, seconds: float = 60) -> Any:
        """The experiment once it is decided."""

        def decided() -> Any:
            found = self.get(f"/api/experiment/{experiment_id}/wait", timeout=5)
            return found if found["verdict"] else None

        return eventually(decided, seconds, f"the verdict of {experiment_id}")

    def training(self, experiment_id: str) -> None:
        """Return once the experiment's train.py has said something."""

        def speaks() -> bool:
            return b"step" in httpx.get(f"{self.url}/api/experiment/{experiment_id}/log").content

        eventually(speaks, what=f"the first words of {experiment_id}")

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def stop(self) -> None:
        """Workers first, as `up` does; then the orchestrators, the last of which stops Redis."""
        for command in ("worker", "serve"):
            running = [p for p in self.processes if command in p.args and p.poll() is None]
            for process in running:
                os.kill(process.pid, signal.SIGCONT)
                process.terminate()
            for process in running:
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@pytest.fixture
def system(tmp_path: Path, _clean_environment: None) -> Iterator[System]:
    running = System(tmp_path)
    yield running
    running.stop()
    print(running.logs())  # noqa: T201 - pytest shows it with a failure
    for path in (tmp_path / "home").glob("redis/*.pid"):
        pid = path.read_text().strip()
        assert not pid.isdigit() or not Path(f"/proc/{pid}").exists(), "Redis was left running"
