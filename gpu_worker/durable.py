"""Writes that survive a power cut, reads that nothing can block, and the journal of the runs.

Standard library only: the supervisor imports it. File names belong to folders.py.
"""

import errno
import json
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

JOURNAL_LIMIT_BYTES = 16 * 1024 * 1024
_STATE_BYTES = 16 * 1024 * 1024  # more than any state file has


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


def read_file(path: Path, limit: int = _STATE_BYTES, offset: int = 0) -> bytes:
    """Up to `limit` bytes of a regular file from `offset`. Raises OSError.

    A run can replace each of its files by anything: a pipe, which would block its reader, and a
    link are refused."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.pread(descriptor, limit, offset)
    finally:
        os.close(descriptor)


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
