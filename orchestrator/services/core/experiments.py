"""Tags and experiments: set up, register, submit, report by hand, look up, wait."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from orchestrator import callers, schemas
from orchestrator.decisions import RunResult
from orchestrator.domain import (
    Counts,
    Metrics,
    NewExperiment,
    Run,
    State,
    Status,
    Tag,
    branch_of,
    rfc3339,
)
from orchestrator.errors import Conflict, NotFound
from orchestrator.files import Files, Slice
from orchestrator.ids import tag_of
from orchestrator.rules.race.state import from_json
from orchestrator.rules.strategy import INITIAL
from orchestrator.services import views
from orchestrator.services.core.judge import Judge
from orchestrator.services.core.pool import Pool
from orchestrator.services.core.sources import Sources
from orchestrator.services.core.wakeups import LOOK_SECONDS, Wakeups
from orchestrator.store.connection import Store
from orchestrator.store.experiments import BY_HAND

# Adds to a verdict what it says about the run: the digest, which is another package's.
WithDigest = Callable[[schemas.AnyVerdict], Awaitable[schemas.AnyVerdict]]


class Experiments:
    def __init__(
        self,
        store: Store,
        files: Files,
        judge: Judge,
        wakeups: Wakeups,
        sources: Sources,
        pool: Pool,
        with_digest: WithDigest,
        prepare_py: Path | None,
    ) -> None:
        self._store = store
        self._files = files
        self._judge = judge
        self._wakeups = wakeups
        self._sources = sources
        self._pool = pool
        self._with_digest = with_digest
        self._prepare_py = prepare_py

    # -- writes

    async def setup(self, request: schemas.SetupRequest) -> schemas.SetupAnswer:
        if self._prepare_py is None:
            await self._refuse_new_tag(request.tag)
        early_stop = request.early_stop
        by_default = request.keep_rule == "race" and not request.mix_models
        tag = Tag(
            name=request.tag,
            created_us=0,
            prepare_sha256=await anyio.to_thread.run_sync(self._pin_prepare),
            early_stop=by_default if early_stop is None else early_stop,
            **request.model_dump(exclude={"tag", "early_stop"}),
        )
        try:
            stored = await self._store.experiments.setup(tag, INITIAL)
        except Conflict as conflict:
            snapshot = await self._store.experiments.snapshot(request.tag)
            existing = views.tag_info(snapshot.tag, snapshot.counts)
            raise Conflict(conflict.message, existing=existing) from conflict
        return schemas.SetupAnswer(
            tag=views.tag_info(stored, Counts()), branch=branch_of(stored.name)
        )

    async def _refuse_new_tag(self, name: str) -> None:
        """Without a pinned prepare.py nothing says what the tag's val_bpb measures."""
        try:
            await self._store.experiments.snapshot(name)
        except NotFound as unknown:
            raise NotFound(
                "This orchestrator runs outside a checkout and has no prepare.py that a new tag "
                "could pin: start it with --prepare-py FILE (AUTORESEARCH_PREPARE_PY)."
            ) from unknown

    def _pin_prepare(self) -> str | None:
        """Keep the orchestrator's prepare.py, so that all workers of the tag measure alike."""
        if self._prepare_py is None:
            return None
        try:
            return self._files.put_source(self._prepare_py.read_text("utf-8"))
        except FileNotFoundError as error:
            raise NotFound(
                f"AUTORESEARCH_PREPARE_PY names {self._prepare_py}, which is not there."
            ) from error

    async def register(self, request: schemas.RegisterRequest) -> schemas.RegisterAnswer:
        experiment = NewExperiment(**request.model_dump(exclude={"tag", "gpu_id"}))
        experiment_id = await self._store.experiments.register(
            request.tag, experiment, request.gpu_id
        )
        return schemas.RegisterAnswer(experiment_id=experiment_id)

    async def submit(self, request: schemas.SubmitRequest) -> schemas.SubmitAnswer:
        source = await self._sources.keep(request.train_py, request.commit_sha)
        experiment = NewExperiment(
            description=request.hypothesis if request.description is None else request.description,
            commit_sha=source.commit_sha,
            source_sha256=source.sha256,
            submitted_by=callers.current().label or None,
            **request.model_dump(include={"hypothesis", "category", "diff_summary", "parent_id"}),
        )
        try:
            queued = await self._store.experiments.submit(
                request.tag,
                experiment,
                seed=request.seed,
                priority=request.priority,
                repeat=request.repeat,
            )
        except Conflict as conflict:
            earlier = await self.waited(conflict.extra["existing"], 0)
            raise Conflict(conflict.message, **conflict.extra, earlier=earlier) from conflict
        return schemas.SubmitAnswer(
            experiment_id=queued.experiment_id, status="queued", position=queued.position
        )

    async def complete(self, request: schemas.CompleteRequest) -> schemas.AnyVerdict:
        metrics = Metrics(**request.model_dump(exclude={"experiment_id"}))
        result = RunResult("completed", metrics=metrics)
        return await self._judge.settle(request.experiment_id, result, BY_HAND)

    async def crash(self, request: schemas.CrashRequest) -> schemas.AnyVerdict:
        result = RunResult("crash", error=request.error)
        return await self._judge.settle(request.experiment_id, result, BY_HAND)

    # -- reads

    async def tags(self) -> schemas.TagsAnswer:
        states = await self._store.reads.tags()
        may_use = callers.current().may_use
        return schemas.TagsAnswer(
            tags=[views.tag_info(s.tag, s.counts) for s in states if may_use(s.tag.name)]
        )

    async def history(self, request: schemas.HistoryRequest) -> schemas.HistoryAnswer:
        status = Status(request.status) if request.status else None
        page = await self._store.reads.history(request.tag, status, request.limit, request.cursor)
        return schemas.HistoryAnswer(
            experiments=[views.record(entry) for entry in page.entries],
            total=page.total,
            next_cursor=page.next_cursor,
        )

    async def best(self, tag_name: str) -> schemas.BestAnswer:
        snapshot = await self._store.experiments.snapshot(tag_name)
        tag = snapshot.tag
        if tag.best_experiment_id is None or tag.best_us is None or tag.best_val_bpb is None:
            raise NotFound(f"Tag {tag_name!r} has no result yet.")
        entry = await self._store.reads.entry(tag.best_experiment_id)
        best = schemas.Best(
            experiment_id=tag.best_experiment_id,
            val_bpb=tag.best_val_bpb,
            commit_sha=tag.best_commit_sha or "",
            updated_at=rfc3339(tag.best_us),
            verified=entry.run.verified_bpb is not None,
            estimate=views.estimate(from_json(snapshot.race))
            if tag.keep_rule == "race" and snapshot.race
            else None,
        )
        return schemas.BestAnswer(best=best, experiment=views.record(entry))

    async def near_misses(self, request: schemas.NearMissRequest) -> schemas.NearMissAnswer:
        found, total = await self._store.reads.near_misses(request.tag, request.limit)
        near_misses = [
            schemas.NearMiss.model_validate(views.fields_of(entry) | {"delta": distance})
            for entry, distance in found
        ]
        return schemas.NearMissAnswer(near_misses=near_misses, total=total)

    async def detail(self, experiment_id: str) -> schemas.ExperimentDetail:
        found = await self._store.reads.detail(experiment_id)
        tag = found.entry.experiment.tag
        curve = await anyio.to_thread.run_sync(self._files.curve, tag, experiment_id)
        points = [schemas.CurvePoint(**point) for point in curve]
        return views.detail(found, points, await self._blocked(found.entry.run))

    async def waited(self, experiment_id: str, seconds: float) -> schemas.SubmitAnswer:
        """The run's verdict with its digest, or its status and place after `seconds`."""
        await self.wait(experiment_id, seconds)
        found = await self._store.reads.detail(experiment_id)
        verdict = views.stored_verdict(found.entry.run)
        return schemas.SubmitAnswer(
            experiment_id=experiment_id,
            status=found.entry.run.status.value,
            position=found.position,
            blocked=await self._blocked(found.entry.run),
            verdict=verdict and await self._with_digest(verdict),
        )

    async def waited_in_full(self, experiment_id: str, seconds: float) -> schemas.ExperimentDetail:
        """The experiment in full once it is decided, or after `seconds`; a verdict comes with its
        digest."""
        await self.wait(experiment_id, seconds)
        detail = await self.detail(experiment_id)
        verdict = detail.verdict and await self._with_digest(detail.verdict)
        return detail.model_copy(update={"verdict": verdict})

    async def _blocked(self, run: Run) -> str | None:
        """Why no GPU takes a queued run, if none does."""
        if run.status is not Status.QUEUED:
            return None
        tag = await self._store.reads.tag(tag_of(run.experiment_id))
        return await self._pool.blocked(tag, run.target_gpu)

    async def wait(self, experiment_id: str, seconds: float) -> Run:
        """The run once it is decided, or as it is after `seconds`."""
        deadline = anyio.current_time() + seconds
        with self._wakeups.deciding(experiment_id) as decided:
            while True:
                decided.clear()  # before the read, so that no wake-up in between is missed
                run = (await self._store.reads.entry(experiment_id)).run
                remaining = deadline - anyio.current_time()
                if run.state is State.DECIDED or remaining <= 0 or self._wakeups.closed:
                    return run
                with anyio.move_on_after(min(remaining, LOOK_SECONDS)):
                    await decided.wait()

    async def source(self, experiment_id: str) -> str:
        """The exact train.py of an experiment."""
        entry = await self._store.reads.entry(experiment_id)
        sha256 = entry.experiment.source_sha256
        if sha256 is None:
            raise NotFound(f"{experiment_id} is a hand-run: its train.py was not sent here.")
        return await anyio.to_thread.run_sync(self._files.source, sha256)

    async def prepare(self, sha256: str) -> str:
        return await anyio.to_thread.run_sync(self._files.source, sha256)

    async def diff(self, experiment_id: str, against: str | None) -> str:
        """Unified diff from `against` (an id, `parent` or `best`) to this experiment's source."""
        entry = await self._store.reads.entry(experiment_id)
        if against is None or against == "parent":
            other = entry.experiment.parent_id
        elif against == "best":
            other = (await self._store.reads.tag(entry.experiment.tag)).best_experiment_id
        else:
            other = against
        if other is None:
            raise NotFound(f"{experiment_id} has nothing to compare with: give ?against=ID.")
        before, after = await self.source(other), await self.source(experiment_id)
        return await self._sources.diff(other, before, experiment_id, after)

    async def log(
        self, experiment_id: str, attempt: int | None, start: int, length: int | None
    ) -> Slice:
        """Bytes of the log of an attempt, by default the last one."""
        entry = await self._store.reads.entry(experiment_id)
        epoch = attempt or entry.run.epoch
        if epoch == 0:
            raise NotFound(f"{experiment_id} has no log: no worker has run it.")
        try:
            return await anyio.to_thread.run_sync(
                self._files.read_log, entry.experiment.tag, experiment_id, epoch, start, length
            )
        except NotFound:
            if epoch == entry.run.epoch and entry.run.state is not State.DECIDED:
                return Slice(b"", 0, 0)  # it has not written yet
            raise
