"""Gathers what a brief is made of: the tag's state in one step, and a page of each list."""

from orchestrator import schemas
from orchestrator.domain import FINISHED, Status
from orchestrator.rules.brief import Situation, brief
from orchestrator.rules.deadends import RECENT_FAILURES, causes, dead_ends
from orchestrator.rules.suggest import advise
from orchestrator.services.core.pool import Pool
from orchestrator.store.connection import Store

ROWS = 8  # of each list; rules/brief.py shows fewer if they do not fit
TREND_LENGTH = 5


class Briefs:
    def __init__(self, store: Store, pool: Pool) -> None:
        self._store = store
        self._pool = pool

    async def brief(self, tag_name: str) -> schemas.BriefAnswer:
        """The state of the search and how to go on, in less than 8 KB. Raises `NotFound`."""
        situation = await self._situation(tag_name)
        tag, counts = situation.snapshot.tag, situation.snapshot.counts
        return schemas.BriefAnswer(
            tag=tag.name,
            best_experiment_id=tag.best_experiment_id,
            best_val_bpb=tag.best_val_bpb,
            running=counts.running,
            queued=counts.queued,
            paused=tag.pause is not None,
            text=brief(situation),
        )

    async def _situation(self, name: str) -> Situation:
        reads = self._store.reads
        summary = await reads.summary(name, ROWS, failures=RECENT_FAILURES)
        snapshot = summary.snapshot
        failed = await reads.entries(name, summary.failures)
        recent = (await reads.history(name, None, 3 * ROWS, None)).entries
        running = (await reads.history(name, Status.RUNNING, ROWS, None)).entries
        near, _ = await reads.near_misses(name, ROWS)
        keeps = await reads.entries(name, [keep.experiment_id for keep in summary.keeps[::-1]])
        best_id = snapshot.tag.best_experiment_id
        best = await reads.entries(name, [best_id] if best_id else [])
        trend = [keep.val_bpb for keep in summary.keeps[-TREND_LENGTH:]]
        return Situation(
            snapshot=snapshot,
            best=best[0] if best else None,
            keeps=keeps,
            near_misses=[(*entry, distance) for entry, distance in near],
            dead_ends=dead_ends(summary.categories, causes(entry.run for entry in failed)),
            recent=[entry for entry in reversed(recent) if entry.run.status in FINISHED],
            running=running,
            queued=await reads.next_in_queue(name, ROWS),
            notes=summary.notes,
            advice=advise(snapshot, summary.categories, trend).suggestions,
            gpus=summary.gpus,
            blocked=await self._pool.blocked(snapshot.tag) if snapshot.counts.queued else None,
        )
