"""Finds experiments by the words of an idea: one SQLite FTS5 file per tag, a cache below the home.

- What it indexes comes from the store, in order of creation. A file that is lost, damaged, or of an
  earlier tag of that name is created again, empty, and the caller fills it.
- Processes of one host share the file.
- Order is SQLite's own bm25. It scores every experiment that shares a word with the idea, so the
  cost of a search grows with the tag.

Functions block.
"""

import fcntl
import json
import re
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import Unavailable

MAX_WORDS = 24
_FORMAT = 2
_BUSY_SECONDS = 5.0

_WORD = re.compile(r"[^\W_]+")
# They match everything and say nothing; porter does not leave them out.
_STOP = frozenset(
    (
        "a", "an", "and", "are", "as", "at", "be", "because", "by", "for", "from", "has", "have",
        "in", "is", "it", "its", "of", "on", "or", "should", "so", "than", "that", "the", "their",
        "then", "this", "to", "was", "we", "were", "which", "will", "with", "would",
    )
)  # fmt: skip
# An experiment's row id is the moment of its creation, which no other of its tag has.
_SCHEMA = """
CREATE VIRTUAL TABLE idea
USING fts5(text, content='', tokenize='porter unicode61 remove_diacritics 2')
"""
_SEARCH = "SELECT rowid FROM idea WHERE idea MATCH ? ORDER BY rank, rowid DESC LIMIT ?"
_WITH_WORD = """
SELECT rowid FROM idea WHERE idea MATCH ? AND rowid IN (SELECT value FROM json_each(?))
"""


@dataclass(frozen=True)
class Document:
    """An experiment as the index sees it. `created_us` grows from one to the next."""

    created_us: int
    text: str


@dataclass(frozen=True)
class Match:
    """`share` is how many of the idea's words the experiment has: above 0, up to 1 for all."""

    created_us: int
    share: float


class TextIndex:
    """The index of one tag; `tag_created_us` tells it from an earlier tag of the same name."""

    def __init__(self, path: Path, tag_created_us: int) -> None:
        self._path = path
        self._version = zlib.crc32(f"{_FORMAT} {tag_created_us}".encode()) >> 1  # 31 bits

    def newest_us(self) -> int:
        """When the newest indexed experiment was created; 0 if there is none."""
        with self._opened() as database:
            return _newest_us(database)

    def size(self) -> int:
        with self._opened() as database:
            return int(database.execute("SELECT count(*) FROM idea").fetchone()[0])

    def add(self, documents: Sequence[Document]) -> None:
        """Index the documents after the newest one: another process may have added the others."""
        with self._opened() as database:
            database.execute("PRAGMA synchronous = OFF")  # a cache: what is lost is indexed again
            database.execute("BEGIN IMMEDIATE")
            newest_us = _newest_us(database)
            database.executemany(
                "INSERT INTO idea(rowid, text) VALUES (?, ?)",
                [(one.created_us, one.text) for one in documents if one.created_us > newest_us],
            )
            database.execute("COMMIT")

    def search(self, idea: str, limit: int) -> list[Match]:
        """The best matches by bm25, which counts rare words most; of equal ones the newer first."""
        words = _words(idea)
        if not words:
            return []
        with self._opened() as database:
            found = _rows(database, _SEARCH, " OR ".join(words), limit)
            shared = Counter(
                row
                for word in words
                for row in _rows(database, _WITH_WORD, word, json.dumps(found))
            )
        return [Match(row, shared[row] / len(words)) for row in found]

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The database, in autocommit; a file that is no index of this tag is replaced first.

        Raises `Unavailable` if the disk or this Python's SQLite cannot do it.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._existing() or self._created()) as database:
                yield database
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, sqlite3.DatabaseError) and _is_damage(error):
                self._path.unlink(missing_ok=True)  # the next call creates it again
            raise Unavailable(
                f"The index of ideas cannot be used now: {error}.", reason="disk"
            ) from error

    def _existing(self) -> sqlite3.Connection | None:
        """The file, if it is this tag's index."""
        database = self._connect()
        try:
            if database.execute("PRAGMA user_version").fetchone()[0] == self._version:
                return database
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                database.close()
                raise
        database.close()
        return None

    def _created(self) -> sqlite3.Connection:
        """A new index in place of the file.

        It is written under another name, and under a lock: a second process must neither find half
        of it nor delete it.
        """
        with self._path.with_suffix(".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if database := self._existing():  # another process was faster
                return database
            draft = self._path.with_suffix(".new")
            draft.unlink(missing_ok=True)
            with closing(sqlite3.connect(draft, isolation_level=None)) as database:
                database.execute(_SCHEMA)
                database.execute(f"PRAGMA user_version = {self._version}")
            # The old file's unfinished transaction must not be rolled back into the new one.
            self._path.with_name(self._path.name + "-journal").unlink(missing_ok=True)
            draft.replace(self._path)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # Its subclass OperationalError is the system's fault (locked, full, no such module).
    return not isinstance(error, sqlite3.OperationalError)


def _newest_us(database: sqlite3.Connection) -> int:
    row = database.execute("SELECT rowid FROM idea ORDER BY rowid DESC LIMIT 1").fetchone()
    return int(row[0]) if row else 0


def _rows(database: sqlite3.Connection, query: str, *values: str | int) -> list[int]:
    return [row[0] for row in database.execute(query, values)]


def _words(idea: str) -> list[str]:
    """The idea's words, each once and quoted for FTS5; identifiers such as MATRIX_LR count as their
    parts."""
    words = dict.fromkeys(word.lower() for word in _WORD.findall(idea[:20_000]))
    return [f'"{word}"' for word in words if word not in _STOP][:MAX_WORDS]
