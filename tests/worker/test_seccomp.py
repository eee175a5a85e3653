"""The system call filter of `strict`, installed in a child process and tried."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_worker import seccomp

# Installs the filter as bubblewrap does, then makes every call with arguments that are all zero.
TRY = """
import ctypes, errno, json, os, socket, sys
from gpu_worker import seccomp
libc = ctypes.CDLL(None, use_errno=True)
program = seccomp.program()
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
filled = Program(len(program) // 8, program)
if {filtered}:
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.byref(filled), 0, 0) == 0, ctypes.get_errno()
found = {{}}
for name, number in {calls!r}.items():
    ctypes.set_errno(0)
    libc.syscall(number, *([0] * 6))
    found[name] = errno.errorcode.get(ctypes.get_errno(), "made")
for family in (1, 2, 10, 16, 40, 38):
    try:
        socket.socket(family, socket.SOCK_SEQPACKET if family == 38 else socket.SOCK_DGRAM).close()
        found[f"family {{family}}"] = "made"
    except OSError as error:
        found[f"family {{family}}"] = errno.errorcode[error.errno]
ctypes.set_errno(0)
libc.syscall(435, 0, 0)
found["clone3"] = errno.errorcode[ctypes.get_errno()]
for name, flags in ("clone", 0), ("clone into a user namespace", 0x10000000):
    child = libc.syscall({clone}, flags | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    found[name] = "made" if child > 0 else errno.errorcode[ctypes.get_errno()]
print(json.dumps(found))
"""


def tried(calls: dict[str, int], *, filtered: bool) -> dict[str, str]:
    clone = 56 if platform.machine() == "x86_64" else 220
    script = TRY.format(calls=calls, filtered=filtered, clone=clone)
    project = Path(seccomp.__file__).parents[1]
    output = subprocess.check_output([sys.executable, "-c", script], cwd=project, timeout=30)
    found: dict[str, str] = json.loads(output)
    return found


def test_every_listed_call_and_every_other_kind_of_socket_is_refused() -> None:
    calls = seccomp.refused_calls(platform.machine())
    found = tried(calls, filtered=True)
    allowed = {f"family {family}": "made" for family in (1, 2, 10, 16)}
    refused = dict.fromkeys([*calls, "family 40", "family 38"], "EPERM")
    clones = {"clone": "made", "clone into a user namespace": "EPERM", "clone3": "ENOSYS"}
    assert found == refused | allowed | clones


def test_ordinary_calls_are_not_refused() -> None:
    """Neighbours of refused ones by number among them."""
    numbers = {"getpid": 39, "sched_yield": 24, "getuid": 102}
    if platform.machine() != "x86_64":
        numbers = {"getpid": 172, "sched_yield": 124, "getuid": 174}
    found = tried(numbers, filtered=True)
    assert {found[name] for name in numbers} == {"made"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is a thing of x86-64")
def test_the_second_number_of_a_call_is_refused_too() -> None:
    """On x86-64 each call exists again with bit 30 set."""
    assert tried({"getpid": 39 | 0x40000000}, filtered=True)["getpid"] == "EPERM"


def test_without_the_filter_some_of_them_are_possible() -> None:
    """Else the test above would show nothing."""
    calls = seccomp.refused_calls(platform.machine())
    safe = {name: calls[name] for name in ("add_key", "perf_event_open", "bpf", "kcmp")}
    found = tried(safe, filtered=False)
    assert {found[name] for name in safe} - {"EPERM", "ENOSYS"}, found
    assert found["clone3"] == "EINVAL"
