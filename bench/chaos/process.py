"""One process of the system under test, to be killed, stopped, continued and started again.

A fault holds the process's lock, so that no two faults hit one process. The kernel kills it when
the harness ends.
"""

import asyncio
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gpu_worker import tree

ROOT = Path(__file__).resolve().parents[2]
LOOK_SECONDS = 0.05

_die_with_harness = partial(tree.die_with_parent, signal.SIGKILL)


@dataclass(frozen=True)
class Host:
    """Where a process runs: at this address, entered by a command, with these settings."""

    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


class Process:
    """One process of the system; `wanted` while it should run."""

    def __init__(
        self, name: str, argv: list[str], env: dict[str, str], logs: Path, host: Host
    ) -> None:
        self.name = name
        self.host = host
        self.lock = asyncio.Lock()
        self.wanted = False
        self._argv = [*host.enter, *argv]
        self._env = os.environ | env | host.env
        self._log = logs / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0  # in its log

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        self._started_at = self._log.stat().st_size if self._log.exists() else 0
        self._process = self.spawn()
        self.wanted = True

    def spawn(self) -> subprocess.Popen[bytes]:
        """Another process of the same command line."""
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._argv,
                env=self._env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_harness,  # noqa: PLW1509 - one system call, no lock
            )

    def send(self, number: signal.Signals) -> None:
        if self.exit_code is None:
            os.kill(self.pid, number)

    def catches(self, number: signal.Signals) -> bool:
        """True if it handles this signal; one that is still starting does not."""
        if self.exit_code is not None:
            return False
        status = Path(f"/proc/{self.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> (number - 1) & 1)

    def has_logged(self, words: str) -> bool:
        """True if it has, since its last start."""
        return words.encode() in self._log.read_bytes()[self._started_at :]

    def kill(self) -> None:
        self.wanted = False
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    async def end(self, seconds: float) -> int | None:
        """SIGTERM; the exit code, or None when that did not end it in time."""
        self.wanted = False
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self.exit_code is None and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
        return self.exit_code
