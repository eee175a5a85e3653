"""The search strategy and what to try next."""

from orchestrator import schemas
from orchestrator.errors import Unavailable
from orchestrator.rules.deadends import RECENT_FAILURES, causes, dead_ends
from orchestrator.rules.strategy import adapt, explore_ratio_of
from orchestrator.rules.suggest import advise
from orchestrator.services import views
from orchestrator.services.agents.similar import SimilarIdeas
from orchestrator.services.core.steering import operator_action
from orchestrator.store.connection import Store

TREND_LENGTH = 5
MAX_TRIES = 50


class Search:
    def __init__(self, store: Store, similar: SimilarIdeas) -> None:
        self._store = store
        self._similar = similar

    async def strategy(self, tag: str) -> schemas.Strategy:
        return views.strategy((await self._store.experiments.snapshot(tag)).strategy)

    async def set_strategy(self, request: schemas.SetStrategyRequest) -> schemas.Strategy:
        """An operator action; it stays in force until it is released with `pinned: false`."""
        ratio = request.explore_ratio
        stored = await self._store.experiments.choose_strategy(
            request.tag,
            operator_action("set-strategy", request.by, request.reason),
            mode=request.mode,
            explore_ratio=explore_ratio_of(request.mode) if ratio is None else ratio,
            temperature=request.temperature,
            pinned=request.pinned,
        )
        return views.strategy(stored)

    async def adapt(self, tag: str) -> schemas.Strategy:
        """Apply the rules now; a pinned strategy is not changed."""
        for _ in range(MAX_TRIES):
            snapshot = await self._store.experiments.snapshot(tag)
            adapted = adapt(snapshot)
            if adapted is None:
                return views.strategy(snapshot.strategy)
            stored = await self._store.experiments.adapt_strategy(snapshot, adapted)
            if stored is not None:
                return views.strategy(stored)
        raise Unavailable(f"Too many decisions at once in tag {tag!r}; try again.")

    async def suggest(self, request: schemas.SuggestRequest) -> schemas.Suggestion:
        """What to try next, what not to, and what was tried near the idea, if one is given."""
        summary = await self._store.reads.summary(
            request.tag, TREND_LENGTH, failures=RECENT_FAILURES
        )
        failed = await self._store.reads.entries(request.tag, summary.failures)
        snapshot, categories = summary.snapshot, summary.categories
        trend = [keep.val_bpb for keep in summary.keeps]
        advice = advise(snapshot, categories, trend)
        return schemas.Suggestion(
            strategy=snapshot.strategy.mode,
            total_experiments=sum(count.total for count in categories.values()),
            category_stats={
                name: schemas.CategoryStats(**vars(count)) for name, count in categories.items()
            },
            underexplored_categories=advice.underexplored,
            high_yield_categories=advice.high_yield,
            near_misses_available=snapshot.near_misses,
            near_miss_categories=advice.near_miss_categories,
            recent_bpb_trend=trend,
            suggestions=advice.suggestions,
            dead_ends=dead_ends(categories, causes(entry.run for entry in failed)),
            near=await self._near(request),
            notes=[views.note(note) for note in summary.notes],
            paused=snapshot.tag.pause is not None,
        )

    async def _near(self, request: schemas.SuggestRequest) -> list[schemas.Near]:
        if request.idea is None:
            return []
        asked = schemas.SimilarRequest(tag=request.tag, idea=request.idea)
        return (await self._similar.similar(asked)).near
