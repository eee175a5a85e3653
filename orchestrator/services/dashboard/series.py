"""A tag's history for pages, read from the journal once and then kept up to date in memory.

What a process keeps another can do without: when it starts it reads the journals from their
beginning, about a second for 100 000 runs, and from then on only what is new.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from orchestrator import schemas
from orchestrator.domain import Status, Strategy, Tag, rfc3339
from orchestrator.errors import Invalid, Unavailable
from orchestrator.ids import id_of
from orchestrator.rules.series import WORDS, Filter, Series
from orchestrator.services import views
from orchestrator.services.dashboard.response_cache import Body, ResponseCache
from orchestrator.store.connection import Store
from orchestrator.store.reads import Entry, Keep

# Rows whose JSON is kept: all but the last block of a history never change.
BLOCK_ROWS = 5000
TAGS_KEPT = 32
# How many runs one search looks at before it lets the page ask for more.
SCAN_LIMIT = 2000
SCAN_CHUNK = 250
ACTIVE_LIMIT = 100
DESCRIPTION_CHARACTERS = 160
ERROR_CHARACTERS = 200
IDS_LIMIT = 50


@dataclass
class Book:
    """A tag's series, and up to where it has been read."""

    tag: Tag
    series: Series = field(default_factory=Series)
    keeps: list[Keep] = field(default_factory=list)
    journal_id: str = "-"
    place: str = ""  # of the event stream, when it was read
    blocks: dict[int, str] = field(default_factory=dict)
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class SeriesReports:
    def __init__(self, store: Store, response_cache: ResponseCache) -> None:
        self._store = store
        self._cache = response_cache
        self._books: OrderedDict[str, Book] = OrderedDict()

    async def warm_up(self) -> None:
        """Read the newest tags' histories before a page asks for them. What fails is left to it."""
        with suppress(Unavailable):
            for tag in (await self._store.reads.tags())[:TAGS_KEPT]:
                await self._book(tag.name, await self._store.events.last_id())

    # ------------------------------------------------------------------------ the columns

    async def series(self, request: schemas.SeriesRequest) -> Body:
        """`SeriesAnswer` as JSON. Raises `NotFound`."""

        async def make(place: str) -> bytes:
            book = await self._book(request.tag, place)
            strategy = (await self._store.experiments.snapshot(request.tag)).strategy
            return _series_json(book, strategy, request.since).encode()

        return await self._cache.body(("series", request.tag, request.since), make)

    async def _book(self, tag_name: str, place: str) -> Book:
        """The tag's book with all that had happened at `place` of the event stream."""
        tag = await self._store.reads.tag(tag_name)
        book = self._books.get(tag_name)
        # A backup that was put back may hold less than what is in memory.
        if (
            book is None
            or book.tag.created_us != tag.created_us
            or book.tag.revision > tag.revision
        ):
            book = self._books[tag_name] = Book(tag)
            while len(self._books) > TAGS_KEPT:
                self._books.popitem(last=False)
        self._books.move_to_end(tag_name)
        async with book.reading:
            if book.place != place:
                await self._read_on(book)
                book.tag, book.place = tag, place
        return book

    async def _read_on(self, book: Book) -> None:
        async for entry in self._store.journal.entries(book.tag.name, book.journal_id):
            book.series.append(entry)
            book.journal_id = entry.id
        last = book.keeps[-1].decided_us if book.keeps else 0
        book.keeps += await self._store.journal.keeps_after(book.tag.name, last)

    # ------------------------------------------------------------------------ the table

    async def runs(self, request: schemas.RunsRequest) -> Body:
        """`RunsAnswer` as JSON. Raises `NotFound`, `Invalid`."""

        async def make(place: str) -> bytes:
            book = await self._book(request.tag, place)
            if request.ids:
                answer = await self._by_id(book, request.ids.split(","))
            else:
                answer = await self._page(book, request)
            return answer.model_dump_json().encode()

        return await self._cache.body(("runs", request.model_dump_json()), make)

    async def _by_id(self, book: Book, ids: Sequence[str]) -> schemas.RunsAnswer:
        if len(ids) > IDS_LIMIT:
            raise Invalid(f"ids: at most {IDS_LIMIT} at a time")
        entries = await self._store.reads.entries(book.tag.name, ids)
        rows = [_row(book, entry) for entry in entries]
        counts = (await self._store.experiments.snapshot(book.tag.name)).counts
        return schemas.RunsAnswer(
            running=counts.running,
            queued=counts.queued,
            active=[],
            rows=rows,
            next_cursor=None,
            scanned=0,
        )

    async def _page(self, book: Book, request: schemas.RunsRequest) -> schemas.RunsAnswer:
        words = [word for word in request.status.split(",") if word]
        letters = frozenset().union(*(WORDS.get(word, frozenset()) for word in words))
        wanted = Filter(
            letters=letters if words else None,
            category=request.cat or None,
            since_us=_moment(request.since),
        )
        text = request.q.casefold()
        after = book.series.rows(request.sort, request.cursor, wanted)
        rows = list(islice(after, SCAN_LIMIT if text else request.limit))
        more = next(after, None) is not None
        found, scanned = await self._mentioning(book, rows, text, request.limit)
        counts = (await self._store.experiments.snapshot(book.tag.name)).counts
        return schemas.RunsAnswer(
            running=counts.running,
            queued=counts.queued,
            active=await self._active(book, request, words),
            rows=[_row(book, entry) for entry in found],
            next_cursor=rows[scanned - 1] if more or scanned < len(rows) else None,
            scanned=scanned,
        )

    async def _mentioning(
        self, book: Book, rows: Sequence[int], text: str, limit: int
    ) -> tuple[list[Entry], int]:
        """The first `limit` of `rows` that have `text` in them, and how many were looked at."""
        found: list[Entry] = []
        scanned = 0
        for start in range(0, len(rows), SCAN_CHUNK):
            chunk = rows[start : start + SCAN_CHUNK]
            ids = [id_of(book.series.created_us[row], book.tag.name) for row in chunk]
            for entry in await self._store.reads.entries(book.tag.name, ids):
                scanned += 1
                if _mentions(entry, text):
                    found.append(entry)
                if len(found) == limit:
                    return found, scanned
        return found, scanned

    async def _active(
        self, book: Book, request: schemas.RunsRequest, words: Sequence[str]
    ) -> list[schemas.RunRow]:
        """Running runs and then queued ones, the newest first."""
        if request.cursor is not None or request.sort != "newest" or request.since:
            return []
        rows = []
        for status in (Status.RUNNING, Status.QUEUED):
            if words and status.value not in words:
                continue
            page = await self._store.reads.history(book.tag.name, status, ACTIVE_LIMIT, None)
            rows += [
                _row(book, entry)
                for entry in reversed(page.entries)
                if request.cat in ("", entry.experiment.category)
                and _mentions(entry, request.q.casefold())
            ]
        return rows[:ACTIVE_LIMIT]


def _moment(text: str) -> int | None:
    if not text:
        return None
    try:
        return views.microseconds(text)
    except ValueError as error:
        raise Invalid("since: a moment such as 2026-03-11T09:30:00Z") from error


def _mentions(entry: Entry, text: str) -> bool:
    experiment = entry.experiment
    if not text:
        return True
    return text in f"{experiment.hypothesis}\n{experiment.description}\n{experiment.id}".casefold()


def _row(book: Book, entry: Entry) -> schemas.RunRow:
    experiment, run = entry.experiment, entry.run
    row = None if run.finished_us is None else book.series.row_of(run.finished_us)
    completed = run.status in (Status.KEEP, Status.DISCARD)
    return schemas.RunRow(
        n=None if row is None else row + 1,
        id=experiment.id,
        status=run.status.value,
        reason=run.reason,
        near=row is not None and book.series.status[row] in WORDS["near"],
        val_bpb=run.metrics.val_bpb if completed and run.metrics else None,
        best_before=run.best_before,
        category=experiment.category,
        description=(experiment.description or experiment.hypothesis)[:DESCRIPTION_CHARACTERS],
        error=run.error[-ERROR_CHARACTERS:] if run.error else None,
        parent_id=experiment.parent_id,
        gpu_id=run.gpu_id,
        peak_vram_mb=run.metrics.peak_vram_mb if run.metrics else None,
        created_at=rfc3339(experiment.created_us),
        started_at=None if run.started_us is None else rfc3339(run.started_us),
        finished_at=None if run.finished_us is None else rfc3339(run.finished_us),
    )


# ---------------------------------------------------------------------------- JSON


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _known(book: Book, cursor: str | None) -> tuple[int, int, int]:
    """Rows, choices and keeps that the reader holds: none if its cursor is of another history."""
    if cursor is None:
        return 0, 0, 0
    created, *counts = cursor.split(".")
    rows, choices, keeps = map(int, counts)
    series = book.series
    if int(created, 16) != book.tag.created_us or rows > len(series):
        return 0, 0, 0
    return rows, min(choices, len(series.choices)), min(keeps, len(book.keeps))


def _series_json(book: Book, strategy: Strategy, cursor: str | None) -> str:
    series = book.series
    rows, choices, keeps = _known(book, cursor)
    head = {
        "tag": book.tag.name,
        "cursor": f"{book.tag.created_us:x}.{len(series)}.{len(series.choices)}.{len(book.keeps)}",
        "first": rows,
        "total": len(series),
        "categories": list(series.categories),
        "near_miss_threshold": book.tag.near_miss_threshold,
        "strategy": {
            "mode": strategy.mode,
            "reason": strategy.reason,
            "pinned": strategy.pinned,
            "at": rfc3339(strategy.updated_us),
        },
        "choices": [
            {
                "after": choice.after,
                "mode": choice.mode,
                "reason": choice.reason,
                "pinned": choice.pinned,
                "at": rfc3339(choice.at_us),
            }
            for choice in series.choices[choices:]
        ],
        "keeps": [
            {
                "n": (series.row_of(keep.decided_us) or 0) + 1,
                "description": keep.description[:DESCRIPTION_CHARACTERS],
            }
            for keep in book.keeps[keeps:]
        ],
    }
    return f'{_json(head)[:-1]},"blocks":[{",".join(_blocks(book, rows))}]}}'


def _blocks(book: Book, first: int) -> Iterator[str]:
    """The rows from `first` on as JSON, a block at a time; whole blocks are kept."""
    total = len(book.series)
    while first < total:
        stop = min(first - first % BLOCK_ROWS + BLOCK_ROWS, total)
        whole = stop - first == BLOCK_ROWS
        text = book.blocks.get(first) if whole else None
        if text is None:
            text = _json(book.series.block(first, stop))
        if whole:
            book.blocks[first] = text
        yield text
        first = stop
