"""What was already tried near an idea: keeps the text index up with the store, and searches it.

A search first indexes what is new. Where that is much, as after the loss of the index, it takes a
part and leaves the rest to `run`, so that no call waits long; its answer says how much it searched.
"""

import asyncio
import logging

import anyio

from orchestrator import schemas
from orchestrator.domain import Tag
from orchestrator.errors import AutoresearchError
from orchestrator.services import views
from orchestrator.settings import HomePaths
from orchestrator.store.connection import Store
from orchestrator.store.reads import Entry
from orchestrator.textindex import Document, TextIndex

logger = logging.getLogger(__name__)

# What one call indexes by itself; a hundred experiments take some 10 ms.
CALL_LIMIT = 500
CHUNK = 100
_REST_SECONDS = 0.02
_TEXT_CHARACTERS = 4000


class Memory:
    def __init__(self, store: Store, paths: HomePaths) -> None:
        self._store = store
        self._paths = paths
        self._behind: asyncio.Queue[Tag] = asyncio.Queue()

    async def similar(self, request: schemas.SimilarRequest) -> schemas.SimilarAnswer:
        """The experiments whose hypothesis or diff summary has most in common with the idea.

        Raises `Unavailable` where the index cannot be kept.
        """
        tag = await self._store.reads.tag(request.tag)
        index = self._index(tag)
        if await self._catch_up(tag, index, CALL_LIMIT):
            self._behind.put_nowait(tag)
        matches = await anyio.to_thread.run_sync(index.search, request.idea, request.limit)
        share = {match.id: match.share for match in matches}
        entries = await self._store.reads.entries(tag.name, list(share))
        return schemas.SimilarAnswer(
            near=[
                schemas.Near(
                    **vars(views.tried(entry, tag.best_val_bpb)),
                    match=round(share[entry.experiment.id], 3),
                )
                for entry in entries
            ],
            searched=await anyio.to_thread.run_sync(index.size),
            total=await self._store.reads.number_of_all(tag.name),
        )

    async def run(self) -> None:
        """Index for ever what calls have left over, a little at a time."""
        while True:
            tag = await self._behind.get()
            try:
                index = self._index(tag)
                more = True
                while more:
                    more = await self._catch_up(tag, index, CHUNK)
                    await anyio.sleep(_REST_SECONDS)
            except AutoresearchError as error:  # the next call that is left behind comes again
                logger.warning("Indexing %s: %s", tag.name, error)

    def _index(self, tag: Tag) -> TextIndex:
        return TextIndex(self._paths.text_index(tag.name), tag.created_us)

    async def _catch_up(self, tag: Tag, index: TextIndex, limit: int) -> bool:
        """Index up to `limit` new experiments; True if there are more."""
        newest_us = await anyio.to_thread.run_sync(index.newest_us)
        done = 0
        while done < limit:
            entries = await self._store.reads.created_after(tag.name, newest_us, CHUNK)
            if entries:
                await anyio.to_thread.run_sync(index.add, [_document(entry) for entry in entries])
                newest_us = entries[-1].experiment.created_us
                done += len(entries)
            if len(entries) < CHUNK:
                return False
        return True


def _document(entry: Entry) -> Document:
    experiment = entry.experiment
    texts = (experiment.hypothesis, experiment.description, experiment.diff_summary)
    text = "\n".join(text[:_TEXT_CHARACTERS] for text in dict.fromkeys(texts))
    # Lone surrogates come through JSON escapes, and are no text for SQLite.
    clean = text.encode(errors="replace").decode()
    return Document(experiment.id, experiment.created_us, clean)
