"""Gathers what a digest is made of: records, curves, and the end of the log."""

import logging
from collections.abc import Sequence

import anyio

from orchestrator import schemas
from orchestrator.domain import Run, State
from orchestrator.errors import AutoresearchError, NotFound
from orchestrator.files import Files
from orchestrator.rules.digest import TAIL_BYTES, Evidence, Point, digest
from orchestrator.store.connection import Store
from orchestrator.store.reads import Entry

logger = logging.getLogger(__name__)


class Digests:
    def __init__(self, store: Store, files: Files) -> None:
        self._store = store
        self._files = files

    async def digest(self, experiment_id: str) -> schemas.Digest:
        """The digest of a run, finished or not. Raises `NotFound`."""
        entry = await self._store.reads.entry(experiment_id)
        tag, parent_id = entry.experiment.tag, entry.experiment.parent_id
        best_id = (await self._store.reads.tag(tag)).best_experiment_id
        others = [other for other in (parent_id, best_id) if other is not None]
        runs = {e.experiment.id: e.run for e in await self._store.reads.entries(tag, others)}
        curve, parent_curve, tail = await anyio.to_thread.run_sync(self._files_of, entry)
        return digest(
            Evidence(
                experiment=entry.experiment,
                run=entry.run,
                parent=runs.get(parent_id or ""),
                best=runs.get(best_id or ""),
                curve=curve,
                parent_curve=parent_curve,
                tail=tail,
                vram_mb=await self._vram_mb(entry.run),
            )
        )

    async def attached(self, verdict: schemas.AnyVerdict) -> schemas.AnyVerdict:
        """The verdict with its digest, or without one if that fails: the verdict must not."""
        try:
            made = await self.digest(verdict.experiment_id)
        except AutoresearchError as error:
            logger.warning("%s has no digest: %s", verdict.experiment_id, error)
            return verdict
        return verdict.model_copy(update={"digest": made})

    def _files_of(self, entry: Entry) -> tuple[Sequence[Point], Sequence[Point], bytes]:
        experiment, run = entry.experiment, entry.run
        parent = experiment.parent_id
        return (
            self._curve(experiment.tag, experiment.id),
            self._curve(experiment.tag, parent) if parent else (),
            self._tail(experiment.tag, run),
        )

    def _curve(self, tag: str, experiment_id: str) -> list[Point]:
        points = self._files.curve(tag, experiment_id)
        return [(point["percent"], point["loss"]) for point in points]

    def _tail(self, tag: str, run: Run) -> bytes:
        if run.epoch == 0:
            return b""
        try:
            log = self._files.read_log(tag, run.experiment_id, run.epoch, -TAIL_BYTES, TAIL_BYTES)
        except NotFound:
            return b""  # it printed nothing
        return log.data

    async def _vram_mb(self, run: Run) -> float | None:
        """The memory of the run's GPU, if the pool still knows that GPU."""
        if run.gpu_id is None or run.state is State.QUEUED:
            return None
        try:
            view = await self._store.pool.get(run.gpu_id)
        except NotFound:
            return None
        return view.gpus[0].vram_mb or None
