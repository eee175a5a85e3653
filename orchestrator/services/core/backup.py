"""A whole state in one file, and back: what is in Redis, the sources, the logs and the curves.

The file is a gzipped tar: `state.jsonl` (a line for each part of a key), then the kept files below
`home/`, and last `manifest.json`, which a file that was cut short lacks. The part from Redis is of
one moment. Files are copied after that, and so may be a little newer; sources are written before
anything refers to them, so none is missing.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO

from orchestrator.errors import Conflict, Invalid
from orchestrator.settings import HomePaths
from orchestrator.store.connection import Store
from orchestrator.store.dump import DumpStore, Part

FORMAT = 1
STATE, MANIFEST, FILES = "state.jsonl", "manifest.json", "home"
# Logs and sources are compressed already; more effort only costs time.
COMPRESSION = 1
BATCH = 200

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Manifest:
    """What a whole backup holds; `sha256` is that of all names and contents before it."""

    format: int
    parts: int
    files: int
    sha256: str


async def backup(store: Store, paths: HomePaths, target: Path, progress: Progress) -> Manifest:
    """Write the whole state to `target`, which must not exist yet. `progress` gets the number of
    parts and files just written.

    Raises:
        Unavailable: Redis does not answer, or forbids the pause of its writers.
        Conflict: `target` exists.
        OSError: the disk.
    """
    _refuse_existing(target)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with tarfile.open(unfinished, "x:gz", compresslevel=COMPRESSION) as archive:
            content = _Content(archive)
            parts = await _add_state(content, store, progress)
            files = _add_files(content, paths, progress)
            manifest = Manifest(FORMAT, parts, files, content.digest.hexdigest())
            content.add(MANIFEST, io.BytesIO(json.dumps(asdict(manifest)).encode()))
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        os.link(unfinished, target)  # and not rename: it never replaces another backup
        return manifest
    finally:
        unfinished.unlink(missing_ok=True)


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise Conflict(f"{target} exists already; a backup replaces nothing.")


class _Content:
    """What goes into an archive, and the digest of all of it so far."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self.digest = hashlib.sha256()

    def add(self, name: str, content: IO[bytes]) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = content.seek(0, os.SEEK_END), 0o600
        content.seek(0)
        self.digest.update(name.encode())
        self._archive.addfile(info, _Digested(content, self.digest))


class _Digested(io.RawIOBase):
    """A file whose bytes join a digest as they are read."""

    def __init__(self, file: IO[bytes], digest: "hashlib._Hash") -> None:
        self._file = file
        self._digest = digest

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data


async def _add_state(content: _Content, store: Store, progress: Progress) -> int:
    """Copy Redis, by way of a temporary file: an archive must know a size before its content."""
    count = 0
    with tempfile.TemporaryFile() as state:
        async for part in store.dump.parts():
            state.write(json.dumps(asdict(part), ensure_ascii=False).encode() + b"\n")
            count += 1
            progress(1)
        content.add(STATE, state)
    return count


def _add_files(content: _Content, paths: HomePaths, progress: Progress) -> int:
    """Copy the kept files, and then those that appeared meanwhile, such as a closed log."""
    seen: set[Path] = set()
    count = 0
    while new := [path for path in _files_below(paths) if path not in seen]:
        for path in new:
            seen.add(path)
            try:
                with path.open("rb") as file:
                    content.add(f"{FILES}/{path.relative_to(paths.home).as_posix()}", file)
            except FileNotFoundError:
                continue  # a log that was closed: the next round finds its compressed form
            count += 1
            progress(1)
    return count


def _files_below(paths: HomePaths) -> Iterator[Path]:
    for folder in paths.kept_dirs:
        for path in sorted(folder.rglob("*")):
            # Dotted names are unfinished writes.
            if path.is_file() and not path.name.startswith("."):
                yield path


async def restore(store: Store, paths: HomePaths, source: Path, progress: Progress) -> Manifest:
    """Put a backup back into an empty Redis and below the home.

    Raises:
        Invalid: `source` is no whole backup of a format that is known here; nothing was changed.
        Conflict: Redis holds a state already; nothing was changed.
        Unavailable, OSError: Redis or the disk failed half-way: run it again.
    """
    manifest = check(source, paths)
    await store.dump.begin_restore()
    with _opened(source) as archive:
        for member in archive:
            if member.name == MANIFEST:
                break
            content = archive.extractfile(member)
            assert content is not None  # noqa: S101 - `check` saw files only
            if member.name == STATE:
                await _load_state(store.dump, content, progress)
            else:
                _put(paths.home / _kept_name(member, paths), content)
                progress(1)
    await store.dump.finish_restore()
    return manifest


def check(source: Path, paths: HomePaths) -> Manifest:
    """The manifest of a whole backup. Raises `Invalid`, which says what is wrong with it."""
    manifest: Manifest | None = None
    digest, parts, files = hashlib.sha256(), 0, 0
    with _opened(source) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                raise Invalid(f"{source} holds {member.name}, which is no file: not our backup.")
            if member.name == MANIFEST:
                manifest = _manifest(source, content.read())
                break
            if member.name != STATE:
                _kept_name(member, paths)
                files += 1
            digest.update(member.name.encode())
            for line in content:
                digest.update(line)
                parts += member.name == STATE
    if manifest is None:
        raise Invalid(f"{source} was cut short: its end is missing. Take another backup.")
    if manifest != Manifest(FORMAT, parts, files, digest.hexdigest()):
        raise Invalid(f"{source} is damaged: it holds other content than it says.")
    return manifest


def _manifest(source: Path, text: bytes) -> Manifest:
    try:
        manifest = Manifest(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise Invalid(f"{source} has no manifest that can be read: {error}.") from error
    if manifest.format != FORMAT:
        raise Invalid(f"{source} has format {manifest.format}; this version reads {FORMAT}.")
    return manifest


@contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(source, "r:gz") as archive:
            yield archive
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Invalid(f"{source} is no backup, or was cut short: {error}.") from error


async def _load_state(dump: DumpStore, state: IO[bytes], progress: Progress) -> None:
    while batch := [Part(**json.loads(line)) for line in islice(state, BATCH)]:
        await dump.restore(batch)
        progress(len(batch))


def _kept_name(member: tarfile.TarInfo, paths: HomePaths) -> Path:
    """Where a file belongs below the home; only where a backup takes files from."""
    name = PurePosixPath(member.name)
    folders = {folder.name for folder in paths.kept_dirs}
    known = len(name.parts) > 2 and name.parts[0] == FILES and name.parts[1] in folders
    if not known or ".." in name.parts:
        raise Invalid(f"The backup holds {member.name}, which belongs to no state.")
    return Path(*name.parts[1:])


def _put(path: Path, content: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("wb") as file:
        shutil.copyfileobj(content, file)
    unfinished.replace(path)
