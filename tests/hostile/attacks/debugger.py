"""Takes control of the process above it as a debugger would."""

import ctypes
import os

TARGETS: dict[str, str] = {}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
attach, detach = 0x4206, 17  # PTRACE_SEIZE, which does not stop it
if libc.ptrace(attach, os.getppid(), None, None) == 0:
    print("attached")
    libc.ptrace(detach, os.getppid(), None, None)
else:
    print("refused:", os.strerror(ctypes.get_errno()))
