"""Uses up the inodes of all runs."""

import os
import time

TARGETS: dict[str, str] = {}

for folder in range(52):
    os.mkdir(f"d{folder}")  # noqa: PTH102
    for number in range(1000):
        os.close(os.open(f"d{folder}/{number}", os.O_CREAT))
time.sleep(3)
print("filled", flush=True)
