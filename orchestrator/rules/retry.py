"""What becomes of a run whose attempt ended without a result. Pure."""

from typing import Literal

from orchestrator.domain import MAX_INFRASTRUCTURE_LOSSES, Run

Fate = Literal["requeue", "cancelled", "infra_lost"]


# How an attempt ended: lost to the infrastructure, given back by a worker that goes away, or by one
# that was told to stop it.
Ending = Literal["lost", "handed_back", "stopped"]


def fate(run: Run, ending: Ending) -> Fate:
    """A lost attempt is no result: the run goes back to the queue, twice at most. What a person has
    asked for goes before that."""
    if run.stop is not None:
        return "cancelled" if run.stop == "cancel" else "requeue"
    if ending == "stopped":
        return "cancelled"
    lost = ending == "lost" and run.losses >= MAX_INFRASTRUCTURE_LOSSES
    return "infra_lost" if lost else "requeue"
