"""Uses up the memory of the host, or 800 MiB of it."""

import time

TARGETS: dict[str, str] = {}

held = [b"x" * (50 << 20) for _ in range(16)]
time.sleep(1)
print("eaten", flush=True)
