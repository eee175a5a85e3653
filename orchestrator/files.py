"""Files below the home: sources by their hash, logs and curves by run. No Redis, no HTTP.

Orchestrators on one Redis share this folder, so every write is atomic (written to another name,
then renamed) or idempotent (log chunks go to their byte offset). Functions block; services call
them in threads.
"""

import gzip
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.errors import NotFound, SetupError, Unavailable
from orchestrator.settings import HomePaths

# The end of a finished log that is kept uncompressed: as much as the log's page reads at first.
LOG_TAIL_BYTES = 256 * 1024
_COPY_BYTES = 1024 * 1024


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


def secret(path: Path) -> str:
    """256 random bits in hexadecimal, in a file that only its owner can read.

    Made on first use, and once, however many processes ask at the same moment. Raises SetupError
    for a file that holds something else, and OSError.
    """
    if not path.exists():
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(name, path)  # never replaces another process' secret
        finally:
            Path(name).unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    text = path.read_text("ascii", "replace").strip()
    if re.fullmatch("[0-9a-f]{64}", text) is None:
        raise SetupError(
            f"{path} does not hold the 64 hexadecimal digits that were written there: put it back "
            "from a copy, or remove it to have a new one made."
        )
    return text


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Slice:
    """Bytes `start` to `start + len(data)` of a log of `total` bytes."""

    data: bytes
    start: int
    total: int


class _Folder:
    """A folder that is kept open, so that no later one has its inode number."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, self._fd)

    def is_at(self, path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), path.stat())
        except OSError:
            return False


def _hold(path: Path) -> _Folder | None:
    try:
        return _Folder(path)
    except OSError:  # not made yet; what else is wrong, the first write says
        return None


class Files:
    def __init__(self, paths: HomePaths) -> None:
        self._paths = paths
        self._home = _hold(paths.home)

    def check_home(self) -> None:
        """Raise `Unavailable` if the home is not the folder that it was before."""
        if self._home is None:
            self._home = _hold(self._paths.home)  # made with the first file
        elif not self._home.is_at(self._paths.home):
            raise Unavailable(
                f"The home {self._paths.home} was deleted, moved or replaced while the "
                "orchestrator ran. Put it back, and start the orchestrator again.",
                reason="disk",
            )

    # -- sources

    def put_source(self, text: str) -> str:
        """Keep a source; answers its SHA-256. Equal sources are kept once."""
        sha256 = sha256_of(text)
        path = self._paths.source(sha256)
        with disk_errors("source"):
            if not path.exists():
                _write_atomically(path, gzip.compress(text.encode(), mtime=0))
        return sha256

    def has_source(self, text: str) -> bool:
        return self._paths.source(sha256_of(text)).exists()

    def source(self, sha256: str) -> str:
        """The source with this hash. Raises `NotFound`; a damaged file is `Unavailable`."""
        with disk_errors(f"source {sha256}"):
            data = gzip.decompress(self._paths.source(sha256).read_bytes())
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Unavailable(f"The stored source {sha256} is damaged: its hash differs.")
        return data.decode()

    # -- logs

    def append_log(
        self, tag: str, experiment_id: str, epoch: int, offset: int, data: bytes
    ) -> None:
        """Write a chunk at its offset; a chunk sent twice overwrites itself."""
        path = self._paths.live_log(tag, experiment_id, epoch)
        with disk_errors("log"):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                while data:  # a full disk writes a part without an error
                    written = os.pwrite(handle, data, offset)
                    data, offset = data[written:], offset + written
            finally:
                os.close(handle)

    def close_log(self, tag: str, experiment_id: str, epoch: int) -> None:
        """Compress a finished attempt's log, and keep its end beside it uncompressed.

        Does nothing if there is no log, or if it is closed already.
        """
        live = self._paths.live_log(tag, experiment_id, epoch)
        closed = self._paths.closed_log(tag, experiment_id, epoch)
        aside = closed.with_name(f".{closed.name}.{os.getpid()}")
        try:
            with live.open("rb") as log, gzip.open(aside, "wb", compresslevel=6) as packed:
                shutil.copyfileobj(log, packed, _COPY_BYTES)
                log.seek(max(0, log.tell() - LOG_TAIL_BYTES))
                _write_atomically(self._paths.log_tail(tag, experiment_id, epoch), log.read())
            aside.replace(closed)
            live.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        finally:
            aside.unlink(missing_ok=True)

    def log_path(self, tag: str, experiment_id: str, epoch: int) -> Path:
        """Where an attempt's log is now: compressed once the run has ended."""
        closed = self._paths.closed_log(tag, experiment_id, epoch)
        return closed if closed.exists() else self._paths.live_log(tag, experiment_id, epoch)

    def read_log(
        self, tag: str, experiment_id: str, epoch: int, start: int, length: int | None
    ) -> Slice:
        """Bytes of a log; a negative `start` counts from the end. Raises `NotFound`.

        Of a compressed log the last `LOG_TAIL_BYTES` cost one small file. Anything else, and logs
        of versions that kept no such file, are decompressed from the beginning.
        """
        live = self._paths.live_log(tag, experiment_id, epoch)
        with disk_errors(f"log of {experiment_id}, attempt {epoch}"):
            with suppress(FileNotFoundError), live.open("rb") as file:
                return _slice(file, start, length)
            closed = self._paths.closed_log(tag, experiment_id, epoch)
            tail = self._paths.log_tail(tag, experiment_id, epoch)
            if -LOG_TAIL_BYTES <= start < 0 and tail.exists():
                with tail.open("rb") as file:
                    found = _slice(file, start, length)
                total = _unpacked_size(closed)
                return Slice(found.data, found.start + total - found.total, total)
            with gzip.open(closed) as unpacked:
                return _slice(unpacked, start, length)

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


def _slice(file: BinaryIO | gzip.GzipFile, start: int, length: int | None) -> Slice:
    total = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, total + start) if start < 0 else min(start, total))
    return Slice(file.read(-1 if length is None else length), start, total)


def _unpacked_size(path: Path) -> int:
    """The size of the content of a file that `close_log` wrote (RFC 1952: ISIZE, below 4 GiB)."""
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(), "little")
