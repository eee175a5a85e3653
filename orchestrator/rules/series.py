"""A tag's history as columns: every decided run, in the order of verdicts. Pure.

It is built from the journal, entry by entry, and only appended to. Cancelled runs and repeats are
left out; a candidate comes with its verdict. A run's number on the page is its row here, from 1 on.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Any

from orchestrator.domain import INFRA_LOST, Mode
from orchestrator.ids import created_us_of
from orchestrator.rules.seals import JournalEntry

KEEP, NEAR, DISCARD, CRASH, TIMEOUT, LOST = b"kndctl"
LETTERS = {"keep": KEEP, "discard": DISCARD, "crash": CRASH, "timeout": TIMEOUT}
# The letters of a filter's word: near misses are discards, and lost runs are crashes.
WORDS = {
    "keep": frozenset({KEEP}),
    "discard": frozenset({DISCARD, NEAR}),
    "near": frozenset({NEAR}),
    "crash": frozenset({CRASH, LOST}),
    "timeout": frozenset({TIMEOUT}),
}


@dataclass(frozen=True)
class Tally:
    """Finished runs by verdict; `crash` holds time-outs too, and no run lost to infrastructure."""

    finished: int = 0
    keep: int = 0
    discard: int = 0
    crash: int = 0


@dataclass(frozen=True)
class Choice:
    """A mode of the search, in force after the first `after` decided runs."""

    after: int
    mode: Mode
    reason: str
    pinned: bool
    at_us: int


@dataclass(frozen=True)
class Filter:
    """Which rows are wanted; None means all. `since_us` bounds the moment of decision."""

    letters: frozenset[int] | None = None
    category: str | None = None
    since_us: int | None = None


@dataclass
class Series:
    """The columns. A row without val_bpb holds NaN; `category` indexes `categories`."""

    created_us: "array[int]" = field(default_factory=lambda: array("q"))
    finished_us: "array[int]" = field(default_factory=lambda: array("q"))
    val_bpb: "array[float]" = field(default_factory=lambda: array("d"))
    status: bytearray = field(default_factory=bytearray)
    category: "array[int]" = field(default_factory=lambda: array("H"))
    categories: dict[str, int] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
    _by_bpb: list[int] = field(default_factory=list)  # see `_ranks`
    _ranked: int = 0

    def __len__(self) -> int:
        return len(self.status)

    def append(self, entry: JournalEntry) -> None:
        """Add the next entry of the journal."""
        if entry.kind == "decided":
            self._decided(entry)
            chosen = entry.data["decision"].get("strategy")
        else:
            chosen = entry.data.get("strategy")
        if chosen:
            self._chosen(chosen, entry.at_us)

    def _decided(self, entry: JournalEntry) -> None:
        outcome, decision = entry.data["outcome"], entry.data["decision"]
        letter = LETTERS.get(decision["status"])
        if outcome.get("reason") == INFRA_LOST:
            letter = LOST
        if letter is not None:
            outcome = decision | outcome | {"category": entry.data["category"]}
            self._add(entry.experiment_id, entry.at_us, letter, outcome)
        for later, settled in enumerate(entry.data.get("settled", ()), 1):
            self._add(settled["id"], entry.at_us + later, LETTERS[settled["status"]], settled)

    def _add(self, experiment_id: str, at_us: int, letter: int, run: Mapping[str, Any]) -> None:
        if letter == DISCARD and run.get("near") is not None:
            letter = NEAR
        # A crash may report a last value; it is no result.
        val_bpb = run.get("val_bpb", nan) if letter in (KEEP, NEAR, DISCARD) else nan
        self.created_us.append(created_us_of(experiment_id))
        self.finished_us.append(at_us)
        self.val_bpb.append(val_bpb)
        self.status.append(letter)
        self.category.append(self.categories.setdefault(run["category"], len(self.categories)))

    def _chosen(self, strategy: dict[str, Any], at_us: int) -> None:
        pinned = strategy["pinned"] == "1"
        last = self.choices[-1] if self.choices else None
        # The reason counts the last ten runs, so nearly every run changes it.
        if last is None or (last.mode, last.pinned) != (strategy["mode"], pinned):
            mode, reason = strategy["mode"], strategy["reason"]
            self.choices.append(Choice(len(self), mode, reason, pinned, at_us))

    def _ranks(self) -> list[int]:
        """Rows with a result, from best to worst; of equal ones the earlier first."""
        new = range(self._ranked, len(self))
        self._by_bpb += [row for row in new if not isnan(self.val_bpb[row])]
        self._by_bpb.sort(key=self.val_bpb.__getitem__)
        self._ranked = len(self)
        return self._by_bpb

    def _bpb_order(self, row: int) -> tuple[float, int]:
        return self.val_bpb[row], row

    def first_since(self, moment_us: int) -> int:
        """The first row decided at that moment or later; the number of rows if there is none."""
        return bisect_left(self.finished_us, moment_us)

    def row_of(self, finished_us: int) -> int | None:
        """The row decided at that moment: there is at most one."""
        row = self.first_since(finished_us)
        return row if row < len(self) and self.finished_us[row] == finished_us else None

    def tally(self, first: int) -> Tally:
        """What came of the rows from `first` on."""
        count = self.status[first:].count
        return Tally(
            finished=len(self) - first,
            keep=count(KEEP),
            discard=count(DISCARD) + count(NEAR),
            crash=count(CRASH) + count(TIMEOUT),
        )

    def rows(self, sort: str, after: int | None, wanted: Filter) -> Iterator[int]:
        """The rows after the row `after`, in the order `newest`, `oldest`, `best` or `worst`; the
        last two leave out rows without val_bpb."""
        category = None if wanted.category is None else self.categories.get(wanted.category, -1)
        letters, since = wanted.letters, wanted.since_us
        for row in self._ordered(sort, after):
            if (
                (letters is None or self.status[row] in letters)
                and (category is None or self.category[row] == category)
                and (since is None or self.finished_us[row] >= since)
            ):
                yield row

    def _ordered(self, sort: str, after: int | None) -> Iterator[int]:
        if sort == "newest":
            yield from range((len(self) if after is None else after) - 1, -1, -1)
        elif sort == "oldest":
            yield from range(0 if after is None else after + 1, len(self))
        else:
            ranks, step = self._ranks(), 1 if sort == "best" else -1
            place = 0 if step == 1 else len(ranks) - 1
            if after is not None:
                place = bisect_left(ranks, self._bpb_order(after), key=self._bpb_order) + step
            while 0 <= place < len(ranks):
                yield ranks[place]
                place += step

    def block(self, start: int, stop: int) -> dict[str, Any]:
        """Rows for JSON: moments as differences from row to row (µs of creation, which make the id;
        ms of decision), val_bpb in millionths or None, statuses as letters."""
        bpb = self.val_bpb[start:stop]
        return {
            "created_us": _differences(self.created_us[start:stop]),
            "finished_ms": _differences([us // 1000 for us in self.finished_us[start:stop]]),
            "val_bpb": [None if isnan(value) else round(value * 1e6) for value in bpb],
            "status": self.status[start:stop].decode(),
            "category": list(self.category[start:stop]),
        }


def _differences(values: "array[int] | list[int]") -> list[int]:
    """The first value, then what each adds to the one before."""
    return [b - a for a, b in zip([0, *values], values, strict=False)]
