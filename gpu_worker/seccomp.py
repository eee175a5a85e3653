"""The system calls that a run in `strict` may not make, as a program for the kernel's filter.

These reach beyond a process (debuggers, keyrings, mounts, modules, kexec) or were the way into the
kernel more often than others (bpf, userfaultfd, io_uring, perf). No training needs them; each fails
with EPERM. So does a socket of another family than those below: vsock, for one, reaches the host of
a virtual machine through every network namespace. So does a new user namespace; clone3, whose flags
no filter can read, is said to be missing, and libraries take clone instead. The filter is classic
BPF, seccomp(2); a test makes each call under it. Standard library only, because supervisors import
it.
"""

import errno
import os
import platform
import struct

# x86-64 and the other architectures number differently up to 334, and alike from 424 on.
_LEGACY = {
    "ptrace": (101, 117), "syslog": (103, 116), "pivot_root": (155, 41), "acct": (163, 89),
    "mount": (165, 40), "umount2": (166, 39), "swapon": (167, 224), "swapoff": (168, 225),
    "reboot": (169, 142), "init_module": (175, 105), "delete_module": (176, 106),
    "quotactl": (179, 60), "lookup_dcookie": (212, 18), "kexec_load": (246, 104),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "perf_event_open": (298, 241), "fanotify_init": (300, 262), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "unshare": (272, 97), "setns": (308, 268),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "finit_module": (313, 273),
    "kexec_file_load": (320, 294), "bpf": (321, 280), "userfaultfd": (323, 282),
}  # fmt: skip
_COMMON = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_getfd": 438, "mount_setattr": 442, "quotactl_fd": 443,
}  # fmt: skip
# uname's machine: the kernel's AUDIT_ARCH, the column of _LEGACY, the numbers of socket and clone.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0, 41, 56), "aarch64": (0xC00000B7, 1, 198, 220)}
_CLONE3 = 435
_NEW_USER = 0x10000000  # CLONE_NEWUSER of sched.h
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_X32_BIT = 0x40000000  # x86-64 has each call a second time, with this bit

# Operation codes of classic BPF.
_LOAD, _EQUAL, _AT_LEAST, _HAS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENT_OFFSET = 0, 4, 16  # in struct seccomp_data
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
_MISSING = 0x00050000 | errno.ENOSYS


def refused_calls(machine: str) -> dict[str, int]:
    """Name and number of every refused call. KeyError for an architecture without a table."""
    column = _ARCHITECTURES[machine][1]
    return {name: numbers[column] for name, numbers in _LEGACY.items()} | _COMMON


def supported() -> bool:
    return platform.machine() in _ARCHITECTURES


def program() -> bytes:
    """The filter for this machine, an array of struct sock_filter."""
    architecture, _, socket, clone = _ARCHITECTURES[platform.machine()]
    numbers = sorted(refused_calls(platform.machine()).values())
    # Each comparison jumps over the rest of them, and over `others` up to its first refusal.
    count = len(_FAMILIES)
    others = [
        _instruction(_EQUAL, socket, when_true=3),
        _instruction(_EQUAL, clone, when_true=count + 5),
        _instruction(_EQUAL, _CLONE3, when_true=count + 8),
        _instruction(_RETURN, _ALLOW),
        _instruction(_LOAD, _ARGUMENT_OFFSET),  # socket's family
        *(_instruction(_EQUAL, f, when_true=count - i) for i, f in enumerate(_FAMILIES)),
        _instruction(_RETURN, _REFUSE),
        _instruction(_RETURN, _ALLOW),
        _instruction(_LOAD, _ARGUMENT_OFFSET),  # clone's flags
        _instruction(_HAS, _NEW_USER, when_true=1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _REFUSE),
        _instruction(_RETURN, _MISSING),
    ]
    to_refusal = len(numbers) + count + 5
    code = [
        _instruction(_LOAD, _ARCHITECTURE_OFFSET),
        _instruction(_EQUAL, architecture, when_true=1),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER_OFFSET),
        _instruction(_AT_LEAST, _X32_BIT, when_true=to_refusal),
        *(_instruction(_EQUAL, n, when_true=to_refusal - 1 - i) for i, n in enumerate(numbers)),
        *others,
    ]
    return b"".join(code)


def open_program() -> int:
    """A descriptor from which bwrap reads the filter; empty where there is no table."""
    descriptor = os.memfd_create("seccomp")
    if supported():
        os.write(descriptor, program())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _instruction(operation: int, value: int, when_true: int = 0) -> bytes:
    """`when_true` is how many instructions a comparison that holds jumps over."""
    return struct.pack("=HBBI", operation, when_true, 0, value)
