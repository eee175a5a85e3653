"""One worker per GPU of a host: a file lock named after the GPU.

The lock belongs to an open file description, which the worker shares with its supervisors. So it is
held until the last of them ends, and a restarted worker gets it from the supervisor of the run that
it adopts. It is never unlocked, only closed.
"""

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path


class LockBusy(Exception):
    """Another worker, or a run that outlived its worker, has the GPU."""


def lock_path(folder: Path, gpu: str) -> Path:
    return folder / (re.sub(r"[^A-Za-z0-9._-]", "_", gpu) + ".lock")


def take(path: Path) -> int:
    """The descriptor that holds the lock. Raises LockBusy.

    All users of the host share the folder. It is sticky, and links are not followed. Kernels may
    forbid O_CREAT on another user's file there, so a file is created and then opened again.
    """
    with suppress(FileExistsError):
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o1777)
    with suppress(FileExistsError):
        created = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
        os.fchmod(created, 0o644)  # whatever our umask: other users have to try it
        os.close(created)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        whose = f"{path} of user {path.stat().st_uid}"
        raise LockBusy(f"{whose} is held by another worker, or by a run that is ending") from None
    return descriptor
