"""`/api/report/series` and `/api/report/runs`: the columns and the table of a tag's page."""

import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

from orchestrator import schemas
from orchestrator.decisions import Snapshot
from orchestrator.domain import Run, Status, rfc3339
from orchestrator.errors import Invalid
from orchestrator.rules import early_stop, noise
from orchestrator.rules.race.state import from_json
from orchestrator.rules.series import WORDS, Filter
from orchestrator.services import views
from orchestrator.services.dashboard.history import Histories, History
from orchestrator.services.dashboard.response_cache import Body, ResponseCache
from orchestrator.store.connection import Store
from orchestrator.store.reads import Entry, Keep

# How many runs one search looks at before it lets the page ask for more.
SCAN_LIMIT = 2000
SCAN_CHUNK = 250
ACTIVE_LIMIT = 100
DESCRIPTION_CHARACTERS = 160
ERROR_CHARACTERS = 200
WHY_CHARACTERS = 300
IDS_LIMIT = 50


class SeriesReports:
    def __init__(self, store: Store, histories: Histories, response_cache: ResponseCache) -> None:
        self._store = store
        self._histories = histories
        self._cache = response_cache

    async def _history(self, tag_name: str) -> History:
        return await self._histories.of(await self._store.reads.tag(tag_name))

    async def series(self, request: schemas.SeriesRequest) -> Body:
        """`SeriesAnswer` as JSON. Raises `NotFound`."""

        async def make() -> bytes:
            history = await self._history(request.tag)
            snapshot = await self._store.experiments.snapshot(request.tag)
            return _series_json(history, snapshot, request.since).encode()

        return await self._cache.body(("series", request.tag, request.since), make)

    async def runs(self, request: schemas.RunsRequest) -> Body:
        """`RunsAnswer` as JSON. Raises `NotFound`, `Invalid`."""

        async def make() -> bytes:
            history = await self._history(request.tag)
            if request.ids:
                answer = await self._by_id(history, request.ids.split(","))
            else:
                answer = await self._page(history, request)
            return answer.model_dump_json().encode()

        return await self._cache.body(("runs", request.model_dump_json()), make)

    async def _by_id(self, history: History, ids: Sequence[str]) -> schemas.RunsAnswer:
        if len(ids) > IDS_LIMIT:
            raise Invalid(f"ids: at most {IDS_LIMIT} at a time")
        entries = await self._store.reads.entries(history.tag.name, ids)
        rows = [_row(history, entry) for entry in entries]
        counts = (await self._store.experiments.snapshot(history.tag.name)).counts
        return schemas.RunsAnswer(
            decided=len(history.series),
            running=counts.running,
            queued=counts.queued,
            candidates=counts.candidate,
            active=[],
            rows=rows,
            next_cursor=None,
            scanned=0,
        )

    async def _page(self, history: History, request: schemas.RunsRequest) -> schemas.RunsAnswer:
        if request.cursor is not None and request.cursor >= len(history.series):
            raise Invalid("cursor: the next_cursor of an earlier page, or none for the first")
        words = [word for word in request.status.split(",") if word]
        letters = frozenset().union(*(WORDS.get(word, frozenset()) for word in words))
        wanted = Filter(
            letters=letters if words else None,
            category=request.cat or None,
            since_us=_moment(request.since),
        )
        text = request.q.casefold()
        decided = len(history.series)
        after = history.series.rows(request.sort, request.cursor, wanted)
        rows = list(islice(after, SCAN_LIMIT if text else request.limit))
        more = next(after, None) is not None
        found, scanned = await self._matching(history, rows, text, request.limit)
        counts = (await self._store.experiments.snapshot(history.tag.name)).counts
        return schemas.RunsAnswer(
            decided=decided,
            running=counts.running,
            queued=counts.queued,
            candidates=counts.candidate,
            active=await self._active(history, request, words),
            rows=[_row(history, entry) for entry in found],
            next_cursor=rows[scanned - 1] if more or scanned < len(rows) else None,
            scanned=scanned,
        )

    async def _matching(
        self, history: History, rows: Sequence[int], text: str, limit: int
    ) -> tuple[list[Entry], int]:
        """The first `limit` of `rows` that have `text` in them, and how many were looked at."""
        found: list[Entry] = []
        scanned = 0
        for start in range(0, len(rows), SCAN_CHUNK):
            chunk = rows[start : start + SCAN_CHUNK]
            ids = [history.id_of(row) for row in chunk]
            for entry in await self._store.reads.entries(history.tag.name, ids):
                scanned += 1
                if _mentions(entry, text):
                    found.append(entry)
                if len(found) == limit:
                    return found, scanned
        return found, scanned

    async def _active(
        self, history: History, request: schemas.RunsRequest, words: Sequence[str]
    ) -> list[schemas.RunRow]:
        """Running runs, then candidates, then queued runs, each with the newest first."""
        if request.cursor is not None or request.sort != "newest" or request.since:
            return []
        rows = []
        for status in (Status.RUNNING, Status.CANDIDATE, Status.QUEUED):
            if words and status.value not in words:
                continue
            page = await self._store.reads.history(history.tag.name, status, ACTIVE_LIMIT, None)
            rows += [
                _row(history, entry)
                for entry in reversed(page.entries)
                if request.cat in ("", entry.experiment.category)
                and _mentions(entry, request.q.casefold())
            ]
        return rows[:ACTIVE_LIMIT]


def _moment(text: str) -> int | None:
    """µs of RFC 3339 text, None for no text. Raises `Invalid`."""
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


def _row(history: History, entry: Entry) -> schemas.RunRow:
    experiment, run, fields = entry.experiment, entry.run, views.fields_of(entry)
    row = None if run.finished_us is None else history.series.row_of(run.finished_us)
    description = experiment.description or experiment.hypothesis
    return schemas.RunRow.model_validate(
        fields
        | {
            "n": None if row is None else row + 1,
            "near": row is not None and history.series.status[row] in WORDS["near"],
            "val_bpb": fields["val_bpb"] if run.status in views.COMPLETED else None,
            "predicted": fields["predicted_val_bpb"] if run.stopped_early else None,
            "description": description[:DESCRIPTION_CHARACTERS],
            "measured_at": None if run.measured_us is None else rfc3339(run.measured_us),
            "error": run.error[-ERROR_CHARACTERS:] if run.error else None,
        }
        | _said(run)
    )


def _said(run: Run) -> dict[str, Any]:
    """The words of the keep rule, or of the early stop, on a run, where it has any."""
    verdict = run.verdict_json and views.verdict_from(run.verdict_json)
    if isinstance(verdict, schemas.StoppedVerdict):
        return {"delta": None, "confirmed": None, "why": verdict.why[:WHY_CHARACTERS]}
    if not isinstance(verdict, schemas.Verdict) or verdict.why is None:
        return {"delta": None, "confirmed": None, "why": None}
    return {
        "delta": verdict.delta,
        # A champion that made way for the one before is neither confirmed nor provisional.
        "confirmed": verdict.confirmed if verdict.improved else None,
        "why": verdict.why[:WHY_CHARACTERS],
    }


def _known(history: History, cursor: str | None) -> tuple[int, int, int]:
    """How many rows, choices and keeps the page has: none if its cursor is of another history."""
    if cursor is None:
        return 0, 0, 0
    created, *counts = cursor.split(".")
    rows, choices, keeps = map(int, counts)
    series = history.series
    if int(created, 16) != history.tag.created_us or rows > len(series):
        return 0, 0, 0
    return rows, min(choices, len(series.choices)), min(keeps, len(history.keeps))


def _race(history: History, snapshot: Snapshot) -> dict[str, Any] | None:
    """What the keep rule `race` believes now; None before the first result."""
    state = from_json(snapshot.race)
    if snapshot.tag.keep_rule != "race" or not state.champions:
        return None
    champion = state.champions[-1]
    provisional = {one.id for one in state.champions if not one.confirmed}
    keeps = [keep for keep in history.keeps if keep.experiment_id in provisional]
    return {
        "best_id": champion.id,
        "best_val_bpb": champion.belief.mean,
        "band": noise.band(state.noise.sd),
        "provisional": [_number(history, keep) for keep in keeps],
    }


def _number(history: History, keep: Keep) -> int:
    return (history.series.row_of(keep.decided_us) or 0) + 1


def _series_json(history: History, snapshot: Snapshot, cursor: str | None) -> str:
    tag, series, strategy = snapshot.tag, history.series, snapshot.strategy
    rows, choices, keeps = _known(history, cursor)
    counts = f"{len(series)}.{len(series.choices)}.{len(history.keeps)}"
    answer = {
        "tag": tag.name,
        "cursor": f"{tag.created_us:x}.{counts}",
        "first": rows,
        "total": len(series),
        "categories": list(series.categories),
        "near_miss_threshold": tag.near_miss_threshold,
        "keep_rule": tag.keep_rule,
        "early_stop": early_stop.report(snapshot),
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
                "n": _number(history, keep),
                "description": keep.description[:DESCRIPTION_CHARACTERS],
            }
            | ({"estimate": keep.val_bpb} if tag.keep_rule == "race" else {})
            for keep in history.keeps[keeps:]
        ],
        "race": _race(history, snapshot),
        "blocks": [series.block(rows, len(series))] if rows < len(series) else [],
    }
    return json.dumps(answer, separators=(",", ":"))
