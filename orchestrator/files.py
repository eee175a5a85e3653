"""Files below the home: sources by their hash, logs and curves by run. No Redis, no HTTP.

Orchestrators on one Redis share this folder, so every write is atomic (written aside, renamed) or
idempotent (log chunks land at their byte offset). Functions block; services call them in threads.
"""

import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import seekable
from orchestrator.errors import NotFound, Unavailable
from orchestrator.settings import HomePaths

# How many sources stay in memory: a claim follows its submission closely where GPUs are idle, and a
# thread and a file for it took half as long as the claim itself.
RECENT_SOURCES = 64


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """A disk that is full or read-only is the operator's affair: 503, and nothing half-written."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"No {what}.") from error
    except OSError as error:
        raise Unavailable(
            f"Cannot keep {what}: {error.strerror or error}.", reason="disk"
        ) from error


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Slice:
    """Bytes `start` to `start + len(data)` of a log of `total` bytes."""

    data: bytes
    start: int
    total: int


class Files:
    def __init__(self, paths: HomePaths) -> None:
        self._paths = paths
        self._recent: dict[str, str] = {}  # sources by hash, as kept or read last

    # -- sources

    def put_source(self, text: str) -> str:
        """Keep a source; answers its SHA-256. Equal sources are kept once."""
        sha256 = sha256_of(text)
        path = self._paths.source(sha256)
        with disk_errors("source"):
            if not path.exists():
                _write_atomically(path, gzip.compress(text.encode(), mtime=0))
        self._remember(sha256, text)
        return sha256

    def recent_source(self, sha256: str) -> str | None:
        """The source with this hash if it is in memory; does not block, and needs no thread."""
        return self._recent.get(sha256)

    def _remember(self, sha256: str, text: str) -> None:
        self._recent[sha256] = text
        while len(self._recent) > RECENT_SOURCES:
            self._recent.pop(next(iter(self._recent)), None)

    def source(self, sha256: str) -> str:
        """The source with this hash. Raises `NotFound`; a damaged file is `Unavailable`."""
        with disk_errors(f"source {sha256}"):
            packed = self._paths.source(sha256).read_bytes()
        try:
            text = gzip.decompress(packed).decode()
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise Unavailable(f"The stored source {sha256} is damaged: {error}.") from error
        if sha256_of(text) != sha256:
            raise Unavailable(f"The stored source {sha256} is damaged: its hash differs.")
        return text

    # -- logs

    def append_log(
        self, tag: str, experiment_id: str, epoch: int, offset: int, data: bytes
    ) -> None:
        """Write a chunk at its offset; a chunk sent twice lands on itself."""
        path = self._paths.live_log(tag, experiment_id, epoch)
        with disk_errors("log"):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                while data:  # a disk that fills up takes a part without an error
                    written = os.pwrite(handle, data, offset)
                    data, offset = data[written:], offset + written
            finally:
                os.close(handle)

    def close_log(self, tag: str, experiment_id: str, epoch: int) -> None:
        """Compress a finished attempt's log; no log, or closed already: nothing to do."""
        live = self._paths.live_log(tag, experiment_id, epoch)
        closed = self._paths.closed_log(tag, experiment_id, epoch)
        aside = closed.with_name(f".{closed.name}.{os.getpid()}")
        try:
            with live.open("rb") as source, aside.open("wb") as target:
                seekable.pack(source, target)
            aside.replace(closed)
            live.unlink(missing_ok=True)
        except OSError as error:
            aside.unlink(missing_ok=True)
            if not isinstance(error, FileNotFoundError):
                raise

    def log_path(self, tag: str, experiment_id: str, epoch: int) -> Path:
        """Where an attempt's log is now: compressed once the run has ended."""
        closed = self._paths.closed_log(tag, experiment_id, epoch)
        return closed if closed.exists() else self._paths.live_log(tag, experiment_id, epoch)

    def read_log(
        self, tag: str, experiment_id: str, epoch: int, start: int, length: int | None
    ) -> Slice:
        """Bytes of a log; a negative `start` counts from the end. Raises `NotFound`."""
        live = self._paths.live_log(tag, experiment_id, epoch)
        with disk_errors(f"log of {experiment_id}, attempt {epoch}"):
            with suppress(FileNotFoundError), live.open("rb") as file:
                return _slice(file, os.fstat(file.fileno()).st_size, start, length)
            closed = self._paths.closed_log(tag, experiment_id, epoch)
            with closed.open("rb") as packed:
                return Slice(*seekable.read(packed, start, length))

    # -- curves

    def put_curve(self, tag: str, experiment_id: str, points: list[dict[str, Any]]) -> None:
        with disk_errors("curve"):
            _write_atomically(self._paths.curve(tag, experiment_id), json.dumps(points).encode())

    def curve(self, tag: str, experiment_id: str) -> list[dict[str, Any]]:
        """The learning curve, empty where there is none."""
        try:
            with disk_errors("curve"):
                text = self._paths.curve(tag, experiment_id).read_bytes()
        except NotFound:
            return []
        points: list[dict[str, Any]] = json.loads(text)
        return points


def _slice(file: Any, total: int, start: int, length: int | None) -> Slice:
    if start < 0:
        start = max(0, total + start)
    file.seek(start)
    return Slice(file.read() if length is None else file.read(length), start, total)
