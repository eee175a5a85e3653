"""What stands around an experiment: the best then and now, its parent, its neighbours, the noise.

Each is found from the experiment's own record by an index or a short stretch of the journal, so the
length of the history does not matter.
"""

from orchestrator import schemas
from orchestrator.domain import FINISHED, Run, State
from orchestrator.rules import noise
from orchestrator.rules.activity import FinishedRun
from orchestrator.services import views
from orchestrator.store.connection import Store
from orchestrator.store.dashboard_reads import DashboardReads
from orchestrator.store.reads import Entry

# How many journal entries around an experiment's own are looked at for its neighbours.
REACH = 40
# A journal entry's id holds the milliseconds in which it was written, and its time may have been
# moved on by some microseconds so that no two decisions share one.
SLACK_MS = 2


class Comparisons:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def of(self, experiment_id: str) -> schemas.ExperimentComparison:
        entry = await self._store.reads.entry(experiment_id)
        run, tag = entry.run, entry.experiment.tag
        state = await self._store.reads.tag(tag)
        neighbours = await _neighbours(self._store.dashboard, tag, run)
        around = neighbours | {
            "parent": entry.experiment.parent_id,
            "best_now": state.best_experiment_id,
            **await self._keeps_around(tag, run),
        }
        if run.state is not State.DECIDED:
            around["best_then"] = state.best_experiment_id
        ids = sorted({other for other in around.values() if other})
        found = {other.experiment.id: other for other in await self._store.reads.entries(tag, ids)}
        related = {
            name: views.related(found[other])
            for name, other in around.items()
            if other is not None and other in found
        }
        spread = await self._noise([entry, *found.values()])
        return schemas.ExperimentComparison(
            id=experiment_id,
            near_miss_threshold=state.near_miss_threshold,
            noise=None if spread is None else views.noise(spread),
            **related,
        )

    async def _keeps_around(self, tag: str, run: Run) -> dict[str, str | None]:
        """The best when this run was decided, which is the keep before it, and the keep after."""
        if run.finished_us is None:
            return {}
        before = await self._store.dashboard.keep_before(tag, run.finished_us)
        after = await self._store.dashboard.keep_after(tag, run.finished_us)
        best_then = before.experiment_id if before else None
        return {
            "best_then": best_then,
            "previous_keep": best_then,
            "next_keep": after.experiment_id if after else None,
        }

    async def _noise(self, entries: list[Entry]) -> noise.Noise | None:
        """From all runs of the sources of these experiments, with the same seeds."""
        tag = entries[0].experiment.tag
        sources = {
            f"{entry.experiment.source_sha256}:{entry.run.seed}"
            for entry in entries
            if entry.experiment.source_sha256 is not None
        }
        groups = await self._store.dashboard.repeats(tag, sorted(sources))
        groups = [group for group in groups if len(group) > 1]
        runs = await self._store.reads.entries(tag, [i for group in groups for i in group])
        values = {
            entry.experiment.id: entry.run.metrics.val_bpb
            for entry in runs
            if entry.run.status in FINISHED and entry.run.metrics is not None
        }
        return noise.estimate([values[i] for i in group if i in values] for group in groups)


async def _neighbours(reads: DashboardReads, tag: str, run: Run) -> dict[str, str | None]:
    """The finished runs decided just before and just after this one."""
    if run.finished_us is None or run.status not in FINISHED:
        return {}
    ms = run.finished_us // 1000
    before = await reads.verdicts_before(tag, f"{ms + SLACK_MS}-0", REACH)
    after = await reads.verdicts_after(tag, f"{max(0, ms - SLACK_MS)}-0", REACH)
    return {
        "previous": _nearest(before.runs, run.finished_us, later=False),
        "next": _nearest(after.runs, run.finished_us, later=True),
    }


def _nearest(runs: list[FinishedRun], moment_us: int, *, later: bool) -> str | None:
    """The first of `runs`, which stand in order away from the moment, on the asked side of it."""
    for found in runs:
        if found.finished_us != moment_us and (found.finished_us > moment_us) == later:
            return found.experiment_id
    return None
