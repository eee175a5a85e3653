"""A tag's history for pages: columns of all decided runs, and rows of a table."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from orchestrator.schemas.base import Answer, Mode, PublicStatus, Request, TagName

RunSort = Literal["newest", "oldest", "best", "worst"]
RUNS_PAGE = 50

ShortText = Annotated[str, StringConstraints(max_length=200)]
StatusWords = Annotated[
    str, StringConstraints(pattern=r"^(queued|running|keep|near|discard|crash|timeout|,)*$")
]


class SeriesRequest(Request):
    """`since` is the `cursor` of the answer before; without it, everything is told."""

    tag: TagName
    since: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,16}(\.\d{1,12}){3}$")] | None = (
        None
    )


class SeriesBlock(Answer):
    """Rows in the order of verdicts. `created_us` and `finished_ms` hold the first moment and then
    what each row adds to the one before; a run's id is `exp-`, its creation in 14 hexadecimal
    digits, `-` and the tag. `val_bpb` is in millionths, null without a result. `status` has a
    letter for each row: k keep, n near miss (a discard), d discard, c crash, t timeout, l lost to
    infrastructure (a crash). `category` indexes `categories`."""

    created_us: list[int]
    finished_ms: list[int]
    val_bpb: list[int | None]
    status: str
    category: list[int]


class SeriesChoice(Answer):
    """A mode in force for the runs after the first `after` of them."""

    after: int
    mode: Mode
    reason: str
    pinned: bool
    at: str


class SeriesKeep(Answer):
    """What a keep changed; `n` is its number, from 1 on."""

    n: int
    description: str


class SeriesAnswer(Answer):
    """`first` is the number of rows that the reader holds already; 0 says: begin anew."""

    tag: str
    cursor: str
    first: int
    total: int
    categories: list[str]
    near_miss_threshold: float
    strategy: dict[str, str | bool]
    blocks: list[SeriesBlock]
    choices: list[SeriesChoice]
    keeps: list[SeriesKeep]


class RunsRequest(Request):
    """A page of runs. `status` joins words with commas; `q` looks for text in the hypothesis and
    the description; `since` bounds the moment of decision; `ids` asks for runs by name instead."""

    tag: TagName
    status: StatusWords = ""
    cat: ShortText = ""
    q: ShortText = ""
    sort: RunSort = "newest"
    since: Annotated[str, StringConstraints(max_length=40)] = ""
    cursor: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    ids: Annotated[str, StringConstraints(max_length=6_000)] = ""
    limit: Annotated[int, Field(ge=1, le=RUNS_PAGE)] = RUNS_PAGE


class RunRow(Answer):
    """A run as the table shows it; `n` is its number in the order of verdicts, null before one.
    Long texts are cut."""

    n: int | None
    id: str
    status: PublicStatus
    reason: str | None
    near: bool
    val_bpb: float | None
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


class RunsAnswer(Answer):
    """`active` holds running and queued runs, the newest hundred at most, on a first page that the
    filters leave them on; `running` and `queued` count all of the tag. `scanned` counts the runs
    that were looked at: a search looks at a bounded number, and goes on from `next_cursor`."""

    running: int
    queued: int
    active: list[RunRow]
    rows: list[RunRow]
    next_cursor: int | None
    scanned: int
