"""What an orchestrator keeps apart from Redis: sources by their hash, logs and curves by run, the
key of the journal's seals and their notes. No Redis, no HTTP.

`Files` is what services see. It is a folder (folder.py) or a bucket of an object store (bucket.py);
orchestrators on one Redis share it. A write that was acknowledged is kept whole, and the same write
may be sent again, also by another orchestrator. Methods block; services call them in threads.
"""

import gzip
import hashlib
import json
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from orchestrator.errors import NotFound, SetupError, Unavailable
from orchestrator.ids import AttemptId, tag_of
from orchestrator.settings import HomePaths, Settings

# The end of a finished log that is kept uncompressed: as much as the log's page reads at first.
LOG_TAIL_BYTES = 256 * 1024
# Dotted names are unfinished writes.
NAME = re.compile(r"[^./\x00][^/\x00]{0,199}")


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Raise `NotFound` for a missing file, and `Unavailable` for a full or read-only disk and for
    damaged gzip data: the operator has to look."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"No {what}.") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unavailable(f"Cannot read or write {what}: {reason}.", reason="disk") from error


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def checked_secret(text: str, place: str) -> str:
    """Raises SetupError for a text that is none of ours."""
    if re.fullmatch("[0-9a-f]{64}", text.strip()) is None:
        raise SetupError(
            f"{place} does not hold the 64 hexadecimal digits that were written there: put it back "
            "from a copy, or remove it to have a new one made."
        )
    return text.strip()


@dataclass(frozen=True)
class Slice:
    """Bytes `start` to `start + len(data)` of a log of `total` bytes."""

    data: bytes
    start: int
    total: int


class Files(ABC):
    """`place` says where they are, for people. Methods raise `Unavailable` where nothing can be
    read or written now, and `NotFound`."""

    place: str

    def __init__(self, paths: HomePaths) -> None:
        self._paths = paths

    @abstractmethod
    def check(self) -> None:
        """Raise `Unavailable` if the place is not there, or is another one than before."""

    @abstractmethod
    def _read(self, path: Path) -> bytes:
        """Raises FileNotFoundError, and OSError or `Unavailable`, as do the next two."""

    @abstractmethod
    def _write(self, path: Path, data: bytes) -> None:
        """Replace the whole file in one step, and return when it is durable."""

    @abstractmethod
    def _exists(self, path: Path) -> bool: ...

    # -- sources

    def put_source(self, text: str) -> str:
        """Keep a source; answers its SHA-256. Equal sources are kept once."""
        sha256 = sha256_of(text)
        path = self._paths.source(sha256)
        with disk_errors("source"):
            if not self._exists(path):
                self._write(path, gzip.compress(text.encode(), mtime=0))
        return sha256

    def has_source(self, text: str) -> bool:
        return self._exists(self._paths.source(sha256_of(text)))

    def source(self, sha256: str) -> str:
        """The source with this hash. Raises `NotFound`; a damaged file is `Unavailable`."""
        with disk_errors(f"source {sha256}"):
            data = gzip.decompress(self._read(self._paths.source(sha256)))
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Unavailable(f"The stored source {sha256} is damaged: its hash differs.")
        return data.decode()

    # -- logs

    @abstractmethod
    def append_log(
        self, tag: str, experiment_id: str, epoch: int, offset: int, data: bytes
    ) -> None:
        """Write a chunk at its offset. It may come again, also cut in another way."""

    @abstractmethod
    def close_log(self, tag: str, experiment_id: str, epoch: int) -> None:
        """Compress a finished attempt's log, and keep its end beside it uncompressed.

        Does nothing if there is no log, or if it is closed already.
        """

    @abstractmethod
    def read_log(
        self, tag: str, experiment_id: str, epoch: int, start: int, length: int | None
    ) -> Slice:
        """Bytes of a log, closed or not; a negative `start` counts from the end. Raises `NotFound`.

        Of a closed log the last `LOG_TAIL_BYTES` cost one small file; anything else is decompressed
        from the beginning.
        """

    @abstractmethod
    def log_place(self, tag: str, experiment_id: str, epoch: int) -> str:
        """Where an attempt's log is now, for people."""

    @abstractmethod
    def open_logs(self) -> Sequence[AttemptId]:
        """Attempts whose log is not closed; those that are over lost their orchestrator before it
        could. A folder has none: it reads and keeps an open log as well as a closed one."""

    # -- curves

    def _curve_paths(self, tag: str, experiment_id: str) -> tuple[Path, ...]:
        """Where the last curve of a run is, and where those before it are."""
        return (self._paths.curve(tag, experiment_id),)

    def put_curve(
        self, tag: str, experiment_id: str, points: list[dict[str, Any]], *, final: bool = False
    ) -> None:
        """Replace a run's curve; `final` if it is that of its report."""
        path = self._curve_paths(tag, experiment_id)[0 if final else -1]
        with disk_errors("curve"):
            self._write(path, json.dumps(points).encode())

    def curve(self, tag: str, experiment_id: str) -> list[dict[str, Any]]:
        """The learning curve, empty where there is none."""
        for path in self._curve_paths(tag, experiment_id):
            with suppress(NotFound), disk_errors("curve"):
                points: list[dict[str, Any]] = json.loads(self._read(path))
                return points
        return []

    def curves(self, experiment_ids: Sequence[str]) -> list[list[dict[str, Any]]]:
        """The curves of many runs, in this order."""
        return [self.curve(tag_of(each), each) for each in experiment_ids]

    # -- the journal's seals

    @abstractmethod
    def journal_key(self) -> str:
        """The key that seals the journals; made on first use, and once, however many orchestrators
        ask at the same moment. Raises SetupError."""

    def has_journal_key(self) -> bool:
        return self._exists(self._paths.journal_key)

    @abstractmethod
    def note_seal(self, tag: str, line: str) -> None:
        """Add a line to a tag's notes. Raises OSError, `Unavailable`."""

    @abstractmethod
    def noted_seals(self, tag: str) -> str:
        """A tag's notes, in no order of orchestrators."""

    @abstractmethod
    def noted_tags(self) -> list[str]: ...

    @abstractmethod
    def forget_notes(self) -> None:
        """Begin again with a journal that was put back on purpose."""

    # -- what a backup holds, by names that do not depend on the place

    @abstractmethod
    def names(self) -> list[str]:
        """Every file that a backup holds now, such as `runs/TAG/ID/1.log.gz`."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Raises FileNotFoundError for one that is gone, such as a log that was closed."""

    @abstractmethod
    def put(self, path: Path, content: IO[bytes]) -> None:
        """Put a file of a backup back."""

    @abstractmethod
    def refuse_full(self, size: int) -> None:
        """Raises `Invalid` if `size` bytes do not fit."""


def open_files(settings: Settings) -> Files:
    """The files that the settings name. Raises SetupError."""
    if settings.store is None:
        from orchestrator.folder import Folder

        return Folder(settings.paths)
    try:
        from orchestrator.bucket import Bucket
    except ImportError as error:
        raise SetupError(
            "--store (AUTORESEARCH_STORE) needs a library that is not installed: "
            "pip install 'n-autoresearch[store]', or in a checkout uv sync --extra store"
        ) from error
    return Bucket(settings.store)
