"""Files in a folder, the home. Orchestrators on one Redis share it, so every write is atomic
(written to another name, then renamed) or idempotent (log chunks go to their byte offset)."""

import gzip
import os
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO

from orchestrator.errors import Invalid, SetupError, Unavailable
from orchestrator.files import LOG_TAIL_BYTES, NAME, Files, Slice, checked_secret, disk_errors
from orchestrator.ids import AttemptId
from orchestrator.settings import HomePaths

_COPY_BYTES = 1024 * 1024


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
    return checked_secret(path.read_text("ascii", "replace"), str(path))


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


class _HeldFolder:
    """A folder that is kept open, so that no later one has its inode number."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, self._fd)

    def is_at(self, path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), path.stat())
        except OSError:
            return False


def _hold(path: Path) -> _HeldFolder | None:
    try:
        return _HeldFolder(path)
    except OSError:  # not made yet; what else is wrong, the first write says
        return None


class Folder(Files):
    def __init__(self, paths: HomePaths) -> None:
        super().__init__(paths)
        self.place = str(paths.home)
        self._home = _hold(paths.home)

    def check(self) -> None:
        if self._home is None:
            self._home = _hold(self._paths.home)  # made with the first file
        elif not self._home.is_at(self._paths.home):
            raise Unavailable(
                f"The home {self._paths.home} was deleted, moved or replaced while the "
                "orchestrator ran. Put it back, and start the orchestrator again.",
                reason="disk",
            )

    def _read(self, path: Path) -> bytes:
        return path.read_bytes()

    def _write(self, path: Path, data: bytes) -> None:
        _write_atomically(path, data)

    def _exists(self, path: Path) -> bool:
        return path.exists()

    # -- logs

    def append_log(
        self, tag: str, experiment_id: str, epoch: int, offset: int, data: bytes
    ) -> None:
        path = self._paths.live_log(tag, experiment_id, epoch)
        begins = offset == 0 and not self._paths.closed_log(tag, experiment_id, epoch).exists()
        with disk_errors("log"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                create = os.O_CREAT if begins else 0
                handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC | create, 0o644)
            except FileNotFoundError:  # closed: it has this chunk, which comes late
                return
            try:
                while data:  # a full disk writes a part without an error
                    written = os.pwrite(handle, data, offset)
                    data, offset = data[written:], offset + written
            finally:
                os.close(handle)

    def close_log(self, tag: str, experiment_id: str, epoch: int) -> None:
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

    def log_place(self, tag: str, experiment_id: str, epoch: int) -> str:
        closed = self._paths.closed_log(tag, experiment_id, epoch)
        live = self._paths.live_log(tag, experiment_id, epoch)
        return str(closed if closed.exists() else live)

    def open_logs(self) -> Sequence[AttemptId]:
        return ()

    def read_log(
        self, tag: str, experiment_id: str, epoch: int, start: int, length: int | None
    ) -> Slice:
        # Logs of versions that kept no tail are decompressed too.
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

    # -- the journal's seals

    def journal_key(self) -> str:
        path = self._paths.journal_key
        try:
            self._paths.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            return secret(path)
        except OSError as error:
            raise SetupError(
                f"{path} cannot be read or written ({error.strerror}); make it yours,"
                " or name another home with --home (AUTORESEARCH_HOME)"
            ) from error

    def note_seal(self, tag: str, line: str) -> None:
        self._paths.noted_seals_dir.mkdir(mode=0o700, exist_ok=True)
        with (self._paths.noted_seals_dir / tag).open("a", encoding="ascii") as file:
            file.write(line)

    def noted_seals(self, tag: str) -> str:
        try:
            return (self._paths.noted_seals_dir / tag).read_text("ascii", "replace")
        except FileNotFoundError:
            return ""

    def noted_tags(self) -> list[str]:
        return sorted(path.name for path in self._paths.noted_seals_dir.glob("*"))

    def forget_notes(self) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self._paths.noted_seals_dir)

    # -- backups

    def names(self) -> list[str]:
        return [path.relative_to(self._paths.home).as_posix() for path in self._kept()]

    def _kept(self) -> Iterator[Path]:
        if self.has_journal_key():
            yield self._paths.journal_key
        # How many names lead to a file: sources/AB/SHA256.py.gz, runs/TAG/ID/1.log
        for folder, depth in zip(self._paths.kept_dirs, (2, 3), strict=True):
            for path in sorted(folder.glob("/".join(["*"] * depth))):
                if path.is_file() and NAME.fullmatch(path.name):
                    yield path

    def open(self, name: str) -> IO[bytes]:
        return (self._paths.home / name).open("rb")

    def put(self, path: Path, content: IO[bytes]) -> None:
        target = self._paths.home / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=target.parent, prefix=".restored.")  # 0600
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(content, file)
        Path(unfinished).replace(target)

    def refuse_full(self, size: int) -> None:
        home = self._paths.home
        existing = next(path for path in (home, *home.parents) if path.exists())
        if size > (free := shutil.disk_usage(existing).free):
            raise Invalid(f"its files take {size} B, and the disk of {existing} has {free} B free")


def _slice(file: BinaryIO | gzip.GzipFile, start: int, length: int | None) -> Slice:
    total = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, total + start) if start < 0 else min(start, total))
    return Slice(file.read(-1 if length is None else length), start, total)


def _unpacked_size(path: Path) -> int:
    """The size of the content of a file that `close_log` wrote (RFC 1952: ISIZE, below 4 GiB)."""
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(), "little")
