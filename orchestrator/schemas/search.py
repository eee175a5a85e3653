"""Strategy and suggestions."""

from typing import Annotated

from pydantic import Field

from orchestrator.schemas.base import Answer, Mode, Request, RequiredText, TagName
from orchestrator.schemas.steering import Actor, Note


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
    reason: RequiredText
    explore_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    pinned: bool = True
    by: Actor = "human"


class CategoryStats(Answer):
    total: int
    kept: int


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
    # What people say to the agents of this tag, newest first.
    notes: list[Note] = Field(default_factory=list)
    paused: bool = False
