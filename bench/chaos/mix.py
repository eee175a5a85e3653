"""Which faults there are, and the share of each in a mix."""

from collections.abc import Awaitable, Callable, Mapping
from random import Random

from bench.chaos import faults, replays
from bench.chaos.stage import Stage

Fault = Callable[[Stage, Random], Awaitable[None]]
Mix = Mapping[Fault, float]

FULL: Mix = {
    faults.worker_dies_and_returns: 8,
    faults.worker_dies_for_long: 4,
    faults.worker_stands_still: 6,
    faults.worker_stutters: 4,
    faults.worker_is_drained: 3,
    faults.worker_gets_a_twin: 1,
    faults.supervisor_dies: 6,
    faults.supervisor_and_guard_die: 4,
    faults.worker_and_supervisor_die: 4,
    faults.orchestrator_dies: 6,
    faults.orchestrator_stands_still: 4,
    faults.redis_dies: 4,
    faults.redis_dies_for_long: 1,
    faults.redis_stands_still: 5,
    faults.link_is_cut: 8,
    faults.link_refuses: 4,
    faults.link_pauses: 4,
    faults.answers_vanish: 6,
    faults.requests_vanish: 4,
    replays.reports_come_again: 8,
    replays.stale_epoch_reports: 8,
    replays.traffic_is_replayed: 6,
    replays.submission_comes_twice: 5,
    replays.run_is_cancelled: 5,
    replays.hand_run: 6,
    replays.stampede: 4,
}


def named(fault: Fault) -> str:
    """The fault's name in tables."""
    return fault.__name__.replace("_", " ")
