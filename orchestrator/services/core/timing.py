"""The heartbeat budget: a large pool sends each GPU's heartbeat less often.

All that depends on the interval is stretched with it: the lease, and the silence after which a GPU
reads offline. A worker learns both when no run of its GPU depends on them: with the answer to a
heartbeat between runs, and for one run with its claim.
"""

from orchestrator.domain import Timing
from orchestrator.settings import Settings


class PoolTiming:
    """`base` is the timing as set, `now` that of the pool as the reaper has counted it last. Each
    process counts for itself; a lease is judged by what its claim said."""

    def __init__(self, settings: Settings) -> None:
        self.base = Timing(
            settings.heartbeat_seconds, settings.lease_seconds, settings.offline_seconds
        )
        self.now = self.base
        self._most_per_second = settings.max_heartbeats_per_second

    def count(self, alive: int) -> None:
        """Take the number of GPUs that are alive."""
        per_second = alive / self.base.heartbeat_seconds
        self.now = self.base.stretched(max(1.0, per_second / self._most_per_second))
