"""Files in a bucket (S3, Google Cloud Storage, Azure): orchestrators need no common disk.

A log is a set of pieces, each an object that never changes and is named by its offset and length:
the chunks as workers sent them, and once the attempt is over one compressed piece of the whole and
a plain one of its end. A byte of a log never changes either, so pieces may overlap and come in any
order, and an orchestrator that packs a log may be killed at any moment, or do it again.

Not covered: credentials, region and endpoint, which obstore reads from the environment.
"""

import gzip
import io
import json
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from orchestrator.errors import Conflict, NotFound, SetupError, Unavailable
from orchestrator.files import LOG_TAIL_BYTES, Files, Slice, checked_secret, disk_errors
from orchestrator.ids import AttemptId, tag_of
from orchestrator.settings import HomePaths

# After this a bucket counts as away; the caller sends the request again.
_TIMES: dict[str, Any] = {
    "client_options": {
        "allow_http": True,  # where the endpoint is http://, somebody wanted it
        "connect_timeout": timedelta(seconds=3),
        "timeout": timedelta(seconds=10),
    },
    "retry_config": {"max_retries": 2, "retry_timeout": timedelta(seconds=5)},
}
_PIECE = re.compile(r"(\d{12})-(\d+)(\.gz)?")
# A log's name in a backup.
_LOG = re.compile(r"(runs/([^/]+)/([^/]+)/(\d+)\.log)(\.gz|\.tail)?")
# So often a log is listed again because it was packed while it was read.
_TRIES = 5
_NOTES_BYTES = 64 * 1024
_READERS = 16

T = TypeVar("T")


@dataclass(frozen=True)
class _Piece:
    offset: int
    end: int
    packed: bool = False

    @property
    def name(self) -> str:
        return f"{self.offset:012}-{self.end - self.offset}" + (".gz" if self.packed else "")


def _piece(name: str) -> _Piece | None:
    if match := _PIECE.fullmatch(name):
        offset = int(match[1])
        return _Piece(offset, offset + int(match[2]), packed=match[3] is not None)
    return None


class Bucket(Files):
    def __init__(self, url: str) -> None:
        """Raises SetupError."""
        super().__init__(HomePaths(Path()))
        self.place = url
        with self._setup_errors():
            self._store: Any = from_url(url, **_TIMES)
        # The notes that this process has written: their object, and all of its text.
        self._notes: dict[str, tuple[str, str]] = {}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise FileNotFoundError for a missing object or bucket, and else `Unavailable`."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (BaseError, OSError) as error:
            message = f"{self.place} cannot be read or written: {_words(error)}"
            raise Unavailable(message, reason="store") from error

    @contextmanager
    def _setup_errors(self) -> Iterator[None]:
        try:
            with self._errors():
                yield
        except (Unavailable, FileNotFoundError) as error:
            said = f"{self.place}: there is no such bucket"  # a write finds nothing else missing
            if isinstance(error, Unavailable):
                said = error.message
            raise SetupError(
                f"--store (AUTORESEARCH_STORE): {said}. The bucket has to exist, and credentials, "
                "region and endpoint come from the environment (AWS_ACCESS_KEY_ID and so on): "
                'docs/operations.md, "Files in a bucket"'
            ) from error

    def check(self) -> None:
        if not self.has_journal_key():
            raise Unavailable(f"{self.place} has no journal.key any more.", reason="store")

    def _read(self, path: Path) -> bytes:
        return self._get(path.as_posix())

    def _write(self, path: Path, data: bytes) -> None:
        self._put(path.as_posix(), data)

    def _exists(self, path: Path) -> bool:
        with self._errors(), suppress(FileNotFoundError):
            return bool(obstore.head(self._store, path.as_posix()))
        return False

    def _get(self, name: str) -> bytes:
        with self._errors():
            return bytes(obstore.get(self._store, name).bytes())

    def _put(self, name: str, data: bytes) -> None:
        with self._errors():
            obstore.put(self._store, name, data)

    def _list(self, prefix: str) -> list[str]:
        with self._errors():
            listed = obstore.list(self._store, f"{prefix}/", chunk_size=1000)
            return sorted(one["path"] for chunk in listed for one in chunk)

    def _delete(self, names: Sequence[str]) -> None:
        with self._errors(), suppress(FileNotFoundError):
            obstore.delete(self._store, names)

    # -- logs

    def append_log(
        self, tag: str, experiment_id: str, epoch: int, offset: int, data: bytes
    ) -> None:
        if offset == 0:  # every log begins there
            self._put(_marker(tag, experiment_id, epoch), b"-")
        piece = _Piece(offset, offset + len(data))
        self._put(f"{self._log(tag, experiment_id, epoch)}/{piece.name}", data)

    def close_log(self, tag: str, experiment_id: str, epoch: int) -> None:
        folder = self._log(tag, experiment_id, epoch)

        def pack(pieces: set[_Piece]) -> None:
            total = _end(pieces)
            whole = _Piece(0, total, packed=True)
            tail = _Piece(max(0, total - LOG_TAIL_BYTES), total)
            if whole not in pieces:
                packed = io.BytesIO()
                with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as file:
                    for part in self._parts(folder, pieces, 0, total):
                        file.write(part)
                end = b"".join(self._parts(folder, pieces, tail.offset, total))
                self._put(f"{folder}/{tail.name}", end)
                self._put(f"{folder}/{whole.name}", packed.getvalue())
            if others := [f"{folder}/{piece.name}" for piece in pieces - {whole, tail}]:
                self._delete(others)

        with suppress(NotFound):
            self._with_pieces(folder, pack)
            self._delete([_marker(tag, experiment_id, epoch)])

    def read_log(
        self, tag: str, experiment_id: str, epoch: int, start: int, length: int | None
    ) -> Slice:
        return self._slice(self._log(tag, experiment_id, epoch), start, length)

    def log_place(self, tag: str, experiment_id: str, epoch: int) -> str:
        return f"{self.place}/{self._log(tag, experiment_id, epoch)}"

    def open_logs(self) -> Sequence[AttemptId]:
        names = [name.split("/") for name in self._list("open")]
        return [AttemptId(experiment_id, int(epoch)) for _, _, experiment_id, epoch in names]

    def _log(self, tag: str, experiment_id: str, epoch: int) -> str:
        return self._paths.live_log(tag, experiment_id, epoch).as_posix()

    def _slice(self, folder: str, start: int, length: int | None) -> Slice:
        def read(pieces: set[_Piece]) -> Slice:
            total = _end(pieces)
            first = max(0, total + start) if start < 0 else min(start, total)
            end = total if length is None else min(total, first + length)
            return Slice(b"".join(self._parts(folder, pieces, first, end)), first, total)

        return self._with_pieces(folder, read)

    def _with_pieces(self, folder: str, work: Callable[[set[_Piece]], T]) -> T:
        """The result of `work` on a log's pieces. One that is gone means that another orchestrator
        has packed the log meanwhile: then from the beginning. Raises `NotFound`, `Unavailable`."""
        for _ in range(_TRIES):
            pieces = self._pieces(folder)
            if not pieces:
                raise NotFound(f"No {folder}.")
            with suppress(NotFound), disk_errors(folder):
                return work(pieces)
        raise Unavailable(f"{self.place}/{folder} changes while it is read.", reason="store")

    def _pieces(self, folder: str) -> set[_Piece]:
        names = (name.rpartition("/")[2] for name in self._list(folder))
        return {piece for name in names if (piece := _piece(name))}

    def _parts(self, folder: str, pieces: set[_Piece], start: int, end: int) -> Iterator[bytes]:
        """Bytes `start` to `end`, from plain pieces where there are some. Bytes that nobody has
        sent are zeros, as in a file."""
        while start < end:
            having = [piece for piece in pieces if piece.offset <= start < piece.end]
            if not having:
                upto = min((p.offset for p in pieces if p.offset > start), default=end)
                yield bytes(min(upto, end) - start)
            else:
                best = max(having, key=lambda piece: (not piece.packed, piece.end))
                upto = min(best.end, end)
                yield self._part(f"{folder}/{best.name}", best, start, upto)
            start = min(upto, end)

    def _part(self, name: str, piece: _Piece, start: int, end: int) -> bytes:
        if piece.packed:
            with gzip.GzipFile(fileobj=io.BytesIO(self._get(name))) as file:
                file.seek(start)
                return file.read(end - start)
        first, last = start - piece.offset, end - piece.offset
        with self._errors():
            return bytes(obstore.get_range(self._store, name, start=first, end=last))

    # -- curves

    def _curve_paths(self, tag: str, experiment_id: str) -> tuple[Path, ...]:
        """A request that was on its way when its orchestrator was killed may be served late, and
        must not replace the last curve: so those before it have another name."""
        last = self._paths.curve(tag, experiment_id)
        return last, last.with_suffix(".live.json")

    def put_curve(
        self, tag: str, experiment_id: str, points: list[dict[str, Any]], *, final: bool = False
    ) -> None:
        super().put_curve(tag, experiment_id, points, final=final)
        if final:
            self._delete([self._curve_paths(tag, experiment_id)[-1].as_posix()])

    def curves(self, experiment_ids: Sequence[str]) -> list[list[dict[str, Any]]]:
        """Each takes two round trips, so many at once."""
        with ThreadPoolExecutor(_READERS) as readers:
            return list(readers.map(lambda each: self.curve(tag_of(each), each), experiment_ids))

    # -- the journal's seals

    def journal_key(self) -> str:
        path = self._paths.journal_key.as_posix()
        with self._setup_errors():
            try:
                text = self._get(path)
            except FileNotFoundError:
                with self._errors(), suppress(AlreadyExistsError):  # another one was faster
                    made = secrets.token_hex(32).encode()
                    obstore.put(self._store, path, made, mode="create")
                text = self._get(path)
        return checked_secret(text.decode("ascii", "replace"), f"{self.place}/{path}")

    def note_seal(self, tag: str, line: str) -> None:
        """Objects do not grow: this process writes its own again, with a line more."""
        name, text = self._notes.get(tag, ("", ""))
        if not name or len(text) > _NOTES_BYTES:
            name, text = f"seals/{tag}/{secrets.token_hex(8)}", ""
        self._put(name, (text + line).encode())
        self._notes[tag] = name, text + line

    def noted_seals(self, tag: str) -> str:
        notes = (self._get(name) for name in self._list(f"seals/{tag}"))
        return "".join(text.decode("ascii", "replace") for text in notes)

    def noted_tags(self) -> list[str]:
        return sorted({name.split("/")[1] for name in self._list("seals")})

    def forget_notes(self) -> None:
        if names := self._list("seals"):
            self._delete(names)

    # -- backups, where files have the names that they have in a folder

    def names(self) -> list[str]:
        names = set(self._list("sources"))
        if self.has_journal_key():
            names.add(self._paths.journal_key.as_posix())
        logs = dict[str, set[_Piece | None]]()
        for name in self._list("runs"):
            folder, _, last = name.rpartition("/")
            if folder.endswith(".log"):
                logs.setdefault(folder, set()).add(_piece(last))
            else:
                names.add(name.replace("/curve.live.json", "/curve.json"))
        for log, pieces in logs.items():
            closed = any(piece and piece.packed for piece in pieces)
            names |= {f"{log}.gz", f"{log}.tail"} if closed else {log}
        return sorted(names)

    def open(self, name: str) -> IO[bytes]:
        log = _LOG.fullmatch(name)
        if name.endswith("/curve.json"):
            _, tag, experiment_id, _ = name.split("/")
            return io.BytesIO(json.dumps(self.curve(tag, experiment_id)).encode())
        if log is None:
            return io.BytesIO(self._get(name))
        start = -LOG_TAIL_BYTES if log[5] == ".tail" else 0
        data = self._slice(log[1], start, None).data
        return io.BytesIO(gzip.compress(data, 6, mtime=0) if log[5] == ".gz" else data)

    def put(self, path: Path, content: IO[bytes]) -> None:
        name, data = path.as_posix(), content.read()
        if path == self._paths.journal_key and self._exists(path) and self._read(path) != data:
            raise Conflict(
                f"{self.place} belongs to another Redis: restore into a bucket or below a prefix "
                "that is empty."
            )
        log = _LOG.fullmatch(name)
        if log is None:
            self._put(name, data)
        elif log[5] != ".tail":  # which `close_log` makes again
            plain = gzip.decompress(data) if log[5] == ".gz" else data
            attempt = log[2], log[3], int(log[4])
            self.append_log(*attempt, 0, plain)
            if log[5] == ".gz":
                self.close_log(*attempt)

    def refuse_full(self, size: int) -> None:
        """A bucket has no end that could be asked for."""


def _end(pieces: set[_Piece]) -> int:
    return max(piece.end for piece in pieces)


def _marker(tag: str, experiment_id: str, epoch: int) -> str:
    """An object that is there as long as the attempt's log is not closed."""
    return f"open/{tag}/{experiment_id}/{epoch}"


def _words(error: Exception) -> str:
    """What went wrong. The rest of what obstore says may hold a key's id, or a signature in an
    address."""
    return re.sub(r"\?\S*|<.*", "", str(error).partition("\n")[0]).strip(" :.")
