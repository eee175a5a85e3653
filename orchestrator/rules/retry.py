"""What becomes of a run whose attempt was lost to the infrastructure. Pure."""

from typing import Literal

from orchestrator.domain import MAX_INFRASTRUCTURE_LOSSES, Run

Fate = Literal["requeue", "cancelled", "infra_lost"]


def after_loss(run: Run) -> Fate:
    """A lost attempt is no result: the run goes back to the queue, twice at most."""
    if run.cancel_requested:
        return "cancelled"
    return "infra_lost" if run.losses >= MAX_INFRASTRUCTURE_LOSSES else "requeue"
