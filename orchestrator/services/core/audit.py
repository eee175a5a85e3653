"""Checks a tag's state against its journal: verdicts, best, counters, pause, notes, the audit log.

It works on a live tag too: it reads the totals in one step, replays the journal up to their
revision, and leaves later entries to the next audit.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from orchestrator.domain import OperatorAction, State, Status
from orchestrator.errors import NotFound
from orchestrator.rules.replay import Decided, Replay, SetUp
from orchestrator.rules.seals import Chain
from orchestrator.seals import Seals
from orchestrator.services import views
from orchestrator.store.connection import Store
from orchestrator.store.journal import Books
from orchestrator.store.reads import Entry

DECIDED = (
    Status.KEEP, Status.DISCARD, Status.CRASH, Status.TIMEOUT, Status.CANCELLED, Status.CANDIDATE,
    Status.REPEAT,
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What an audit of a tag found. Without `differences` the state is what the journal says.
    `unsealed` counts the entries at the journal's beginning that a version without seals wrote;
    None if there was no key to check seals with."""

    tag: str
    decisions: int
    experiments: int
    differences: list[str]
    unsealed: int | None = None


class Audit:
    def __init__(self, store: Store, seals: Seals | None = None) -> None:
        """Without `seals` those of the journal are not checked."""
        self._store = store
        self._seals = seals

    async def tags(self) -> list[str]:
        """All tags, oldest first, and those of which this home has noted seals."""
        found = [state.tag.name for state in reversed(await self._store.reads.tags())]
        return found + [tag for tag in self._noted() if tag not in found]

    async def check(self, tag: str) -> Report:
        """Audit one tag. Raises `NotFound` for a tag that never was there."""
        chain = self._seals.chain(tag) if self._seals else None
        try:
            books = await self._store.journal.books(tag)
        except NotFound:
            if tag not in self._noted():
                raise
            return Report(tag, 0, 0, ["this home has noted seals of its journal, and it is gone"])
        replay = await self._replayed(books, chain)
        differences = [*replay.differences, *_of_totals(books, replay)]
        if chain is not None:
            differences += chain.differences
        differences += await self._of_sets(tag, replay)
        differences += await self._of_audit_log(tag, replay)
        categories, seen = Counter[str](), set[str]()
        async for entry in self._store.reads.everything(tag):
            experiment = entry.experiment
            if experiment.created_us > books.last_created_us:
                break
            seen.add(experiment.id)
            step = replay.decided.get(experiment.id)
            if step is None or step.decision.status not in (Status.CANCELLED, Status.REPEAT):
                categories[experiment.category] += 1
            differences += _of_record(entry, step, replay.last_us)
            if step is not None:
                forecast = replay.forecasts.get(experiment.id)
                differences += _compared(f"{experiment.id}: forecast", entry.run.forecast, forecast)
        differences += [
            f"{missing} is in the journal and has no record"
            for missing in sorted(replay.decided.keys() - seen)
        ]
        differences += _compared("experiments per category", _counters(books, "n:"), categories)
        unsealed = chain.unsealed if chain else None
        return Report(tag, len(replay.decided), len(seen), differences, unsealed)

    def _noted(self) -> list[str]:
        return self._seals.tags() if self._seals else []

    async def _replayed(self, books: Books, chain: Chain | None) -> Replay:
        """The steps up to the books' revision; the chain is checked to its end."""
        tag, revision, over = books.tag.name, books.tag.revision, False
        replay = Replay.of(tag, books.race.rules)
        last = "its beginning"
        try:
            async for entry, step in self._store.journal.steps(tag):
                if chain is not None:
                    chain.take(entry)
                over = over or (replay.tag.revision == revision and not isinstance(step, SetUp))
                if not over:
                    replay.take(step)
                last = entry.id
        except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
            # No orchestrator writes what cannot be parsed, and it may be anything.
            replay.differences.append(
                f"the journal cannot be read after {last} ({type(error).__name__})"
            )
        if chain is not None:
            chain.end()
        return replay

    async def _of_sets(self, tag: str, replay: Replay) -> list[str]:
        """Near misses and keeps, member by member, as far as the replay has come."""
        keeps = await self._store.journal.keeps(tag, until_us=replay.last_us)
        near = await self._store.journal.near_misses(tag)
        late = near.keys() - replay.near.keys() - replay.decided.keys()
        return [
            *_compared("keeps", {k.experiment_id: k.val_bpb for k in keeps}, replay.keeps),
            *_compared(
                "near misses", {i: d for i, d in near.items() if i not in late}, replay.near
            ),
        ]

    async def _of_audit_log(self, tag: str, replay: Replay) -> list[str]:
        """Who did what to the tag, action by action, up to the replay's revision."""
        entries = [
            (entry.revision, entry.at_us, entry.action)
            async for entry in self._store.steering.whole_ledger(tag)
            if entry.revision is not None and entry.revision < replay.tag.revision
        ]
        written, due = Counter(entries), Counter(replay.actions)
        return [
            *(f"the audit log lacks {_named(entry)}" for entry in due - written),
            *(f"the audit log holds {_named(e)}, the journal does not" for e in written - due),
        ]


def _named(entry: tuple[int, int, OperatorAction]) -> str:
    revision, _, action = entry
    return f"{action.kind} {action.target} by {action.by} at revision {revision}"


def _of_totals(books: Books, replay: Replay) -> list[str]:
    tag, due = books.tag, replay.tag
    differences = [
        *_compared("revision", tag.revision, due.revision),
        *_compared("best val_bpb", tag.best_val_bpb, due.best_val_bpb),
        *_compared("best experiment", tag.best_experiment_id, due.best_experiment_id),
        *_compared("moment of the best", tag.best_us, due.best_us),
        *_compared("crash streak", tag.consecutive_crashes, due.consecutive_crashes),
        *_compared("recent runs", list(books.recent), list(replay.recent)),
        *_compared("strategy", replace(books.strategy, updated_us=0), replay.strategy),
        *_compared("race", books.race, replay.race),
        *_compared("early stop", books.stops, replay.stops),
        *_compared("pause", tag.pause, due.pause),
        *_compared("notes", books.notes, replay.notes),
        *_compared("number of keeps", books.keeps, len(replay.keeps)),
        *_compared("keeps per category", _counters(books, "kept:"), replay.kept_in),
        *_compared("near misses per category", _counters(books, "near:"), replay.near_in),
        *_compared(
            "runs lost to infrastructure", books.counts.infra_lost, replay.counts.infra_lost
        ),
    ]
    for status in DECIDED:
        stored, recomputed = (getattr(c, status.value) for c in (books.counts, replay.counts))
        differences += _compared(f"runs with status {status.value}", stored, recomputed)
    counts = books.counts
    everybody = counts.finished + counts.cancelled + counts.candidate + counts.repeat
    everybody += counts.queued + counts.running
    differences += _compared("sum of all statuses", everybody, books.experiments)
    if not math.isclose(tag.training_seconds, due.training_seconds, rel_tol=1e-9, abs_tol=1e-6):
        differences += _compared("training seconds", tag.training_seconds, due.training_seconds)
    return differences


def _of_record(entry: Entry, step: Decided | None, until_us: int) -> Iterator[str]:
    """What of a run is not as the journal says."""
    run, who = entry.run, entry.experiment.id
    if step is None:
        if run.state in (State.MEASURED, State.DECIDED) and (run.finished_us or 0) <= until_us:
            yield f"{who} is {run.status.value} and not in the journal"
        return
    val_bpb = run.metrics.val_bpb if run.metrics else None
    reported = step.result.metrics.val_bpb if step.result.metrics else None
    verdict = views.verdict(who, step.result, step.decision)
    candidate = step.decision.status is Status.CANDIDATE
    state = State.MEASURED if candidate else State.DECIDED
    yield from _compared(f"{who}: state", run.state.value, state.value)
    yield from _compared(f"{who}: stopped early", run.stopped_early, step.result.kind == "stopped")
    yield from _compared(f"{who}: status", run.status.value, step.decision.status.value)
    yield from _compared(f"{who}: val_bpb", val_bpb, reported)
    yield from _compared(f"{who}: best before", run.best_before, step.decision.best_before)
    yield from _compared(f"{who}: moment of decision", run.finished_us, step.at_us)
    stored = run.verdict_json and views.verdict_from(run.verdict_json)
    yield from _compared(f"{who}: verdict", stored, verdict)


def _counters(books: Books, prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): count
        for name, count in books.categories.items()
        if name.startswith(prefix)
    }


def _compared(what: str, stored: object, due: object) -> list[str]:
    if stored == due:
        return []
    if isinstance(stored, dict) and isinstance(due, dict):
        names = sorted(n for n in stored.keys() | due.keys() if stored.get(n) != due.get(n))
        return [f"{what}: {n}: {stored.get(n)} stored, {due.get(n)} recomputed" for n in names]
    return [f"{what}: {stored} stored, {due} recomputed"]
