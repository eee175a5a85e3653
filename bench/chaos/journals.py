"""The workers' own journals: which run held which GPU's lock, and when.

Supervisors and workers write them on their own disk, with the lock and the host's monotonic time,
so they show overlaps without Redis.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.chaos.violations import Findings

_TAIL_BYTES = 2048


@dataclass(frozen=True)
class Entry:
    """One line: a run's start or end on a lock, by the process `pid`."""

    event: str
    run: str
    lock: str
    monotonic: float
    pid: int


def read(journal: Path) -> list[Entry]:
    """Every line, in order of time, of the journal and its older part."""
    lines: list[str] = []
    for path in (journal.with_suffix(".1.jsonl"), journal):
        if path.exists():
            lines += path.read_text().splitlines()
    entries = [_entry(json.loads(line)) for line in lines]
    return sorted(entries, key=lambda entry: entry.monotonic)


def _entry(line: dict[str, Any]) -> Entry:
    return Entry(*(line[name] for name in ("event", "run", "lock", "monotonic", "pid")))


def running(journal: Path) -> Entry | None:
    """The start of the present run, if there is one."""
    if not journal.exists():
        return None
    with journal.open("rb") as file:
        file.seek(max(0, journal.stat().st_size - _TAIL_BYTES))
        lines = file.read().splitlines()
    last = _entry(json.loads(lines[-1])) if lines else None
    return last if last is not None and last.event == "started" else None


def ends(entries: Iterable[Entry]) -> dict[str, float]:
    """When each run ended, by its name."""
    return {entry.run: entry.monotonic for entry in entries if entry.event == "ended"}


def check(entries: Iterable[Entry], findings: Findings) -> None:
    """On each lock one run after the other, and all of them ended."""
    held: dict[str, str] = {}
    for entry in entries:
        holder = held.get(entry.lock)
        if entry.event == "started":
            if holder is not None:
                findings.add("gpu-overlap", f"{entry.run} began on {entry.lock} during {holder}")
            held[entry.lock] = entry.run
        elif holder == entry.run:
            del held[entry.lock]
    for lock, run in held.items():
        findings.add("gpu-overlap", f"{run} has no end in the journal of {lock}")
