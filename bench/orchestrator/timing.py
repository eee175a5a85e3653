"""Times blocks of prepared requests: the median latency, and the server's CPU a request."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.harness.servers import Process
from bench.harness.wire import Connection

# What a server still does after its answer is out belongs to the request: wait it out.
SETTLE_SECONDS = 0.003


@dataclass
class Block:
    """Latencies of requests, and the CPU that the server spent on all of them."""

    seconds: list[float]
    cpu_seconds: float
    answers: list[bytes]

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.seconds) * 1e3

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / len(self.seconds) * 1e6

    def __iadd__(self, other: "Block") -> "Block":
        self.seconds += other.seconds
        self.cpu_seconds += other.cpu_seconds
        self.answers += other.answers
        return self


def empty() -> Block:
    return Block([], 0.0, [])


def timed(server: Process, connection: Connection, requests: Sequence[bytes]) -> Block:
    """Send the requests one after the other."""
    block, clock, send = empty(), time.perf_counter, connection.send
    time.sleep(SETTLE_SECONDS)
    before = server.cpu_seconds()
    for request in requests:
        start = clock()
        answer = send(request)
        block.seconds.append(clock() - start)
        block.answers.append(answer)
    time.sleep(SETTLE_SECONDS)
    block.cpu_seconds = server.cpu_seconds() - before
    return block
