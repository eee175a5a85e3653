"""The invariants by name, and the list of what was found against them.

A name is what docs/chaos.md and the table of seeded bugs cite.
"""

from collections import Counter
from dataclasses import dataclass, field

INVARIANTS = {
    "lost": "every acknowledged submission is decided",
    "decided-twice": "each experiment is decided once",
    "verdict-changed": "a verdict never changes once it was told",
    "created-twice": "a request sent twice creates one experiment",
    "fencing": "only the current attempt's result is taken",
    "two-leases": "a run has one lease at a time, a GPU one lease or hold",
    "gpu-overlap": "by the workers' journals no GPU had two runs at once",
    "gpu-lock": "a second worker of a GPU does not start",
    "orphan": "no process outlives its run, or the system",
    "stuck": "in the end nothing is queued, leased, running or held, and the pool is idle",
    "needless-loss": "no attempt is lost unless a fault hit its worker",
    "keep-order": "each keep is strictly better than the best before it, by order of decision",
    "right-verdict": "each verdict, delta and near miss follows from the best before it",
    "best": "the best of a tag is the least of its keeps",
    "counters": "counters and indexes equal a recount from the records",
    "time-order": "finished_at grows strictly in order of decision",
    "race": "no source has one seed twice, repeats keep to their share, no candidate is left over",
    "journal": "the product's own audit recomputes the tag from its journal without a difference",
    "answers": "no request gets a 500, or another answer than its duplicate",
    "alive": "no process ends that was not told to",
}


@dataclass(frozen=True)
class Violation:
    """One finding: which invariant, and what was seen."""

    invariant: str
    what: str


@dataclass
class Findings:
    """All that was found, in order."""

    found: list[Violation] = field(default_factory=list)

    def add(self, invariant: str, what: str) -> None:
        assert invariant in INVARIANTS, invariant
        violation = Violation(invariant, what)
        if violation not in self.found:
            self.found.append(violation)

    @property
    def by_invariant(self) -> dict[str, int]:
        counts = Counter(violation.invariant for violation in self.found)
        return {invariant: counts[invariant] for invariant in INVARIANTS}

    @property
    def first(self) -> Violation | None:
        return self.found[0] if self.found else None
