"""Becomes root of a user namespace of its own, from where kernel bugs are in reach."""

import ctypes
import os
import platform
import signal

TARGETS: dict[str, str] = {}

NEW_USER = 0x10000000  # CLONE_NEWUSER

libc = ctypes.CDLL(None, use_errno=True)
clone = 56 if platform.machine() == "x86_64" else 220
child = libc.syscall(clone, NEW_USER | signal.SIGCHLD, 0, 0, 0, 0)
if child == 0:
    os._exit(0)
if child > 0 or libc.unshare(NEW_USER) == 0:
    print("unshared")
else:
    print("refused:", os.strerror(ctypes.get_errno()))
