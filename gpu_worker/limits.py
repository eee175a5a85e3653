"""What a run in `strict` may use up, watched from outside twice a second.

The kernel limits memory files (tmpfs) and open files; it has no quota on a folder that an ordinary
user could set, and exempts root's processes from its limit. So the supervisor looks, and stops a
run that has exceeded one. Standard library only, and little of it.
"""

import os
from pathlib import Path

GIB = 1 << 30

CHECK_SECONDS = 0.5
WORKSPACE_BYTES = 20 * GIB
WORKSPACE_FILES = 50_000
PROCESSES = 2048  # and threads, of which torch.compile and BLAS start some for each core
_FREE_SHARE = 2  # a run gets at most half of what is free when it starts


class Watch:
    """The limits of one run on `folders`, all on one disk."""

    def __init__(self, folders: list[Path]) -> None:
        self._folders = folders
        self._quota = min(WORKSPACE_BYTES, _free_bytes(folders[0]) // _FREE_SHARE)

    def excess(self) -> str | None:
        """The limit that its files exceed, in words."""
        files, used = 0, 0
        pending = [str(folder) for folder in self._folders]
        while pending and files <= WORKSPACE_FILES:
            try:
                with os.scandir(pending.pop()) as entries:
                    for entry in entries:
                        files += 1
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                        else:
                            used += entry.stat(follow_symlinks=False).st_blocks * 512
                        if files > WORKSPACE_FILES:
                            break
            except FileNotFoundError:  # removed meanwhile
                continue
            except OSError as error:  # or its files would not be counted
                return f"its workspace cannot be read: {error.strerror}"
        if files > WORKSPACE_FILES:
            return f"it made more than {WORKSPACE_FILES:,} files"
        if used > self._quota:
            return f"it wrote {used / GIB:.1f} GiB; its quota is {self._quota / GIB:.1f} GiB"
        return None

    def disk_danger(self) -> str | None:
        """Why the run must end whoever filled the disk: deleted files that are still open are in no
        folder."""
        free = _free_bytes(self._folders[0])
        if free < min(self._quota // 4, GIB):
            return f"only {free / GIB:.1f} GiB are left on the disk of {self._folders[0]}"
        return None


def host_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def may_exceed_processes() -> bool:
    """False if the whole host has too few threads for one run to exceed PROCESSES: cheap."""
    total = Path("/proc/loadavg").read_text().split()[3].partition("/")[2]
    return int(total) > PROCESSES
