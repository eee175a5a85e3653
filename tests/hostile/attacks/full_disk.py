"""Fills the disk of all runs."""

import os
import shutil
import time

TARGETS: dict[str, str] = {}

GIB = 1 << 30
wanted = min(22 * GIB, int(0.6 * shutil.disk_usage(".").free))
for number in range(2):
    with open(f"big{number}", "wb") as file:  # noqa: PTH123
        os.posix_fallocate(file.fileno(), 0, wanted // 2)
time.sleep(3)
print("filled", flush=True)
