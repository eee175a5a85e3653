"""The process tree of one run: its start, and an end that leaves nobody alive.

    supervisor
    └── guard          fork of the supervisor
        └── launcher   in a session of its own; with bubblewrap: bwrap, its init, the launcher

Supervisor and guard are both subreapers, so an orphan of the run, `setsid` and double forks or not,
becomes a child of one of them and cannot get out of sight. Each ends the tree when the other dies:
the guard by its parent-death signal, the supervisor by SIGCHLD. Should both die at once, `sweep`
finds what is left by a variable in its environment.

Standard library only. When to end a run is the supervisor's business, not this module's.
"""

import ctypes
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from gpu_worker.isolation import Isolation, wrap

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_INFORMATION_FD = 3  # where bwrap writes to, if there is one

# Seconds after which SIGKILL is taken to have no effect: the process hangs inside the kernel.
PATIENCE = 30.0

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def become_subreaper() -> None:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process `number` when the thread that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, number)


class Command(NamedTuple):
    """What the guard runs.

    `info_fd` is told the leader of the run's process group. `lock_fd` stays open in the guard, so
    that the GPU counts as taken until the run's last process is gone, whatever dies before.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: str
    isolation: Isolation
    output_fd: int
    info_fd: int
    lock_fd: int


def start(command: Command) -> int:
    """Fork the guard with the run below it and return its pid; its exit code is the launcher's."""
    supervisor = os.getpid()
    pid = os.fork()
    if pid != 0:
        return pid
    try:
        _guard(command, supervisor)
    except BaseException:  # noqa: BLE001 - a fork must never return into its parent's code
        import traceback  # nearly never needed, and slow to import

        traceback.print_exc()
    finally:
        os._exit(70)


def _guard(command: Command, supervisor: int) -> NoReturn:
    def end(*_: object) -> None:
        kill_descendants()
        os._exit(128 + signal.SIGTERM)

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, end)
    become_subreaper()
    die_with_parent(signal.SIGTERM)
    _close_all_but({0, 1, 2, command.output_fd, command.info_fd, command.lock_fd})
    if os.getppid() != supervisor:  # it died before the line above could notice
        os._exit(70)
    launcher = _launch(command)
    if command.isolation == "direct":
        os.write(command.info_fd, json.dumps({"child-pid": launcher}).encode())
    os.close(command.output_fd)
    os.close(command.info_fd)
    statuses: dict[int, int] = {}
    while launcher not in statuses:
        pid, status = os.wait()
        statuses[pid] = status
    kill_descendants()
    os._exit(exit_code(statuses[launcher]))


def _close_all_but(kept: set[int]) -> None:
    """Above all the supervisor's sockets: the worker must see them close when it dies."""
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor not in kept:
            with suppress(OSError):  # the one that listed the folder is closed already
                os.close(descriptor)


def _launch(command: Command) -> int:
    pid = os.fork()
    if pid != 0:
        return pid
    try:
        os.setsid()
        # A process that Python starts must not inherit what Python ignores for itself.
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
            signal.SIGPIPE,
            signal.SIGXFSZ,
        ):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(command.cwd)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(command.output_fd, 1)
        os.dup2(command.output_fd, 2)
        os.dup2(command.info_fd, _INFORMATION_FD)
        argv = wrap(command.argv, command.isolation, _INFORMATION_FD)
        if command.isolation == "direct":
            os.close(_INFORMATION_FD)
        os.execvpe(argv[0], argv, command.env)  # noqa: S606 - a list of words, no shell
    except OSError as error:
        os.write(2, f"cannot start {command.argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def exit_code(status: int) -> int:
    """A wait status in the shell's way: 128 + signal for a process that a signal ended."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def group_leader(info: bytes) -> int | None:
    """The process group to which SIGTERM goes, from what was written to `info_fd`."""
    try:
        return int(json.loads(info)["child-pid"])
    except (ValueError, KeyError):  # not written yet, or never
        return None


def kill_descendants(
    statuses: dict[int, int] | None = None, patience: float = PATIENCE
) -> list[int]:
    """SIGKILL every descendant until none is left; fills `statuses` with those reaped.

    Returns the pids that would not die within `patience` seconds, normally none.
    """
    deadline = time.monotonic() + patience
    while reap(statuses if statuses is not None else {}):
        victims = descendants(os.getpid())
        for pid in victims:
            kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return victims
        time.sleep(0.002)
    return []


def reap(statuses: dict[int, int]) -> bool:
    """Collect dead children; False when there is no child left, dead or alive."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        statuses[pid] = status


def descendants(root: int) -> list[int]:
    """Every process below `root`, parents before children."""
    children: dict[int, list[int]] = {}
    for pid in _processes():
        with suppress(OSError):  # it ended meanwhile
            after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2]
            children.setdefault(int(after_name.split()[1]), []).append(pid)
    found = list(children.get(root, []))
    for pid in found:  # grows while it is walked
        found += children.get(pid, [])
    return found


def sweep(variable: str, value: str, patience: float = PATIENCE) -> list[int]:
    """SIGKILL every process whose environment says `variable=value`, until none is left.

    For a run that has lost supervisor and guard. Returns the pids that would not die.
    """
    marker = f"{variable}={value}".encode()
    deadline = time.monotonic() + patience
    while victims := [pid for pid in _processes() if _carries(pid, marker)]:
        for pid in victims:
            kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return victims
        time.sleep(0.01)
    return []


def _carries(pid: int, marker: bytes) -> bool:
    if pid == os.getpid():
        return False
    try:
        return marker in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it ended, or belongs to another user, whom no run of ours can become
        return False


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def kill(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone by now, or have become another user's."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_group(leader: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)
