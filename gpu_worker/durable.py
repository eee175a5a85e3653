"""Writes that survive a power cut, and the journal of what occupied the GPU.

Standard library only: the supervisor starts with it. File names belong to folders.py.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path

JOURNAL_LIMIT_BYTES = 16 * 1024 * 1024


def write_durably(path: Path, data: bytes) -> None:
    """Replace `path` by `data` so that a reader finds the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names that were created or replaced in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def note(journal: Path, event: str, run: str, lock: str) -> None:
    """Append one line to a GPU's journal: which run held which lock from when to when.

    `monotonic` (seconds since boot) orders the lines of one host whatever its clock does. A line
    is one write to a file opened for appending, so lines of several processes do not mix.
    """
    entry = {
        "event": event,
        "run": run,
        "lock": lock,
        "monotonic": time.monotonic(),
        "time": time.time(),
        "pid": os.getpid(),
    }
    line = json.dumps(entry, separators=(",", ":")) + "\n"
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def turn_over(journal: Path) -> None:
    """Keep the journal and one older part of it, so that it cannot grow for ever."""
    with suppress(FileNotFoundError):
        if journal.stat().st_size > JOURNAL_LIMIT_BYTES:
            journal.replace(journal.with_suffix(".1.jsonl"))
