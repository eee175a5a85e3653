"""What the keep rule `race` reads and writes beside decisions: what is due, and what follows."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.decisions import Workload
from orchestrator.domain import NewExperiment, Tag
from orchestrator.rules.race.queue import ENDED
from orchestrator.rules.race.state import Next, State, from_json, to_json
from orchestrator.store import entries, records, verbs
from orchestrator.store.scripts import Scripts


@dataclass(frozen=True)
class Due:
    """What the rule rests on when it says what runs next."""

    tag: Tag
    state: State
    workload: Workload

    @property
    def running(self) -> dict[str, list[int]]:
        """The seeds under way of each source, queued repeats too, the oldest source first."""
        started, follow = self.workload.started, self.workload.follow
        running: dict[str, list[int]] = {}
        queued = {name: int(follow[name].split()[1]) for name in self._queued}
        for experiment_id, seed in (dict(started) | queued).items():
            source = follow.get(experiment_id, "merge").split()[0]
            if source == "merge":
                source = experiment_id
            elif source not in started and source not in self.state.known:
                source = ENDED
            running.setdefault(source, []).append(seed)
        return running

    @property
    def merge_running(self) -> bool:
        return any(what.startswith("merge ") for what in self.workload.follow.values())

    @property
    def checks(self) -> list[str]:
        """The GPUs and GPU models that repeats of the champion are about to check."""
        return [check for what in self.workload.follow.values() for check in what.split(" ", 2)[2:]]

    @property
    def free(self) -> int:
        """GPUs with neither a run nor a queued repeat that is meant for them."""
        return self.workload.idle - len(self._queued)

    @property
    def _queued(self) -> list[str]:
        return [name for name in self.workload.follow if name not in self.workload.started]

    def after(self, do: Next) -> "Due":
        """What is due once the repeat `do` is queued."""
        what = follow_of(do)
        follow = {**self.workload.follow, f"next {what}": what}
        return replace(self, workload=replace(self.workload, follow=follow, quiet_seconds=0.0))


def follow_of(do: Next) -> str:
    """How the store names what a run is for."""
    what = f"{'merge' if do.kind == 'merge' else do.sources[0]} {do.seed}"
    return what if do.check is None else f"{what} {do.check}"


class RaceStore:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def due(self, tag: str) -> Due:
        reply = await self._scripts.run(verbs.DUE, tag)
        return Due(
            records.tag_from(reply["tag"]),
            from_json(reply.fields.get("race")),
            records.workload_from(reply["workload"]),
        )

    async def follow_up(self, due: Due, do: Next, merged: NewExperiment | None = None) -> bool:
        """Queue a repeat, or the first run of `merged`, that rests on `due`, in the place of the
        run that it follows; False if the tag has changed since."""
        reply = await self._scripts.run(
            verbs.FOLLOW_UP,
            due.tag.name,
            due.tag.revision,
            due.tag.last_created_us,
            do.sources[0],
            do.seed,
            follow_of(do),
            merged and records.experiment_fields(merged),
            nonce=secrets.token_hex(12),  # not the request's: sent again, it may ask for another
        )
        return reply.name == "OK"

    async def unmerge(
        self, due: Due, state: State, conflicts: Mapping[str, str], verdicts: Mapping[str, str]
    ) -> bool:
        """Say of waiting wins why they could not be merged (`conflicts`), with their new verdicts;
        `state` is the race without them. False if the tag has changed since `due`."""
        data = entries.unmerged_data(due.tag, conflicts)
        entry = self._scripts.entry(due.tag, "unmerged", data)
        reply = await self._scripts.run(
            verbs.UNMERGE,
            due.tag.name,
            entry,
            to_json(state),
            dict(verdicts),
            nonce=secrets.token_hex(12),
        )
        return reply.name == "OK"
