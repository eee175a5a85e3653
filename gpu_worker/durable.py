"""Writes that survive a power cut, and the journal of the runs that held the GPU.

Standard library only: the supervisor imports it. File names belong to folders.py.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

JOURNAL_LIMIT_BYTES = 16 * 1024 * 1024


def write_durably(path: Path, data: bytes) -> None:
    """Replace `path` by `data`; a reader finds the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # makes the new name durable
    finally:
        os.close(folder)


def append_to_journal(journal: Path, event: str, run: str, lock: str) -> None:
    """Append one line to a GPU's journal: a run has `started` or `ended` under that lock.
    `monotonic` (seconds since boot) orders the lines of one host, even when its clock jumps. One
    write per line, so those of several processes do not mix."""
    entry = {
        "event": event,
        "run": run,
        "lock": lock,
        "monotonic": time.monotonic(),
        "time": time.time(),
        "pid": os.getpid(),
    }
    line = json.dumps(entry, separators=(",", ":")) + "\n"
    with journal.open("ab", buffering=0) as file:
        file.write(line.encode())


def rotate_journal(journal: Path) -> None:
    """Keep the journal and one older part of it, so that it cannot grow without limit."""
    with suppress(FileNotFoundError):
        if journal.stat().st_size > JOURNAL_LIMIT_BYTES:
            journal.replace(journal.with_suffix(".1.jsonl"))
