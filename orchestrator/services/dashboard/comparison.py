"""What an experiment is compared with: parent, best then and now, neighbours, and the noise."""

from orchestrator import schemas
from orchestrator.domain import FINISHED, Run
from orchestrator.rules import noise
from orchestrator.rules.race.state import FIRST_SEED
from orchestrator.services import views
from orchestrator.services.dashboard.history import Histories, History
from orchestrator.store.connection import Store
from orchestrator.store.reads import Entry

# A champion has twenty runs at most; those that crashed or were cancelled have a seed, too.
SEEDS = range(FIRST_SEED, FIRST_SEED + 24)


class Comparisons:
    def __init__(self, store: Store, histories: Histories) -> None:
        self._store = store
        self._histories = histories

    async def of(self, experiment_id: str) -> schemas.ExperimentComparison:
        """Raises `NotFound`."""
        entry = await self._store.reads.entry(experiment_id)
        name = entry.experiment.tag
        tag = await self._store.reads.tag(name)
        others = {
            "parent": entry.experiment.parent_id,
            "best_now": tag.best_experiment_id,
            "best_then": tag.best_experiment_id,
            **_around(await self._histories.of(tag), entry.run),
        }
        ids = sorted({other for other in others.values() if other})
        found = {other.experiment.id: other for other in await self._store.reads.entries(name, ids)}
        related = {
            role: views.related(found[other]) for role, other in others.items() if other in found
        }
        if "best_now" in related:  # under `race` an estimate
            related["best_now"].val_bpb = tag.best_val_bpb
        return schemas.ExperimentComparison(
            id=experiment_id,
            near_miss_threshold=tag.near_miss_threshold,
            noise=await self._noise([entry, *found.values()]),
            repeats=await self._repeats(entry) if tag.keep_rule == "race" else [],
            **related,
        )

    async def _repeats(self, entry: Entry) -> list[schemas.Related]:
        """The other runs of an experiment's source, by seed."""
        tag, source = entry.experiment.tag, entry.experiment.source_sha256
        groups = await self._store.reads.repeats(tag, [f"{source}:{seed}" for seed in SEEDS])
        ids = [i for group in groups for i in group if i != entry.experiment.id]
        found = await self._store.reads.entries(tag, ids)
        return [views.related(one) for one in found if one.experiment.repeat_of is not None]

    async def _noise(self, entries: list[Entry]) -> schemas.Noise | None:
        """From all runs of the sources of these experiments, with the same seeds."""
        tag = entries[0].experiment.tag
        sources = {
            f"{entry.experiment.source_sha256}:{entry.run.seed}"
            for entry in entries
            if entry.experiment.source_sha256 is not None
        }
        groups = await self._store.reads.repeats(tag, sorted(sources))
        groups = [group for group in groups if len(group) > 1]
        runs = await self._store.reads.entries(tag, [i for group in groups for i in group])
        values = {
            entry.experiment.id: entry.run.metrics.val_bpb
            for entry in runs
            if entry.run.status in FINISHED and entry.run.metrics is not None
        }
        return noise.estimate([values[i] for i in group if i in values] for group in groups)


def _around(history: History, run: Run) -> dict[str, str | None]:
    """The keeps and the finished runs decided just before and just after this one."""
    if run.finished_us is None:
        return {}
    before, after = history.keep_before(run.finished_us), history.keep_after(run.finished_us)
    previous_keep = before.experiment_id if before else None
    found = {
        "best_then": previous_keep,
        "previous_keep": previous_keep,
        "next_keep": after.experiment_id if after else None,
    }
    row = history.series.row_of(run.finished_us)
    if row is not None:
        found["previous"] = history.id_of(row - 1) if row else None
        found["next"] = history.id_of(row + 1) if row + 1 < len(history.series) else None
    return found
