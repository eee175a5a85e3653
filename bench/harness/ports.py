"""Ports for servers that tests and benchmarks kill and start again.

They lie below the ports that the system gives out by itself, and each process that runs tests has a
range of its own (pytest-xdist numbers them; two runs of the suite differ by their pids), because no
other server may get a port while its server is down.
"""

import contextlib
import itertools
import os
import socket

_FIRST, _EACH, _BLOCKS = 20_000, 3_000, 4  # up to 32 000; Linux gives out 32 768 and above
_block = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _BLOCKS
_ports = itertools.count(_FIRST + _EACH * _block + os.getpid() % (_EACH - 500))


def free_port() -> int:
    """A port that this process has not given out before and on which no process listens."""
    for port in _ports:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("the count has no end")
