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
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from pydantic import ConfigDict, TypeAdapter, ValidationError

from orchestrator.errors import Conflict, Invalid
from orchestrator.files import NAME, Files
from orchestrator.services.core.archive import members
from orchestrator.store.connection import Store
from orchestrator.store.dump import MAX_LINE_BYTES, DumpStore, PartReader

FORMAT = 1
STATE, MANIFEST, FILES = "state.jsonl", "manifest.json", "home"
# Logs and sources are compressed already; more effort only costs time.
COMPRESSION = 1
MAX_MANIFEST_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_KEY = Path("journal.key")
# How many folders and names lead to a file: sources/AB/SHA256.py.gz, runs/TAG/ID/1.log
_DEPTHS = {"sources": 3, "runs": 4}

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Manifest:
    """What a whole backup holds; `sha256` is that of all names and contents before it."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    format: int
    parts: int
    files: int
    sha256: str


_MANIFEST = TypeAdapter(Manifest)


async def backup(store: Store, files: Files, target: Path, progress: Progress) -> Manifest:
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
            count = _add_files(content, files, progress)
            manifest = Manifest(FORMAT, parts, count, content.digest.hexdigest())
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
            state.write(part.line())
            count += 1
            progress(1)
        content.add(STATE, state)
    return count


def _add_files(content: _Content, files: Files, progress: Progress) -> int:
    """Copy the kept files, and then those that appeared meanwhile, such as a closed log."""
    seen: set[str] = set()
    count = 0
    while new := [name for name in files.names() if name not in seen]:
        for name in new:
            seen.add(name)
            try:
                with files.open(name) as file:
                    content.add(f"{FILES}/{name}", file)
            except FileNotFoundError:
                continue  # a log that was closed: the next round finds its compressed form
            count += 1
            progress(1)
    return count


async def restore(store: Store, files: Files, source: Path, progress: Progress) -> Manifest:
    """Put a backup back into an empty Redis and the files.

    Raises:
        Invalid: `source` is no whole backup of a format that is known here; nothing was changed.
        Conflict: Redis holds a state already; nothing was changed.
        Unavailable, OSError: Redis or the disk failed half-way: run it again.
    """
    with source.open("rb") as file, _explained(source):  # once: what is loaded was checked
        manifest = _check(file, files)
        file.seek(0)
        await store.dump.begin_restore()
        files.forget_notes()
        await _load(file, store.dump, files, progress)
    await store.dump.finish_restore()
    return manifest


async def _load(file: IO[bytes], dump: DumpStore, files: Files, progress: Progress) -> None:
    for name, content in members(file):
        if name == STATE:
            reader = PartReader()
            while line := content.readline():
                await dump.restore(reader.read(line))
                progress(1)
        elif name != MANIFEST:
            files.put(_kept_name(name), content)
            progress(1)


def _check(file: IO[bytes], files: Files) -> Manifest:
    """The manifest of a whole backup, of which all that a restore would stumble on is checked."""
    digest, parts, count, size = hashlib.sha256(), 0, 0, 0
    archive = members(file)
    for position, (name, content) in enumerate(archive):
        if (name == STATE) != (position == 0):
            raise Invalid(f"{name[:200]!r} is not at its place")
        if name == MANIFEST:
            manifest = _manifest(content.read(MAX_MANIFEST_BYTES))
            if manifest != Manifest(FORMAT, parts, count, digest.hexdigest()):
                raise Invalid("it is damaged: it holds other content than it says")
            if next(archive, None) is not None:
                raise Invalid("it goes on after its end")
            files.refuse_full(size)
            return manifest
        digest.update(name.encode())
        if name == STATE:
            parts += _check_state(content, digest)
        else:
            count += 1
            size += _check_file(_kept_name(name), content, digest)
    raise Invalid("it was cut short: its end is missing; take another backup")


def _check_state(content: IO[bytes], digest: "hashlib._Hash") -> int:
    """The number of parts, each of which is one that Redis takes."""
    reader, parts = PartReader(), 0
    while line := content.readline(MAX_LINE_BYTES + 1):
        digest.update(line)
        parts += 1
        try:
            reader.read(line)
        except Invalid as error:
            raise Invalid(f"line {parts} of {STATE}: {error.message}") from error
    return parts


def _check_file(name: Path, content: IO[bytes], digest: "hashlib._Hash") -> int:
    """The file's size."""
    size = 0
    while chunk := content.read(_CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        if name == _KEY and re.fullmatch(rb"[0-9a-f]{64}", chunk) is None:
            raise Invalid(f"{name} holds no key")
    return size


def _manifest(text: bytes) -> Manifest:
    try:
        manifest = _MANIFEST.validate_json(text)
    except ValidationError as error:
        raise Invalid("it has no manifest that can be read") from error
    if manifest.format != FORMAT:
        raise Invalid(f"it has format {manifest.format}; this version reads {FORMAT}")
    return manifest


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Invalid(f"{source} is no backup, or was cut short: {error}.") from error
    except Invalid as error:
        raise Invalid(f"{source} is no backup that can be restored: {error.message}.") from error


def _kept_name(name: str) -> Path:
    """Where a file belongs below the home; only where a backup takes files from.

    Each folder has its files at one depth, so that no file's name is also a folder's.
    """
    top, *parts = name.split("/")
    known = parts == [_KEY.name] or (parts and len(parts) == _DEPTHS.get(parts[0]))
    if top != FILES or not known or not all(map(NAME.fullmatch, parts)):
        raise Invalid(f"it holds {name[:200]!r}, which belongs to no state")
    return Path(*parts)
