"""Verdicts: what a decision says of a run."""

from typing import Annotated, Literal, TypeVar

from pydantic import Field

from orchestrator.schemas.agents import Digest
from orchestrator.schemas.base import Action, Answer

# Only in answers to a caller that waited for the verdict.
VerdictDigest = Annotated[Digest | None, Field(exclude_if=lambda digest: digest is None)]


T = TypeVar("T")
OnlyInRace = Annotated[T | None, Field(exclude_if=lambda value: value is None)]


class Verdict(Answer):
    """The decision on a completed run. `delta` is best before - this (0 for the first result).
    `verified`: the saved model measured the same in a process that train.py did not control.

    The fields from `sigma` on are there where the keep rule is `race`. There `delta` is the gap to
    what is believed of the champion, and `best_val_bpb` that belief; `sigma` is what the seed alone
    does to a run, and `probability` that the source is better, after `runs` runs. A keep is
    `confirmed` or `provisional`; a `candidate` waits for its next runs. Under `greedy+merge` only
    `why` is there, where a win waits for a merge or could not be merged."""

    experiment_id: str
    status: Literal["keep", "discard", "candidate", "repeat"]
    val_bpb: float
    improved: bool
    delta: float
    best_val_bpb: float
    action: Action
    verified: bool = False
    sigma: OnlyInRace[float] = None
    probability: OnlyInRace[float] = None
    runs: OnlyInRace[int] = None
    confirmed: OnlyInRace[bool] = None
    provisional: OnlyInRace[bool] = None
    why: OnlyInRace[str] = None
    digest: VerdictDigest = None


class StoppedVerdict(Answer):
    """The decision on a run that the tag's early stop ended: it has no val_bpb. What its training
    loss predicted is `predicted_val_bpb` ± `predicted_sd`; the run was expected to read better than
    `best_val_bpb`, the best of that moment, with `probability`."""

    experiment_id: str
    status: Literal["discard"]
    stopped_early: Literal[True]
    predicted_val_bpb: float
    predicted_sd: float
    probability: float
    improved: Literal[False]
    best_val_bpb: float
    action: Action
    why: str
    digest: VerdictDigest = None


class CrashVerdict(Answer):
    experiment_id: str
    status: Literal["crash", "timeout", "cancelled"]
    consecutive_crashes: int
    should_abort: bool
    action: Action
    reason: str | None = None
    digest: VerdictDigest = None


AnyVerdict = Verdict | StoppedVerdict | CrashVerdict
