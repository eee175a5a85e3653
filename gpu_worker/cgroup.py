"""The kernel's limit on the memory and the processes of a run in `strict`: a cgroup (version 2).

The supervisor makes it, the run's first process enters it, and the supervisor removes it. It needs
a cgroup in which this user may make others: root's, one of a systemd user, or one that a unit got
with Delegate=. Standard library only, and little of it.
"""

import os
import zlib
from contextlib import suppress
from pathlib import Path

from gpu_worker.limits import GIB, PROCESSES, host_memory_bytes

_ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = {"memory", "pids"}
_SPARED_BYTES = 2 * GIB  # for the worker and the system, or
_SPARED_SHARE = 16  # this part of the memory, if that is more


def find_parent(root: Path = _ROOT, process: Path = Path("/proc/self")) -> Path | None:
    """The cgroup in which runs get theirs: the nearest to this process that allows it."""
    try:
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:  # a kernel without cgroups
        return None
    # "0::" begins version 2's line; ".." in it leads to what a container cannot see.
    own = next((Path(line[4:]) for line in lines if line.startswith("0::/")), Path(".."))
    nearest = [root / own, *(root / folder for folder in own.parents)]
    return None if ".." in own.parts else next(filter(_allows, nearest), None)


def _allows(folder: Path) -> bool:
    """True if this user may make limited cgroups in it; the controllers for that are then enabled.
    The kernel refuses them to a cgroup that has processes itself, as the worker's own has, except
    for the root of all."""
    control = folder / "cgroup.subtree_control"
    try:
        if not (os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)):
            return False
        if not set(control.read_text().split()) >= _CONTROLLERS:
            control.write_text("+memory +pids")
        return set(control.read_text().split()) >= _CONTROLLERS
    except OSError:  # no cgroup of version 2, or not its user's
        return False


def of_worker(parent: Path, worker: Path) -> Path:
    """The cgroup for the runs of the worker with that folder, which has one at a time."""
    return parent / f"autoresearch-{zlib.crc32(os.fsencode(worker)):08x}"


def create(folder: Path) -> None:
    """Make the cgroup of a run. Raises OSError."""
    remove(folder)  # what a supervisor has left that was killed
    folder.mkdir(exist_ok=True)
    limits = {
        "memory.max": memory_bytes(folder.parent),
        "memory.swap.max": 0,
        "memory.oom.group": 1,  # a run dies as a whole
        "pids.max": PROCESSES,
    }
    for name, limit in limits.items():
        if name != "memory.swap.max" or (folder / name).exists():  # a kernel without swap
            (folder / name).write_text(str(limit))


def memory_bytes(parent: Path) -> int:
    """What a run may use: the host's memory, or what is allowed to the cgroups above, less a part
    that keeps the worker and the system alive."""
    total = host_memory_bytes()
    for folder in (parent, *parent.parents):
        with suppress(OSError, ValueError):  # the root has no limit; another may have "max"
            total = min(total, int((folder / "memory.max").read_text()))
    return total - min(total // 2, max(_SPARED_BYTES, total // _SPARED_SHARE))


def enter(folder: Path) -> None:
    """Move this process there. Raises OSError."""
    (folder / "cgroup.procs").write_text("0")


def oom_kills(folder: Path | None) -> int:
    """How many processes the kernel has killed there for lack of memory, or on the whole host."""
    file = Path("/proc/vmstat") if folder is None else folder / "memory.events"
    return _counters(file).get("oom_kill", 0)


def excess(folder: Path) -> str:
    """How the run's memory exceeded its limit, in words; empty if it did not."""
    events = _counters(folder / "memory.events")
    # "oom" counts its own limit only, "oom_kill" also what the host's lack of memory ended.
    if not (events.get("oom") and events.get("oom_kill")):
        return ""
    allowed = int((folder / "memory.max").read_text())
    return f"it used more memory than a run may have here, {allowed / GIB:.1f} GiB"


def _counters(file: Path) -> dict[str, int]:
    try:
        words = [line.split() for line in file.read_text().splitlines()]
    except FileNotFoundError:  # removed by its user's systemd, since it is empty
        return {}
    return {name: int(value) for name, value in words}


def remove(folder: Path) -> None:
    """Remove it if it is there and has no process."""
    with suppress(OSError):
        folder.rmdir()
