"""Why runs failed. Each run is read once, since a decided run never changes."""

from collections.abc import Sequence

from orchestrator.rules.deadends import cause
from orchestrator.store.connection import Store

KEPT = 4096


class Failures:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._causes: dict[str, str | None] = {}  # None: lost by the infrastructure

    async def causes(self, tag: str, ids: Sequence[str]) -> dict[str, str]:
        """The causes of the failed runs of these ids, in the same order."""
        unknown = [one for one in ids if one not in self._causes]
        if unknown:
            for entry in await self._store.reads.entries(tag, unknown):
                self._causes[entry.experiment.id] = cause(entry.run)
            while len(self._causes) > KEPT:
                del self._causes[next(iter(self._causes))]
        return {one: why for one in ids if (why := self._causes.get(one)) is not None}
