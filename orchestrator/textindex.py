"""Finds experiments by the words of an idea: one SQLite FTS5 file a tag, a cache below the home.

It holds no state of its own: what it indexes comes from the store, in order of creation, and a file
that is lost, damaged or of another tag of that name is made anew. Processes of one host share it.
The cost of a search is bounded, however many experiments there are: of a word that is everywhere
only the POSTINGS newest experiments are looked at, and older ones if they also have a rare word of
the idea. Functions block.
"""

import fcntl
import heapq
import math
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import Unavailable

POSTINGS = 1000
MAX_WORDS = 24
_FORMAT = 1
_BUSY_SECONDS = 5.0
_TOKENIZER = "porter unicode61 remove_diacritics 2"

_WORD = re.compile(r"[^\W_]+")
# They match everything and say nothing; porter does not leave them out.
_STOP = frozenset(
    (
        "a", "an", "and", "are", "as", "at", "be", "because", "by", "for", "from", "has", "have",
        "in", "is", "it", "its", "of", "on", "or", "should", "so", "than", "that", "the", "their",
        "then", "this", "to", "was", "we", "were", "which", "will", "with", "would",
    )
)  # fmt: skip
_SCHEMA = f"""
CREATE TABLE about (name TEXT PRIMARY KEY, value INTEGER);
CREATE TABLE experiment (n INTEGER PRIMARY KEY, id TEXT NOT NULL, created INTEGER NOT NULL);
CREATE VIRTUAL TABLE words USING fts5(text, content='', detail=none, tokenize='{_TOKENIZER}');
PRAGMA user_version = {_FORMAT};
"""


@dataclass(frozen=True)
class Document:
    """An experiment as the index sees it. `created_us` grows from one to the next."""

    id: str
    created_us: int
    text: str


@dataclass(frozen=True)
class Match:
    """`share` is how much of the idea's words it has, rare words counting most: 0 to 1."""

    id: str
    share: float


class TextIndex:
    """The index of one tag; `tag_created_us` tells it from another that had the same name."""

    def __init__(self, path: Path, tag_created_us: int) -> None:
        self._path = path
        self._tag_created_us = tag_created_us

    def newest_us(self) -> int:
        """When the newest indexed experiment was created; 0 where there is none."""
        with self._opened() as database:
            return _last(database)[1]

    def size(self) -> int:
        with self._opened() as database:
            return _last(database)[0]

    def add(self, documents: Sequence[Document]) -> None:
        """Index what comes after the newest; what another process has added meanwhile is passed
        over."""
        with self._opened() as database:
            database.execute("PRAGMA synchronous = OFF")  # a cache: what is lost is made anew
            database.execute("BEGIN IMMEDIATE")
            number, newest_us = _last(database)
            for document in documents:
                if document.created_us > newest_us:
                    number, newest_us = number + 1, document.created_us
                    database.execute(
                        "INSERT INTO experiment VALUES (?, ?, ?)", (number, document.id, newest_us)
                    )
                    database.execute(
                        "INSERT INTO words(rowid, text) VALUES (?, ?)", (number, document.text)
                    )
            database.execute("COMMIT")

    def search(self, idea: str, limit: int) -> list[Match]:
        """The experiments that share most with `idea`, the newer first of two that share alike."""
        with self._opened() as database:
            total, _ = _last(database)
            words = [_Word.of(database, word, total) for word in _words(idea)]
            rare = " OR ".join(f'"{word.text}"' for word in words if not word.common)
            scores: dict[int, float] = defaultdict(float)
            for word in words:
                for number in word.found | word.older(database, rare):
                    scores[number] += word.weight
            best = heapq.nlargest(limit, scores.items(), key=lambda item: (item[1], item[0]))
            whole = sum(word.weight for word in words)
            return [Match(_id_of(database, number), score / whole) for number, score in best]

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The database, in autocommit; a file that is no index of this tag is replaced first.

        Raises `Unavailable` where the disk or this Python's SQLite does not do it.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connected()) as database:
                yield database
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, sqlite3.DatabaseError) and _is_damage(error):
                self._path.unlink(missing_ok=True)  # the next call makes it anew
            raise Unavailable(
                f"The index of ideas cannot be used now: {error}.", reason="disk"
            ) from error

    def _connected(self) -> sqlite3.Connection:
        return self._known() or self._made()

    def _known(self) -> sqlite3.Connection | None:
        """The file, if it is this tag's index."""
        database = self._connect()
        try:
            if _is_of(database, self._tag_created_us):
                return database
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                database.close()
                raise
        database.close()
        return None

    def _made(self) -> sqlite3.Connection:
        """A new index in place of the file. It is made under another name, since a second process
        must neither find half of it nor delete it."""
        with self._path.with_suffix(".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if database := self._known():  # another process was faster
                return database
            draft = self._path.with_suffix(".new")
            draft.unlink(missing_ok=True)
            with closing(sqlite3.connect(draft, isolation_level=None)) as database:
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                values = ("tag_created", self._tag_created_us)
                database.execute("INSERT INTO about VALUES (?, ?)", values)
            # What was under way in the old file must not be rolled back into the new one.
            self._path.with_name(self._path.name + "-journal").unlink(missing_ok=True)
            draft.replace(self._path)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)


def _is_of(database: sqlite3.Connection, tag_created_us: int) -> bool:
    if database.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
        return False
    row = database.execute("SELECT value FROM about WHERE name = 'tag_created'").fetchone()
    return bool(row and row[0] == tag_created_us)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # Its subclass OperationalError is the system's fault (locked, full, no such module).
    return not isinstance(error, sqlite3.OperationalError)


def _last(database: sqlite3.Connection) -> tuple[int, int]:
    """Number and moment of the newest experiment; numbers have no gaps."""
    row = database.execute("SELECT n, created FROM experiment ORDER BY n DESC LIMIT 1").fetchone()
    return (row[0], row[1]) if row else (0, 0)


def _id_of(database: sqlite3.Connection, number: int) -> str:
    row = database.execute("SELECT id FROM experiment WHERE n = ?", (number,)).fetchone()
    return str(row[0])


def _words(idea: str) -> list[str]:
    """The idea's words, each once; identifiers such as MATRIX_LR count as their parts."""
    words = dict.fromkeys(word.lower() for word in _WORD.findall(idea[:20_000]))
    return [word for word in words if word not in _STOP][:MAX_WORDS]


@dataclass(frozen=True)
class _Word:
    """A word of an idea, the newest experiments with it, and how much it tells."""

    text: str
    found: set[int]
    weight: float

    @classmethod
    def of(cls, database: sqlite3.Connection, text: str, total: int) -> "_Word":
        rows = database.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid DESC LIMIT ?",
            (f'"{text}"', POSTINGS),
        )
        found = {row[0] for row in rows}
        # Of a word that is everywhere, from how far back the newest ones reach.
        seen = total - min(found) + 1 if len(found) == POSTINGS else total
        frequency = max(1.0, len(found) * total / max(1, seen))
        return cls(text, found, math.log1p(total / frequency))

    @property
    def common(self) -> bool:
        return len(self.found) == POSTINGS

    def older(self, database: sqlite3.Connection, rare: str) -> set[int]:
        """Experiments with this word, where it is common, beyond the newest: those that have a
        `rare` one too."""
        if not self.common or not rare:
            return set()
        query = f'"{self.text}" AND ({rare})'
        rows = database.execute(
            "SELECT rowid FROM words WHERE words MATCH ? AND rowid < ?", (query, min(self.found))
        )
        return {row[0] for row in rows}
