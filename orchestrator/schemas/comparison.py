"""What stands around an experiment, for a page that shows why its verdict is what it is."""

from orchestrator.schemas.base import Answer, PublicStatus


class Related(Answer):
    """Another experiment, as much as a line about it needs. A hand-run has no source here."""

    id: str
    status: PublicStatus
    val_bpb: float | None
    hypothesis: str
    category: str
    source_sha256: str | None
    finished_at: str | None


class Noise(Answer):
    """The spread of val_bpb between `runs` repeats of `sources` equal sources: `sd` of one run, and
    the `band` within which 19 of 20 differences of two runs of one source lie."""

    sd: float
    band: float
    runs: int
    sources: int


class ExperimentComparison(Answer):
    """Neighbours stand in order of verdict; `best_then` is the best when the run was decided, or
    now where it is not decided; `noise` is None where no source near this one ran twice."""

    id: str
    near_miss_threshold: float
    noise: Noise | None
    parent: Related | None = None
    best_then: Related | None = None
    best_now: Related | None = None
    previous: Related | None = None
    next: Related | None = None
    previous_keep: Related | None = None
    next_keep: Related | None = None
