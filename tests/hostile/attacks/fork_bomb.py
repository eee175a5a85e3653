"""Starts processes until the host can start no more, or 3,000."""

import os
import time

TARGETS: dict[str, str] = {}

started = 0
for _ in range(3000):
    try:
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
    except BlockingIOError:
        break
    started += 1
time.sleep(3)
print("started", started, flush=True)
if started >= 3000:
    print("bombed", flush=True)
os._exit(0)
