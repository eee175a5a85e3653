"""The keep rules `race` and `greedy+merge` at work: judges runs by them, queues the repeats and
merges that they ask for.

The rules themselves are in rules/race/ and rules/greedy_merge.py; docs/keep-rules.md explains them.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import anyio

from orchestrator import schemas
from orchestrator.decisions import Decision, RunResult, Snapshot
from orchestrator.domain import Experiment, NewExperiment, Status
from orchestrator.errors import (
    AutoresearchError,
    Conflict,
    Invalid,
    NotFound,
    TooLarge,
    Unavailable,
)
from orchestrator.files import Files
from orchestrator.rules import greedy_merge
from orchestrator.rules.race import (
    FinishedRun,
    Next,
    State,
    check,
    conflicted,
    next_merge,
    next_run,
)
from orchestrator.rules.race.decide import RaceDecision, decide, ending, unmerged
from orchestrator.rules.race.state import from_json
from orchestrator.services import views
from orchestrator.services.core.sources import Sources
from orchestrator.store.connection import Store
from orchestrator.store.entries import OtherVerdict
from orchestrator.store.race import Due
from orchestrator.store.reads import Entry

logger = logging.getLogger(__name__)

# A free GPU is idle when the tag has had no run and no idea for this part of its budget: before
# that, an agent may be about to submit its next one, which would wait behind a repeat.
IDLE = 0.2
# Why a change does not fit: the same lines, what comes out is no Python or too long, or a source is
# gone.
CONFLICTS = (Conflict, Invalid, TooLarge, NotFound)

# The longest text that a submission may have.
TEXT_CHARACTERS = 20_000
# So many parents of experiments are kept at most, some 20 MB.
PARENTS = 100_000


class Race:
    def __init__(self, store: Store, files: Files, sources: Sources) -> None:
        self._store = store
        self._files = files
        self._sources = sources
        self._parents: dict[str, str | None] = {}  # of experiments; they never change

    # -- verdicts

    async def decide(
        self, snapshot: Snapshot, result: RunResult
    ) -> tuple[RaceDecision, list[OtherVerdict]]:
        """The decision on the snapshot's run, and the verdicts that it brings on others."""
        state = from_json(snapshot.race)
        run = await self._finished(snapshot, result, state)
        rule = decide if snapshot.tag.keep_rule == "race" else greedy_merge.decide
        decision = rule(snapshot, result, state, run)
        known = dict(decision.others)
        entries = await self._store.reads.entries(snapshot.tag.name, list(known))
        return decision, [_other(entry, known[entry.experiment.id]) for entry in entries]

    async def _finished(self, snapshot: Snapshot, result: RunResult, state: State) -> FinishedRun:
        experiment, run = snapshot.experiment, snapshot.run
        assert experiment is not None and run is not None  # noqa: S101, PT018 - it has a run
        # A repeat that a person asked for is an idea of its own: it gets a verdict of its own.
        repeated = experiment.repeat_of if snapshot.follow_up else None
        return FinishedRun(
            source=repeated or experiment.id,
            seed=run.seed,
            value=result.metrics.val_bpb if result.metrics else None,
            base=await self.base(snapshot, state),
            repeat=repeated is not None,
            merged_from=tuple((experiment.merged_from or "").split()),
            ending=ending(result),
            gpu=run.gpu_id,
            model=result.environment.gpu_name if snapshot.tag.mix_models else None,
            slow=result.slow_part,
        )

    async def base(self, snapshot: Snapshot, state: State) -> str | None:
        """The champion that the snapshot's experiment was made from, if the race knows it. None for
        a hand-run, whose source is not here to merge."""
        champions, experiment = {one.id for one in state.champions}, snapshot.experiment
        base = experiment.parent_id if experiment and experiment.source_sha256 else None
        while base is not None and base not in champions:
            base = await self._parent(base)
        return base

    async def _parent(self, experiment_id: str) -> str | None:
        """Kept here: agents that go on from their last run make chains as long as a night."""
        if experiment_id not in self._parents:
            if len(self._parents) >= PARENTS:
                self._parents.clear()
            entry = await self._store.reads.entry(experiment_id)
            self._parents[experiment_id] = entry.experiment.parent_id
        return self._parents[experiment_id]

    # -- repeats and merges

    async def follow(self, tag: str, ahead: "Ahead", *, queued: bool) -> None:
        """Go on after a decision. `queued` if its repeats were queued with it; else something has
        changed since the snapshot. Raises `Unavailable`."""
        if queued:
            for do in ahead.repeats:
                logger.info("%s runs again, with seed %d", do.sources[0], do.seed)
        if ahead.merges or not queued:
            await self.fill(tag)

    async def fill(self, tag: str) -> None:
        """Queue what the rule asks for, as long as a GPU is free for it. Raises `Unavailable`."""
        try:
            await self._fill(tag)
        except Unavailable:
            raise
        except AutoresearchError:
            # A record or a source that is broken must not keep a verdict from its worker.
            logger.exception("What follows in tag %s cannot be queued", tag)

    async def _fill(self, tag: str) -> None:
        while True:  # each turn queues a run, settles a win, or follows a change of another caller
            due = await self._store.race.due(tag)
            do = _next(due)
            if do is None:
                return
            if do.kind == "merge":
                await self._merge(due, do)
            elif await self._store.race.follow_up(due, do):
                logger.info("%s runs again, with seed %d", do.sources[0], do.seed)

    async def _merge(self, due: Due, do: Next) -> None:
        """Merge waiting wins onto the champion and queue what comes out, or say of those that do
        not fit why. One that only does not fit the others waits for the next merge."""
        waiting = await self._store.reads.entries(due.tag.name, do.sources)
        champion = (await self._store.reads.entry(due.state.champions[-1].id)).experiment
        merged, parts, misfits = "", list[Experiment](), dict[str, str]()
        for win in waiting:
            try:
                alone = await self._with(await self._source(champion), win.experiment, champion)
                if due.tag.keep_rule != "race" and alone == await self._source(win.experiment):
                    raise Conflict(f"it has the change of {champion.id} and reads no lower")
            except CONFLICTS as error:
                misfits[win.experiment.id] = f"it could not be merged: {error.message}"
                continue
            with suppress(*CONFLICTS):
                merged = await self._with(merged, win.experiment, champion) if parts else alone
                parts.append(win.experiment)
        if misfits:
            await self._unmerge(due, waiting, misfits)
            return
        source = await self._sources.keep(merged, None)
        words = " + ".join(part.description or part.hypothesis for part in parts)
        experiment = NewExperiment(
            hypothesis=f"merge: {words}"[:TEXT_CHARACTERS],
            description=f"merge: {words}"[:TEXT_CHARACTERS],
            category="merge",
            commit_sha=source.commit_sha,
            diff_summary="; ".join(part.diff_summary for part in parts)[:TEXT_CHARACTERS],
            parent_id=champion.id,
            source_sha256=source.sha256,
            merged_from=" ".join(part.id for part in parts),
        )
        if await self._store.race.follow_up(due, do, experiment):
            logger.info("%s are merged onto %s", experiment.merged_from, champion.id)

    async def _with(self, ours: str, part: Experiment, champion: Experiment) -> str:
        """`ours` with the change that `part` made to its champion.

        Raises `Conflict`, or what `Sources.keep` raises for what comes out."""
        base = await self._kept_above(part)
        merged = await self._sources.merge(
            ours, await self._source(base), await self._source(part), champion.id, part.id
        )
        if merged == ours:
            raise Conflict(f"all of its change is in {champion.id} already")
        await self._sources.keep(merged, None)
        return merged

    async def _kept_above(self, experiment: Experiment) -> Experiment:
        """The nearest ancestor that was a champion: what the experiment was judged against."""
        while True:
            if experiment.parent_id is None:
                return experiment
            entry = await self._store.reads.entry(experiment.parent_id)
            experiment = entry.experiment
            if entry.run.status is Status.KEEP:
                return experiment

    async def _source(self, experiment: Experiment) -> str:
        if experiment.source_sha256 is None:
            raise NotFound(f"{experiment.id} was run by hand, so its source is not here")
        return await anyio.to_thread.run_sync(self._files.source, experiment.source_sha256)

    async def _unmerge(self, due: Due, waiting: list[Entry], misfits: Mapping[str, str]) -> None:
        verdicts = {}
        for experiment, run in waiting:
            if experiment.id not in misfits:
                continue
            verdict = views.stored_verdict(run)
            assert isinstance(verdict, schemas.Verdict)  # noqa: S101 - it waited in the race
            why = unmerged(verdict.why, misfits[experiment.id])
            verdicts[experiment.id] = verdict.model_copy(update={"why": why}).model_dump_json()
        state = conflicted(due.state, misfits)
        await self._store.race.unmerge(due, state, misfits, verdicts)


def _other(entry: Entry, decision: Decision) -> OtherVerdict:
    """A new verdict on an experiment whose run completed earlier."""
    experiment, run = entry
    result = RunResult("completed", metrics=run.metrics, verified_bpb=run.verified_bpb)
    verdict = views.verdict(experiment.id, result, decision)
    return OtherVerdict(experiment, run, decision, verdict.model_dump_json())


@dataclass(frozen=True)
class Ahead:
    """What follows a decision: the repeats for free GPUs, and true if a merge follows them."""

    repeats: tuple[Next, ...] = ()
    merges: bool = False


def look_ahead(snapshot: Snapshot, decision: RaceDecision) -> Ahead:
    """What follows a decision, so that it is queued in the same step. A check of the GPU that has
    just ended its run comes first."""
    assert snapshot.workload is not None  # noqa: S101 - it is a run's
    due, repeats = Due(snapshot.tag, decision.state, snapshot.workload), list[Next]()
    if snapshot.tag.keep_rule == "race" and snapshot.tag.pause is None and due.free > 0:
        do = check(decision.state, decision.run, due.running, due.checks)
        if do is not None:
            repeats.append(do)
            due = due.after(do)
    while (do := _next(due)) is not None and do.kind == "repeat":
        repeats.append(do)
        due = due.after(do)
    return Ahead(tuple(repeats), merges=do is not None)


def _next(due: Due) -> Next | None:
    """The next repeat or merge for a free GPU; None if all of them have something to do."""
    if due.free <= 0 or due.tag.keep_rule == "greedy" or due.tag.pause is not None:
        return None
    if due.tag.keep_rule == "greedy+merge":
        return next_merge(due.state, merge_running=due.merge_running)
    ask = partial(
        next_run,
        due.state,
        due.running,
        due.workload.gpus,
        idle=due.workload.quiet_seconds >= IDLE * due.tag.time_budget_seconds,
        merge_running=due.merge_running,
        checks=due.checks,
    )
    ideas = due.workload.ideas
    do = ask(ideas=ideas > 0)
    if do is not None and do.kind == "idea" and due.free > ideas:
        do = ask(ideas=False)
    return None if do is None or do.kind == "idea" else do
