"""Times prepared requests to several servers in turn: median latency, and CPU a request.

The servers take turns request by request, so that other load on the machine affects all of them
alike. Each has a CPU clock of its own.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.harness.servers import Process
from bench.harness.wire import Connection

# Work that a server does after its answer belongs to the request too.
SETTLE_SECONDS = 0.003


@dataclass
class Block:
    """Latencies of requests, and the CPU that the server spent on all of them."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    answers: list[bytes] = field(default_factory=list)

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


@dataclass(frozen=True)
class Lane:
    """A server, a connection to it, and what to send."""

    server: Process
    connection: Connection
    requests: Sequence[bytes]


def timed(*lanes: Lane) -> list[Block]:
    """Send the lanes' requests in turn; a block for each lane. All lanes are equally long."""
    clock = time.perf_counter
    blocks = [Block() for _ in lanes]
    before = [lane.server.cpu_seconds() for lane in lanes]
    for requests in zip(*(lane.requests for lane in lanes), strict=True):
        for lane, block, request in zip(lanes, blocks, requests, strict=True):
            start = clock()
            answer = lane.connection.send(request)
            block.seconds.append(clock() - start)
            block.answers.append(answer)
    time.sleep(SETTLE_SECONDS)
    for lane, block, cpu in zip(lanes, blocks, before, strict=True):
        block.cpu_seconds = lane.server.cpu_seconds() - cpu
    return blocks
