"""What a daemon under libfaketime needs, loaded at its start through PYTHONPATH.

The library breaks sleeps until a moment of the monotonic clock (EINVAL), and Python sleeps so: here
they take another way, and the daemon's children, which sleep like that too, keep the real clock.
"""

import os
import select
import time

os.environ.pop("LD_PRELOAD", None)
time.sleep = lambda seconds: select.select((), (), (), seconds) and None  # type: ignore[assignment]
