"""What the keep rule `race` reads and writes beside decisions: what is due, and what follows."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.domain import NewExperiment, Tag
from orchestrator.rules.race.queue import ENDED
from orchestrator.rules.race.state import Next, State, from_json, to_json
from orchestrator.store import entries, records, verbs
from orchestrator.store.scripts import Scripts


@dataclass(frozen=True)
class Due:
    """What the rule rests on when it says what runs next, read in one step.

    `running` are the seeds under way of each source, queued repeats too, the oldest source first.
    `free` GPUs have neither a run nor a queued repeat that is meant for them. Nothing was submitted
    or decided for `quiet_seconds`.
    """

    tag: Tag
    last_created: str
    state: State
    running: Mapping[str, list[int]]
    merge_running: bool
    ideas: int
    free: int
    gpus: int
    quiet_seconds: float


def due_from(reply: Mapping[str, Any], state: State) -> Due:
    """What a script replied as `due`, with the race after it."""
    follow: dict[str, str] = reply["follow"]
    running: dict[str, list[int]] = {}
    started = dict(reply["running"] or [])  # an empty Lua table encodes as {}
    queued = {name: what.split()[1] for name, what in follow.items() if name not in started}
    for experiment_id, seed in (started | queued).items():
        source = follow.get(experiment_id, "merge").split()[0]
        if source == "merge":
            source = experiment_id
        elif source not in started and source not in state.known:
            source = ENDED
        running.setdefault(source, []).append(int(seed))
    return Due(
        tag=records.tag_from(reply["tag"]),
        last_created=reply["tag"].get("last_created", ""),
        state=state,
        running=running,
        merge_running=any(what.startswith("merge ") for what in follow.values()),
        ideas=reply["ideas"],
        free=reply["idle"] - len(queued),
        gpus=reply["gpus"],
        quiet_seconds=reply["quiet"],
    )


class RaceStore:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def due(self, tag: str) -> Due:
        reply = await self._scripts.run(verbs.DUE, tag)
        return due_from(reply["due"], from_json(reply.fields.get("race")))

    async def follow_up(
        self, due: Due, do: Next, merged: NewExperiment | None = None
    ) -> Due | None:
        """Queue a repeat, or the first run of `merged`, that rests on `due`, in the place of
        what it follows. Returns what is due then; None if the tag has changed since."""
        followed = do.sources[0]
        reply = await self._scripts.run(
            verbs.FOLLOW_UP,
            due.tag.name,
            due.tag.revision,
            due.last_created,
            merged and records.experiment_fields(merged),
            do.seed,
            followed,
            f"{'merge' if merged else followed} {do.seed}",
            nonce=secrets.token_hex(12),  # not the request's: sent again, it may ask for another
        )
        return due_from(reply["due"], due.state) if reply.name == "OK" else None

    async def unmerge(
        self, due: Due, state: State, conflicts: Mapping[str, str], verdicts: Mapping[str, str]
    ) -> Due | None:
        """Say of waiting wins why they could not be merged (`conflicts`), with their new verdicts;
        `state` is the race without them. Returns what is due then; None if the tag has changed
        since `due`."""
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
        return due_from(reply["due"], state) if reply.name == "OK" else None
