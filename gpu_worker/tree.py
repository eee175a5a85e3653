"""The process tree of one run: its start, and an end after which no process of it is alive.

    supervisor
    └── guard          fork of the supervisor
        └── launcher   in a session of its own; with bubblewrap: bwrap, its init, the launcher

Supervisor and guard are both subreapers: an orphan of the run, even after `setsid` and double
forks, becomes a child of one of them. Each kills the tree when the other dies: the guard by its
parent-death signal, the supervisor by SIGCHLD. If both die at once, `sweep` finds the rest by a
variable in its environment. Standard library only; supervisor.py decides when a run ends.
"""

import ctypes
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from fcntl import F_DUPFD_CLOEXEC, fcntl
from pathlib import Path
from typing import NamedTuple, NoReturn

from gpu_worker import cgroup
from gpu_worker.channel import Order

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# The descriptors of a launcher, named in its command line or environment.
INFO_FD, SECCOMP_FD, MEASURES_FD = 3, 4, 5

# Seconds after which SIGKILL counts as without effect: the process hangs inside the kernel.
KILL_TIMEOUT_SECONDS = 30.0

_GUARD_FAILED = 70  # EX_SOFTWARE of sysexits.h
_DEFAULT_SIGNALS = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ,
)  # fmt: skip

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


class Descriptors(NamedTuple):
    """What the guard inherits. The leader of the run's process group is written to `info`. `lock`
    stays open in the guard, so the GPU is locked until the run's last process is gone. `measures`
    is the run's; `seccomp` has the system call filter that bwrap reads."""

    output: int
    info: int
    lock: int
    measures: int
    seccomp: int


def start(order: Order, fds: Descriptors) -> int:
    """Fork the guard with the run below it and return its pid; its exit code is the launcher's."""
    supervisor = os.getpid()
    pid = os.fork()
    if pid != 0:
        return pid
    try:
        _guard(order, fds, supervisor)
    except BaseException:  # noqa: BLE001 - a fork must never return into its parent's code
        import traceback  # rarely needed, and slow to import

        traceback.print_exc()
    finally:
        os._exit(_GUARD_FAILED)


def _guard(order: Order, fds: Descriptors, supervisor: int) -> NoReturn:
    def end(*_: object) -> None:
        kill_descendants()
        os._exit(128 + signal.SIGTERM)

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, end)
    become_subreaper()
    die_with_parent(signal.SIGTERM)
    _close_all_but({0, 1, 2, *fds})
    if os.getppid() != supervisor:  # it died before die_with_parent took effect
        os._exit(_GUARD_FAILED)
    launcher = _launch(order, fds)
    if order.level == "none":
        os.write(fds.info, json.dumps({"child-pid": launcher}).encode())
    for descriptor in (fds.output, fds.info, fds.measures, fds.seccomp):
        os.close(descriptor)
    statuses: dict[int, int] = {}
    while launcher not in statuses:
        pid, status = os.wait()
        statuses[pid] = status
    kill_descendants()
    os._exit(exit_code(statuses[launcher]))


def _close_all_but(kept: set[int]) -> None:
    """Close above all the supervisor's sockets, so that the worker sees the supervisor's death."""
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor not in kept:
            with suppress(OSError):  # the one that listed the folder is closed already
                os.close(descriptor)


def _launch(order: Order, fds: Descriptors) -> int:
    pid = os.fork()
    if pid != 0:
        return pid
    try:
        os.setsid()
        # The launcher would inherit the signals that Python ignores.
        for number in _DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.chdir(order.workspace)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(fds.output, 1)
        os.dup2(fds.output, 2)
        _volunteer_for_oom()
        if order.cgroup:
            cgroup.enter(Path(order.cgroup))
        _move(order, fds)
        os.execvpe(order.argv[0], order.argv, order.env)  # noqa: S606 - a list of words, no shell
    except OSError as error:
        os.write(2, f"cannot start {order.argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _volunteer_for_oom() -> None:
    """Where memory is short the kernel takes a run first, and not what serves it."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")


def _move(order: Order, fds: Descriptors) -> None:
    """Give the launcher's descriptors their numbers; all others close when it is executed."""
    wanted = {MEASURES_FD: fds.measures}
    if order.level != "none":
        wanted[INFO_FD] = fds.info
    if order.level == "strict":
        wanted[SECCOMP_FD] = fds.seccomp
    # First above all numbers, as one may have the number of another.
    copies = {n: fcntl(fd, F_DUPFD_CLOEXEC, MEASURES_FD + 1) for n, fd in wanted.items()}
    for number, copy in copies.items():
        os.dup2(copy, number)


def exit_code(status: int) -> int:
    """A wait status as a shell shows it: 128 + signal for a process that a signal ended."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def group_leader(info: int) -> int | None:
    """The process group that gets SIGTERM, read from the other end of `Descriptors.info`."""
    try:
        return int(json.loads(os.read(info, 4096))["child-pid"])
    except (BlockingIOError, ValueError, KeyError):  # not written yet, or never
        return None


def kill_descendants(statuses: dict[int, int] | None = None) -> list[int]:
    """SIGKILL every descendant until none is left; fills `statuses` with those reaped.

    Returns the pids that are alive after KILL_TIMEOUT_SECONDS, normally none.
    """
    reaped = {} if statuses is None else statuses
    return _kill_all(lambda: descendants(os.getpid()) if reap(reaped) else [], 0.002)


def sweep(variable: str, value: str, timeout: float = KILL_TIMEOUT_SECONDS) -> list[int]:
    """SIGKILL every process whose environment has `variable=value`, until none is left.

    For a run that has lost supervisor and guard. Returns the pids that are alive after `timeout`.
    """
    marker = f"{variable}={value}".encode()
    return _kill_all(lambda: [pid for pid in _processes() if _has(pid, marker)], 0.01, timeout)


def _kill_all(
    find: Callable[[], list[int]], pause: float, timeout: float = KILL_TIMEOUT_SECONDS
) -> list[int]:
    """SIGKILL what `find` returns, until it returns nothing or `timeout` seconds have passed."""
    deadline = time.monotonic() + timeout
    while victims := find():
        for pid in victims:
            kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return victims
        time.sleep(pause)
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
        with suppress(OSError):  # it has ended
            children.setdefault(int(stat(pid)[1]), []).append(pid)
    found = list(children.get(root, []))
    for pid in found:  # grows during the loop
        found += children.get(pid, [])
    return found


def stat(pid: int) -> list[bytes]:
    """A process' state, its parent and what follows them in /proc/PID/stat. Raises OSError."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def _has(pid: int, marker: bytes) -> bool:
    """True if another process has `marker` in its environment."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has ended, or is another user's, which no process of a run can become
        return False
    return pid != os.getpid() and marker in environment.split(b"\0")


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def kill(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone, or whose pid may be another user's by now."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_group(leader: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)
