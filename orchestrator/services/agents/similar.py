"""Finds what was already tried near an idea, in the text index of its tag.

A search first indexes new experiments. After a loss of the index that may be the whole history: the
search then indexes a part, leaves the rest to `run`, and says how much it searched.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import cache

import anyio

from orchestrator import schemas
from orchestrator.domain import Experiment, Tag
from orchestrator.errors import AutoresearchError
from orchestrator.files import Files
from orchestrator.ids import id_of
from orchestrator.services import views
from orchestrator.settings import HomePaths
from orchestrator.store.connection import Store
from orchestrator.store.reads import Entry
from orchestrator.textindex import Document, TextIndex

logger = logging.getLogger(__name__)

CALL_LIMIT = 200  # experiments that one call indexes by itself
CHUNK = 100
REST_SECONDS = 0.02  # between two chunks of `run`
_TEXT_CHARACTERS = 4000
# Of a large edit only the beginning is indexed, or it would match every idea.
_CHANGE_CHARACTERS = 1500


class SimilarIdeas:
    def __init__(self, store: Store, files: Files, paths: HomePaths) -> None:
        self._store = store
        self._files = files
        self._paths = paths
        self._behind: asyncio.Queue[Tag] = asyncio.Queue()

    async def similar(self, request: schemas.SimilarRequest) -> schemas.SimilarAnswer:
        """The experiments whose hypothesis, diff summary or changed lines share most with the idea.

        Raises `Unavailable` if the index cannot be written.
        """
        tag = await self._store.reads.tag(request.tag)
        index = self._index(tag)
        if await self._catch_up(tag, index, CALL_LIMIT):
            self._behind.put_nowait(tag)
        matches = await anyio.to_thread.run_sync(index.search, request.idea, request.limit)
        share = {id_of(match.created_us, tag.name): match.share for match in matches}
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
        """Index what calls have left over, a little at a time, until it is cancelled."""
        while True:
            tag = await self._behind.get()
            try:
                index = self._index(tag)
                more = True
                while more:
                    await anyio.sleep(REST_SECONDS)  # the call that left it is answered first
                    more = await self._catch_up(tag, index, CHUNK)
            except AutoresearchError as error:  # the next call queues the tag again
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
                documents = await self._documents(tag.name, entries)
                await anyio.to_thread.run_sync(index.add, documents)
                newest_us = entries[-1].experiment.created_us
                done += len(entries)
            if len(entries) < CHUNK:
                return False
        return True

    async def _documents(self, tag: str, entries: Sequence[Entry]) -> list[Document]:
        """The texts to index: each experiment with the lines that it changed in its parent. A
        repeat is no other idea, so it has no text."""
        parents = {e.experiment.parent_id for e in entries if e.experiment.parent_id is not None}
        sources = {
            parent.experiment.id: parent.experiment.source_sha256
            for parent in await self._store.reads.entries(tag, sorted(parents))
        }

        def read() -> list[Document]:
            source = cache(self._source)  # many experiments have the same parent
            return [
                _document(
                    e.experiment,
                    source(sources.get(e.experiment.parent_id or "")),
                    source(e.experiment.source_sha256),
                )
                if e.experiment.repeat_of is None
                else Document(e.experiment.created_us, "")
                for e in entries
            ]

        return await anyio.to_thread.run_sync(read)

    def _source(self, sha256: str | None) -> str | None:
        """The source, None for a run by hand and for a file that cannot be read. Blocks."""
        if sha256 is None:
            return None
        try:
            return self._files.source(sha256)
        except AutoresearchError as error:
            logger.warning("Indexed without its source: %s", error)
            return None


def _document(experiment: Experiment, before: str | None, after: str | None) -> Document:
    texts = dict.fromkeys((experiment.hypothesis, experiment.description, experiment.diff_summary))
    words = [text[:_TEXT_CHARACTERS] for text in texts]
    if before is not None and after is not None:
        words.append(_changed(before, after)[:_CHANGE_CHARACTERS])
    # JSON escapes may hold lone surrogates, which SQLite refuses.
    text = "\n".join(words).encode(errors="replace").decode()
    return Document(experiment.created_us, text)


def _changed(before: str, after: str) -> str:
    """The lines that only one of the two has: no diff, but the same words as one."""
    old, new = before.splitlines(), after.splitlines()
    had, has = set(old), set(new)
    changed = [line for line in new if line not in had] + [line for line in old if line not in has]
    return "\n".join(line.strip() for line in changed)
