"""What `watch` shows, asked of the orchestrator: a handful of reads whose cost does not grow with
the number of experiments."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter

from orchestrator import schemas
from orchestrator.cli.client import Client
from orchestrator.cli.errors import ApiError, CommandError

# Runs whose progress is asked for, each by a call of its own; more would not fit a screen.
SHOWN_RUNS = 16
_RECENT = 40
_QUEUE = 20
_TAG_AT = len("exp-0123456789abcd-")


@dataclass(frozen=True)
class View:
    """The system at one moment. `tag` is None where there is none yet; `recent` has the latest
    decision first, `queue` what comes next; `as_of` is this machine's clock, in seconds."""

    url: str
    as_of: float
    pool: schemas.PoolAnswer
    tag: schemas.TagInfo | None = None
    summary: schemas.SummaryAnswer | None = None
    strategy: schemas.Strategy | None = None
    running: Mapping[str, schemas.ExperimentDetail] = field(default_factory=dict)
    queue: Sequence[schemas.ExportRow] = ()
    recent: Sequence[schemas.Record] = ()
    best: schemas.ExperimentDetail | None = None

    @property
    def curve_of(self) -> schemas.ExperimentDetail | None:
        """Whose learning curve is shown: the running one of this tag that got furthest, or the
        best."""
        live = [d for d in self.running.values() if d.curve and self._mine(d)]
        furthest = max(live, key=lambda d: d.curve[-1].percent, default=None)
        return furthest or (self.best if self.best and self.best.curve else None)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        dumped: dict[str, Any] = TypeAdapter(View).dump_python(self, mode="json")
        return dumped

    def _mine(self, detail: schemas.ExperimentDetail) -> bool:
        return self.tag is None or detail.tag == self.tag.name


class Gatherer:
    """Asks for everything (`look`), or only for what moves while runs train (`glance`)."""

    def __init__(self, client: Client, tag: str | None) -> None:
        self._client = client
        self._wanted = tag

    def look(self, before: View | None = None) -> View:
        """Raises CommandError for a tag that does not exist."""
        pool = self._client.pool()
        tag = self._tag(pool)
        view = View(self._client.url, time.time(), pool, tag, running=self._runs(pool))
        if tag is None:
            return view
        history = self._client.history(tag.name, limit=_RECENT)
        decided = [r for r in history.experiments if r.finished_at]
        return replace(
            view,
            summary=self._client.summary(tag.name),
            strategy=self._client.strategy(tag.name),
            queue=_in_line(self._client.export_page(tag.name, status="queued", limit=_QUEUE).rows),
            recent=sorted(decided, key=lambda r: r.finished_at or "", reverse=True),
            best=self._best(tag, before.best if before else None),
        )

    def glance(self, view: View) -> View:
        pool = self._client.pool()
        return replace(view, as_of=time.time(), pool=pool, running=self._runs(pool))

    def _tag(self, pool: schemas.PoolAnswer) -> schemas.TagInfo | None:
        """The one asked for; else that of the first run; else the newest."""
        tags = {tag.name: tag for tag in self._client.tags()}
        if self._wanted is not None:
            if self._wanted not in tags:
                raise CommandError(
                    f"no tag '{self._wanted}'. `autoresearch setup {self._wanted}` creates it.",
                    tags=list(tags),
                )
            return tags[self._wanted]
        busy = [w.current_experiment_id for w in pool.workers if w.current_experiment_id]
        names = [name for run in busy if (name := run[_TAG_AT:]) in tags]
        return tags[names[0]] if names else next(iter(tags.values()), None)

    def _runs(self, pool: schemas.PoolAnswer) -> dict[str, schemas.ExperimentDetail]:
        ids = [w.current_experiment_id for w in pool.workers if w.current_experiment_id]
        found = {}
        for experiment_id in ids[:SHOWN_RUNS]:
            try:
                found[experiment_id] = self._client.experiment(experiment_id)
            except ApiError:  # it belongs to no experiment of this Redis, or no longer
                continue
        return found

    def _best(
        self, tag: schemas.TagInfo, before: schemas.ExperimentDetail | None
    ) -> schemas.ExperimentDetail | None:
        if tag.best_experiment_id is None:
            return None
        if before is not None and before.id == tag.best_experiment_id:
            return before  # a record never changes once it is decided
        return self._client.experiment(tag.best_experiment_id)


def _in_line(queued: Sequence[schemas.ExportRow]) -> list[schemas.ExportRow]:
    """Higher priority first, then arrival."""
    return sorted(queued, key=lambda row: (-row.priority, row.created_at))
