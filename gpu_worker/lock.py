"""One worker a GPU and host: a file lock named by the GPU, which lasts as long as its holders.

The lock belongs to an open file description. The worker shares it with its supervisors, so it is
held until the last of them has gone, and a restarted worker gets it back from the supervisor of
the run that it adopts. It is never unlocked, only closed.
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

    All users of the host share the folder. It is sticky, links are not followed, and a file is
    created on its own, since kernels may forbid opening another user's file with O_CREAT there.
    """
    with suppress(FileExistsError):
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o1777)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644))
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LockBusy(f"{path} is held by another worker, or by a run that is ending") from None
    return descriptor
