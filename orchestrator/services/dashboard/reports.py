"""Reports on a tag: the summary, the results table, the difference of two runs."""

import json
from collections.abc import AsyncIterator

from orchestrator import schemas
from orchestrator.decisions import Snapshot
from orchestrator.domain import FINISHED, Status, branch_of, rfc3339
from orchestrator.rules import early_stop, report
from orchestrator.services import views
from orchestrator.services.core.pool import Pool
from orchestrator.settings import Settings
from orchestrator.store.connection import Store

PROGRESSION_LENGTH = 1000
# A run by hand counts as abandoned this long after its budget and grace have passed.
ABANDONED_AFTER_SECONDS = 3600


class Reports:
    def __init__(self, store: Store, pool: Pool, settings: Settings) -> None:
        self._store = store
        self._pool = pool
        self._settings = settings

    async def summary(self, tag_name: str) -> schemas.SummaryAnswer:
        summary = await self._store.reads.summary(
            tag_name, PROGRESSION_LENGTH, self._settings.grace_seconds + ABANDONED_AFTER_SECONDS
        )
        snapshot, tag = summary.snapshot, summary.snapshot.tag
        total, idle, training = summary.gpus
        best = None
        if tag.best_experiment_id is not None and tag.best_val_bpb is not None:
            best = schemas.SummaryBest(
                val_bpb=tag.best_val_bpb,
                commit=tag.best_commit_sha or "",
                experiment_id=tag.best_experiment_id,
            )
        return schemas.SummaryAnswer(
            tag=tag_name,
            branch=branch_of(tag_name),
            best=best,
            stats=_stats(snapshot, summary.abandoned),
            categories={name: count.total for name, count in summary.categories.items()},
            bpb_progression=[views.progression(keep) for keep in summary.keeps],
            total_training_minutes=round(tag.training_seconds / 60, 1),
            strategy=snapshot.strategy.mode,
            gpu_pool=schemas.PoolCounts(total=total, idle=idle, training=training),
            early_stop=early_stop.report(snapshot),
            paused=tag.pause is not None,
            pause=views.operator_hold(tag.pause),
            blocked=await self._pool.blocked(tag) if snapshot.counts.queued else None,
        )

    async def tsv(self, tag: str) -> schemas.TsvAnswer:
        """results.tsv: the finished runs in order of creation."""
        rows = [
            report.tsv_row(entry.experiment, entry.run)
            async for entry in self._store.reads.everything(tag)
            if entry.run.status in FINISHED
        ]
        return schemas.TsvAnswer(tsv="\n".join([report.TSV_HEADER, *rows]), count=len(rows))

    async def export(self, request: schemas.ExportRequest) -> schemas.ExportPage:
        status = Status(request.status) if request.status else None
        page = await self._store.reads.page(request.tag, status, request.limit, request.after)
        return schemas.ExportPage(
            rows=[views.export_row(entry) for entry in page.entries],
            total=page.total,
            next_after=page.next_cursor,
        )

    async def journal(self, tag: str) -> AsyncIterator[str]:
        """The journal as JSON lines, oldest entry first. Raises `NotFound` before the first."""
        await self._store.reads.tag(tag)
        return self._journal_lines(tag)

    async def _journal_lines(self, tag: str) -> AsyncIterator[str]:
        async for entry in self._store.journal.entries(tag):
            line = {
                "id": entry.id,
                "kind": entry.kind,
                "experiment_id": entry.experiment_id or None,
                "at": rfc3339(entry.at_us),
                **entry.data,
            }
            yield json.dumps(line, separators=(",", ":")) + "\n"

    async def diff(self, request: schemas.DiffRequest) -> schemas.DiffAnswer:
        """b - a; a metric that one side does not have counts as 0, as upstream does it."""
        a = views.record(await self._store.reads.entry(request.experiment_a))
        b = views.record(await self._store.reads.entry(request.experiment_b))
        return schemas.DiffAnswer(
            a=schemas.DiffSide(**vars(a)),
            b=schemas.DiffSide(**vars(b)),
            delta_bpb=b.val_bpb - a.val_bpb,
            delta_params_m=b.num_params_m - a.num_params_m,
            delta_vram_mb=b.peak_vram_mb - a.peak_vram_mb,
        )


def _stats(snapshot: Snapshot, abandoned: int) -> schemas.SummaryStats:
    counts = snapshot.counts
    return schemas.SummaryStats(
        total=counts.finished,
        kept=counts.keep,
        discarded=counts.discard,
        crashed=counts.crash + counts.timeout,
        running=counts.running,
        keep_rate=counts.keep / counts.judged if counts.judged else 0.0,
        queued=counts.queued,
        timed_out=counts.timeout,
        cancelled=counts.cancelled,
        infra_lost=counts.infra_lost,
        candidates=counts.candidate,
        repeats=counts.repeat,
        abandoned=abandoned,
    )
