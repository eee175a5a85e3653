"""Keeps child processes running: starts them, restarts them with back-off, stops them.

It has no threads: its owner calls `poll` a few times a second. Each child has a session of its
own, so that a Ctrl-C reaches only the owner, and a pipe from the owner (`process.watch_parent`), so
that it stops in order when the owner is killed. Output goes to log files, which outlive the owner;
`poll` passes on what is new in them.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orchestrator.cli.errors import USAGE
from orchestrator.cli.run.process import PARENT_PIPE

_FIRST_BACKOFF_SECONDS, _LAST_BACKOFF_SECONDS = 0.5, 30.0
# A child that ran for this long started well: its next failure counts as its first.
_STEADY_SECONDS = 60.0
_HURRIED_SECONDS = 5.0
_LOG_LIMIT_BYTES = 8 << 20


@dataclass(frozen=True)
class Program:
    """What a child runs, where its output goes, and sockets that it inherits."""

    name: str
    command: Sequence[str]
    log: Path
    pass_fds: tuple[int, ...] = ()


def autoresearch(*arguments: str) -> list[str]:
    """The command line of one of our own commands, in this very Python."""
    return [sys.executable, "-m", "orchestrator.cli", *arguments]


@dataclass(eq=False)
class _Child:
    """One program and its present process, if it has one."""

    program: Program
    environment: dict[str, str]
    stdin: int
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started_at: float = 0.0
    restart_at: float | None = None
    _reader: BinaryIO | None = None

    def start(self, now: float) -> None:
        log = self.program.log
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))
            self.close()
        with log.open("ab") as out:
            if self._reader is None:
                self._reader = log.open("rb")
                self._reader.seek(0, os.SEEK_END)
            self.process = subprocess.Popen(
                list(self.program.command),
                stdin=self.stdin,
                stdout=out,
                stderr=out,
                env=self.environment,
                start_new_session=True,
                pass_fds=self.program.pass_fds,
            )
        self.started_at, self.restart_at = now, None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)  # does nothing if it has ended

    def kill(self) -> None:
        """Kill the child and all that is left in its session."""
        if self.process is not None and self.running:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def new_lines(self) -> list[str]:
        """Complete lines since the last call."""
        if self._reader is None:
            return []
        start = self._reader.tell()
        text = self._reader.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._reader.seek(start + len(complete))
        return complete.decode(errors="replace").splitlines()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


Say = Callable[[str, str], None]


class Supervisor:
    """Several children. `say` gets a child's name and a line about it, `hear` a line of its log."""

    def __init__(
        self,
        say: Say,
        hear: Say,
        environment: dict[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._hear = hear
        self._clock = clock
        self._environment = environment | {PARENT_PIPE: "stdin"}
        self._reading, self._writing = os.pipe()
        self._children: dict[str, _Child] = {}

    def start(self, program: Program) -> None:
        child = _Child(program, self._environment, self._reading)
        self._children[program.name] = child
        child.start(self._clock())

    def poll(self) -> None:
        """Pass on what children printed, and restart those that ended."""
        now = self._clock()
        ended = [c for c in self._children.values() if c.process is not None and not c.running]
        self.pass_on()  # all of what an ended child printed
        for child in self._children.values():
            if child in ended:
                self._plan_restart(child, now)
            elif child.restart_at is not None and now >= child.restart_at:
                child.start(now)

    def pass_on(self) -> None:
        """Pass on what children printed, and nothing else."""
        for child in self._children.values():
            for line in child.new_lines():
                self._hear(child.program.name, line)

    def running(self) -> list[str]:
        return [name for name, child in self._children.items() if child.running]

    def hopeless(self) -> list[str]:
        """The children that ended and are not started again."""
        children = self._children.items()
        return [n for n, c in children if c.process is None and c.restart_at is None]

    def stop(
        self, names: Sequence[str], seconds: float, hurry: Callable[[], bool] = lambda: False
    ) -> None:
        """SIGTERM and `seconds` to end; then, or on `hurry`, two SIGINT; then SIGKILL."""
        children = [self._children[name] for name in names if name in self._children]
        for child in children:
            child.restart_at = None
            child.signal(signal.SIGTERM)
        if self._ended(children, seconds, hurry):
            return
        for _ in range(2):
            for child in children:
                child.signal(signal.SIGINT)
            time.sleep(0.05)  # two signals at once would be one
        self._ended(children, _HURRIED_SECONDS)
        for child in children:
            if child.running:
                self._say(child.program.name, "does not end and is killed")
                child.kill()

    def close(self) -> None:
        """Kill the children that are left, and close all files."""
        for child in self._children.values():
            child.kill()
            child.close()
        os.close(self._writing)
        os.close(self._reading)

    def _ended(
        self, children: Sequence[_Child], seconds: float, hurry: Callable[[], bool] = lambda: False
    ) -> bool:
        """True if all end within `seconds`."""
        deadline = self._clock() + seconds
        while running := any(child.running for child in children):
            if self._clock() >= deadline or hurry():
                break
            self.pass_on()
            time.sleep(0.05)
        self.pass_on()
        return not running

    def _plan_restart(self, child: _Child, now: float) -> None:
        assert child.process is not None  # noqa: S101  (for the type checker: `poll` looked)
        code, child.process = child.process.returncode, None
        if code in (0, USAGE):
            how = "ended" if code == 0 else "cannot run as configured"
            self._say(child.program.name, f"{how}; it is not started again")
            return
        steady = now - child.started_at > _STEADY_SECONDS
        child.failures = 0 if steady else child.failures + 1
        wait = min(_FIRST_BACKOFF_SECONDS * 2 ** max(0, child.failures - 1), _LAST_BACKOFF_SECONDS)
        child.restart_at = now + wait
        what = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self._say(child.program.name, f"{what}; starting it again in {wait:g} s")
