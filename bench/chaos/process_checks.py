"""Checks that the system's processes live, and that none outlives its run.

A process belongs to this system if its environment names our home: what an orchestrator or a worker
starts inherits that, also when its parent is gone. A run in `strict` knows only its workspace,
which is in the home.
"""

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

from bench.chaos import journals
from bench.chaos.system import System
from bench.chaos.violations import Findings

# How long the rest of a run may take to die, and how often we look.
_ORPHAN_SECONDS = 5.0
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Marked:
    """A process of the system; `run` is the attempt that it belongs to, if any."""

    pid: int
    parent: int
    run: str | None


def marked(home: Path) -> list[Marked]:
    """Every living process of the system with that home."""
    name = b"AUTORESEARCH_HOME=%s" % os.fsencode(home)
    workspaces = b"AUTORESEARCH_WORKSPACE=%s/" % os.fsencode(home)
    found = []
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            variables = (path / "environ").read_bytes().split(b"\0")
            stat = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended, or is not ours to read
            continue
        ours = any(v == name or v.startswith(workspaces) for v in variables)
        if ours and stat[0] != "Z":
            runs = [v.partition(b"=")[2] for v in variables if v.startswith(b"AUTORESEARCH_RUN=")]
            run = runs[0].decode() if runs else None
            found.append(Marked(int(path.name), int(stat[1]), run))
    return found


class ProcessChecks:
    def __init__(self, system: System, findings: Findings) -> None:
        self._system = system
        self._findings = findings
        self._first_seen: dict[int, float] = {}

    async def watch(self) -> None:
        """Look every half second until cancelled."""
        while True:
            self._look_for_deaths()
            self._look_for_orphans()
            await asyncio.sleep(_LOOK_SECONDS)

    def _look_for_deaths(self) -> None:
        for process in self._system.processes:
            if process.wanted and process.exit_code is not None:
                self._findings.add("alive", f"{process.name} ended with {process.exit_code}")
                process.start()  # the rest of the run is worth something all the same

    def _look_for_orphans(self) -> None:
        now = time.monotonic()
        runs = {m.pid: m.run for m in marked(self._system.plan.home) if m.run}
        self._first_seen = {pid: self._first_seen.get(pid, now) for pid in runs}
        old = [pid for pid, seen in self._first_seen.items() if now - seen > _ORPHAN_SECONDS]
        if not old:
            return
        ends: dict[str, float] = {}
        for worker in self._system.workers:
            ends |= journals.ends(journals.read(worker.folder.journal))
        for pid in old:
            run = runs[pid]
            if run in ends and now - ends[run] > _ORPHAN_SECONDS:
                self._findings.add("orphan", f"process {pid} outlived {run}")

    def check_rest(self) -> None:
        """At rest there are orchestrators and workers, and at most one supervisor in waiting for
        each worker (one that has just come up has none yet)."""
        wanted = {process.pid for process in self._system.processes}
        workers = {worker.pid for worker in self._system.workers}
        waiting: dict[int, int] = dict.fromkeys(workers, 0)
        for process in marked(self._system.plan.home):
            if process.pid in wanted or process.pid == os.getpid():
                continue
            if process.run is not None:
                self._findings.add("orphan", f"process {process.pid} outlived {process.run}")
            elif process.parent not in workers:
                self._findings.add("orphan", f"supervisor {process.pid} outlived its worker")
            else:
                waiting[process.parent] += 1
        for worker in self._system.workers:
            if waiting[worker.pid] > 1:
                self._findings.add(
                    "orphan", f"{worker.name} keeps {waiting[worker.pid]} supervisors in waiting"
                )
