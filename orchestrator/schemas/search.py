"""Strategy and suggestions."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from orchestrator.schemas.base import (
    Answer,
    ExperimentId,
    Mode,
    PublicStatus,
    Request,
    RequiredText,
    TagName,
)
from orchestrator.schemas.experiments import TagRequest
from orchestrator.schemas.steering import Actor, Note, plain_lines


class Strategy(Answer):
    mode: Mode
    explore_ratio: float
    temperature: float
    updated_at: str
    reason: str
    pinned: bool = False


class SetStrategyRequest(Request):
    tag: TagName
    mode: Mode
    reason: Annotated[RequiredText, AfterValidator(plain_lines)]
    explore_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    pinned: bool = True
    by: Actor = "human"


class CategoryStats(Answer):
    total: int
    kept: int


Idea = Annotated[str, StringConstraints(min_length=1, max_length=4000, strip_whitespace=True)]


class SuggestRequest(TagRequest):
    """`idea` asks what was already tried near it."""

    idea: Idea | None = None


class SimilarRequest(TagRequest):
    idea: Idea
    limit: Annotated[int, Field(ge=1, le=50)] = 8


class Tried(Answer):
    """An experiment in short. The texts are its agent's words, cleaned and cut."""

    experiment_id: ExperimentId
    status: PublicStatus
    category: str
    val_bpb: float | None
    behind_best: float | None
    hypothesis: str
    diff_summary: str


class Near(Tried):
    """`match` is the share of the idea's words that it has, 0 to 1. The order is bm25's, which
    counts rare words most, so it need not be the order of `match`."""

    match: float


class SimilarAnswer(Answer):
    """`searched` of the tag's `total` experiments were looked at; after a loss of the index it
    takes some calls until these are all."""

    near: list[Near]
    searched: int
    total: int


class DeadEnd(Answer):
    """Something that was tried `tried` times in vain; `untrusted_cause` is a failed run's word."""

    kind: Literal["category", "failure"]
    text: str
    tried: int
    category: str | None = None
    experiment_ids: list[str] = Field(default_factory=list)
    untrusted_cause: str | None = None


class Suggestion(Answer):
    strategy: Mode
    total_experiments: int
    category_stats: dict[str, CategoryStats]
    underexplored_categories: list[str]
    high_yield_categories: list[str]
    near_misses_available: int
    near_miss_categories: list[str]
    recent_bpb_trend: list[float]
    suggestions: list[str]
    dead_ends: list[DeadEnd]
    near: list[Near] = Field(default_factory=list)
    # What people say to the agents of this tag, newest first.
    notes: list[Note] = Field(default_factory=list)
    paused: bool = False
