"""The keep rule `race` at work: judges runs by it, queues the repeats and merges it asks for.

The rule itself is in rules/race/; docs/keep-rules.md explains it.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from functools import partial

import anyio

from orchestrator import schemas
from orchestrator.domain import Decision, Experiment, NewExperiment, RunResult, Snapshot, Status
from orchestrator.errors import (
    AutoresearchError,
    Conflict,
    Invalid,
    NotFound,
    TooLarge,
    Unavailable,
)
from orchestrator.files import Files
from orchestrator.rules.race import FinishedRun, Next, State, conflicted, next_run
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


class Race:
    def __init__(self, store: Store, files: Files, sources: Sources) -> None:
        self._store = store
        self._files = files
        self._sources = sources

    # -- verdicts

    async def decide(
        self, snapshot: Snapshot, result: RunResult
    ) -> tuple[RaceDecision, list[OtherVerdict]]:
        """The decision on the snapshot's run, and the verdicts that it brings on others."""
        state = from_json(snapshot.race)
        run = await self._finished(snapshot, result, state)
        decision = decide(snapshot, result, state, run)
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
        )

    async def base(self, snapshot: Snapshot, state: State) -> str | None:
        """The champion that the snapshot's experiment was made from, if the race knows it."""
        champions = {one.id for one in state.champions}
        base = snapshot.experiment.parent_id if snapshot.experiment else None
        while base is not None and base not in champions:
            base = (await self._store.reads.entry(base)).experiment.parent_id
        return base

    # -- repeats and merges

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
            if due.tag.keep_rule != "race" or due.tag.pause is not None:
                return
            do = _next(due)
            if do is None:
                return
            if do.kind == "repeat":
                await self._repeat(due, do)
            else:
                await self._merge(due, do)

    async def _repeat(self, due: Due, do: Next) -> None:
        source = (await self._store.reads.entry(do.sources[0])).experiment
        again = _new(source, repeat_of=source.id)
        if await self._store.race.follow_up(due, again, do, source):
            logger.info("%s runs again, with seed %d", source.id, do.seed)

    async def _merge(self, due: Due, do: Next) -> None:
        """Merge waiting wins onto the champion and queue what comes out, or say of those that do
        not fit why. One that only does not fit the others waits for the next merge."""
        waiting = await self._store.reads.entries(due.tag.name, do.sources)
        champion = (await self._store.reads.entry(due.state.champions[-1].id)).experiment
        alone = merged = await self._source(champion)
        parts, misfits = list[Experiment](), dict[str, str]()
        for win in waiting:
            try:
                await self._with(alone, win.experiment, champion)
            except CONFLICTS as error:
                misfits[win.experiment.id] = f"it could not be merged: {error.message}"
                continue
            with suppress(*CONFLICTS):
                merged = await self._with(merged, win.experiment, champion)
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
        if await self._store.race.follow_up(due, experiment, do, parts[0]):
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
        assert experiment.source_sha256 is not None  # noqa: S101 - a race has no hand-runs
        return await anyio.to_thread.run_sync(self._files.source, experiment.source_sha256)

    async def _unmerge(self, due: Due, waiting: list[Entry], misfits: Mapping[str, str]) -> None:
        verdicts = {}
        for experiment, run in waiting:
            if experiment.id not in misfits:
                continue
            verdict = views.stored_verdict(run)
            assert isinstance(verdict, schemas.Verdict)  # noqa: S101 - it waited in the race
            why = unmerged(verdict.why or "", misfits[experiment.id])
            verdicts[experiment.id] = verdict.model_copy(update={"why": why}).model_dump_json()
        state = conflicted(due.state, misfits)
        await self._store.race.unmerge(due, state, misfits, verdicts)


def _new(experiment: Experiment, repeat_of: str) -> NewExperiment:
    """The same idea and source as another experiment."""
    same = {one.name: getattr(experiment, one.name) for one in fields(NewExperiment)}
    return NewExperiment(**same | {"repeat_of": repeat_of, "merged_from": None})


def _other(entry: Entry, decision: Decision) -> OtherVerdict:
    """A new verdict on an experiment whose run completed earlier."""
    experiment, run = entry
    result = RunResult("completed", metrics=run.metrics, verified_bpb=run.verified_bpb)
    verdict = views.verdict(experiment.id, result, decision)
    return OtherVerdict(experiment, run, decision, verdict.model_dump_json())


def _next(due: Due) -> Next | None:
    """The next repeat or merge for a free GPU; None if all of them have something to do."""
    if due.free <= 0:
        return None
    ask = partial(
        next_run,
        due.state,
        due.running,
        due.gpus,
        idle=due.quiet_seconds > IDLE * due.tag.time_budget_seconds,
        merge_running=due.merge_running,
    )
    do = ask(ideas=due.ideas > 0)
    if do is not None and do.kind == "idea" and due.free > due.ideas:
        do = ask(ideas=False)
    return None if do is None or do.kind == "idea" else do
