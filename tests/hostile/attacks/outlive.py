"""Leaves a process behind: new session, two forks, no environment; then kills its watchers."""

import os
import signal
import sys
import time
from pathlib import Path

TARGETS: dict[str, str] = {}

CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 20)
        os.execve(sys.executable, [sys.executable, "-c", CHILD, TARGETS["word"]], {})  # noqa: S606
    os._exit(0)
os.wait()
watchers, pid = [], os.getpid()
for _ in range(3):  # guard, supervisor, worker
    pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    if pid > 1:
        watchers.append(pid)
    else:
        break
print("killing", watchers, flush=True)
time.sleep(0.3)
for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped, none can answer another's death
    for pid in watchers:
        os.kill(pid, number)
