"""What pages are drawn from: the overview, the history of a tag, a run among its neighbours."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from orchestrator.schemas.base import (
    Answer,
    Integer,
    Mode,
    PublicStatus,
    Request,
    TagRequest,
)
from orchestrator.schemas.pool import Health, Worker
from orchestrator.schemas.steering import OperatorHold
from orchestrator.schemas.verdicts import OnlyInRace


class OverviewRequest(Request):
    """`since`: the moment to report from, by default a day ago."""

    since: Annotated[AwareDatetime | None, Field(json_schema_extra={"format": "date-time"})] = None


class Alert(Answer):
    """`subject` is a GPU's id, a tag's name, or empty for the service itself."""

    kind: Literal[
        "gpu_offline", "gpu_quarantined", "gpu_unfit", "gpu_drift", "crash_streak", "no_keep",
        "queue_stuck", "disk_low", "store",
    ]  # fmt: skip
    severity: Literal["error", "warning"]
    subject: str
    text: str


class TagCounts(Answer):
    """All runs of a tag by status; `crash` includes time-outs."""

    queued: int
    running: int
    finished: int
    keep: int
    discard: int
    crash: int


class SinceCounts(Answer):
    """Runs decided since the given moment. `gain` is best now - best then; `whole` is always
    true."""

    finished: int
    keep: int
    crash: int
    crash_rate: float
    gain: float | None
    whole: bool = True


class LastKeep(Answer):
    """`runs_ago` counts the runs finished after it; `whole` is always true."""

    experiment_id: str
    val_bpb: float
    description: str
    at: str
    runs_ago: int
    whole: bool = True


class SparkPoint(Answer):
    at: str
    val_bpb: float


class TagOverview(Answer):
    """One tag. `gain` is best - baseline (below zero is better), `per_gpu_hour` the rate of its
    newest hundred runs, `spark` its best so far by time, thinned."""

    name: str
    created_at: str
    state: Literal["running", "queued", "paused", "idle"]
    pause: OperatorHold | None
    mode: Mode
    mode_reason: str
    pinned: bool
    best_val_bpb: float | None
    best_is_estimate: bool  # from all its runs, as under the keep rule `race`
    best_experiment_id: str | None
    baseline_val_bpb: float | None
    gain: float | None
    near_misses: int
    counts: TagCounts
    since: SinceCounts
    last_keep: LastKeep | None
    last_finished_at: str | None
    per_gpu_hour: float | None
    training_hours: float
    spark: list[SparkPoint]


class CurrentRun(Answer):
    """What a GPU trains now; `percent` and `loss` are the last point of its curve."""

    experiment_id: str
    tag: str
    hypothesis: str
    category: str
    status: PublicStatus
    started_at: str | None
    percent: float | None
    loss: float | None
    time_budget_seconds: float


class GpuOverview(Worker):
    heartbeat_age_seconds: float
    health: Health
    health_age_seconds: float | None
    run: CurrentRun | None


class OverviewAnswer(Answer):
    """`idle_gpu_hours` is how long GPUs of the pool were online without training since `since`."""

    now: str
    since: str
    idle_gpu_hours: float
    alerts: list[Alert]
    tags: list[TagOverview]
    gpus: list[GpuOverview]


RunSort = Literal["newest", "oldest", "best", "worst"]
RUNS_PAGE = 50

ShortText = Annotated[str, StringConstraints(max_length=200)]
StatusWords = Annotated[
    str,
    StringConstraints(pattern=r"^(queued|running|candidate|keep|near|discard|crash|timeout|,)*$"),
]


class SeriesRequest(TagRequest):
    """`since` is the `cursor` of the previous answer; without it, the answer holds everything."""

    since: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,16}(\.\d{1,12}){3}$")] | None = (
        None
    )


class SeriesBlock(Answer):
    """Rows in order of verdict. `created_us` and `finished_ms` hold the first moment, then the
    difference to the row before; a run's id is `exp-`, its creation in 14 hexadecimal digits, `-`
    and the tag. `val_bpb` is in millionths, null without a result. `status` has one letter per row:
    k keep, n near miss (a discard), d discard, c crash, t timeout, l lost to infrastructure (a
    crash). `category` indexes `categories`."""

    created_us: list[int]
    finished_ms: list[int]
    val_bpb: list[int | None]
    status: str
    category: list[int]


class SeriesChoice(Answer):
    """The mode in force for the runs after the first `after`."""

    after: int
    mode: Mode
    reason: str
    pinned: bool
    at: str


class SeriesKeep(Answer):
    """A keep; `n` is its number, from 1 on. `estimate` is what the keep rule `race` believed of it
    when it was kept."""

    n: int
    description: str
    estimate: OnlyInRace[float] = None


class SeriesRace(Answer):
    """What the keep rule `race` believes now: its champion's val_bpb, the `band` within which 19 of
    20 differences between two seeds of one source lie, and the provisional keeps by number."""

    best_id: str
    best_val_bpb: float
    band: float
    provisional: list[int]


class SeriesAnswer(Answer):
    """`first` is the number of rows that the client has already; 0 means: start over."""

    tag: str
    cursor: str
    first: int
    total: int
    categories: list[str]
    near_miss_threshold: float
    keep_rule: str
    early_stop: str | None
    strategy: dict[str, str | bool]
    blocks: list[SeriesBlock]
    choices: list[SeriesChoice]
    keeps: list[SeriesKeep]
    race: SeriesRace | None


class RunsRequest(TagRequest):
    """A page of runs. `status` is a list with commas; `q` searches in hypothesis and description;
    `since` is the earliest moment of decision; `ids` asks for runs by id instead."""

    status: StatusWords = ""
    cat: ShortText = ""
    q: ShortText = ""
    sort: RunSort = "newest"
    since: Annotated[str, StringConstraints(max_length=40)] = ""
    cursor: Annotated[Integer, Field(ge=0, lt=2**53)] | None = None
    ids: Annotated[str, StringConstraints(max_length=6_000)] = ""
    limit: Annotated[Integer, Field(ge=1, le=RUNS_PAGE)] = RUNS_PAGE


class RunRow(Answer):
    """A row of the table; `n` is its number in order of verdict, null before the verdict. Under
    `race`, `delta` is how much better than the champion it reads, `confirmed` is of a keep, and
    `why` is the verdict's sentence. Long texts are cut. `predicted` is the val_bpb that was
    expected of a run that was stopped early."""

    n: int | None
    id: str
    status: PublicStatus
    reason: str | None
    near: bool
    val_bpb: float | None
    predicted: float | None
    best_before: float | None
    category: str
    description: str
    error: str | None
    parent_id: str | None
    gpu_id: str | None
    peak_vram_mb: float | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    seed: int
    repeat_of: str | None
    measured_at: str | None
    delta: float | None
    confirmed: bool | None
    why: str | None


class RunsAnswer(Answer):
    """`active` holds running runs, candidates and queued runs that pass the filters, the newest
    hundred at most, on the first page; `decided`, `running`, `queued` and `candidates` count all of
    the tag. `scanned` counts the runs read: a search reads a bounded number and goes on from
    `next_cursor`."""

    decided: int
    running: int
    queued: int
    candidates: int
    active: list[RunRow]
    rows: list[RunRow]
    next_cursor: int | None
    scanned: int


class Related(Answer):
    """Another experiment in one line. A hand-run has no source here."""

    seed: int

    id: str
    status: PublicStatus
    val_bpb: float | None
    hypothesis: str
    category: str
    source_sha256: str | None
    finished_at: str | None


class Noise(Answer):
    """The spread of val_bpb over `runs` repeated runs of `sources` sources: `sd` of one run, and
    the `band` within which 19 of 20 differences between two runs of one source lie."""

    sd: float
    band: float
    runs: int
    sources: int


class ExperimentComparison(Answer):
    """A run among its neighbours in order of verdict. `best_then` is the best when the run was
    decided, or now if it is not decided; `noise` is None if no source near this one ran twice.
    `repeats` are the runs of its source with other seeds that the keep rule `race` asked for."""

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
    repeats: list[Related] = Field([])
