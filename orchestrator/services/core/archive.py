"""The files of a gzipped tar that may be forged, one after the other, in little memory.

tarfile believes what a header says of its own length, keeps every member it has read, and may raise
anything on a malformed one. So it reads through a meter here, and keeps none. Not covered: what the
files hold.
"""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, TypeVar

from orchestrator.errors import Invalid

T = TypeVar("T")

# What may be read for one header, of which a long name takes three blocks.
HEADER_BYTES = 1 << 18


def members(file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents; a content is to be read before the next name is asked for.

    Raises `Invalid` for a member that is no plain file, tarfile's and gzip's errors, and EOFError.
    """
    source = _Metered(file)
    archive = _parsed(lambda: tarfile.TarFile(fileobj=source))
    while True:
        source.left = HEADER_BYTES
        archive.members.clear()  # type: ignore[attr-defined] # typeshed does not have it
        member = _parsed(archive.next)
        if member is None:
            source.drain()
            return
        if not member.isreg() or member.issparse() or member.size < 0:
            raise Invalid(f"it holds {member.name[:200]!r}, which is no plain file")
        source.left = member.size + HEADER_BYTES
        content = archive.extractfile(member)
        assert content is not None  # noqa: S101 - it is a plain file
        yield member.name, content


def _parsed(read: Callable[[], T]) -> T:
    try:
        return read()
    except (ValueError, ArithmeticError, LookupError) as error:  # not only its own TarError
        raise Invalid(f"it has a malformed header ({error})") from error


class _Metered(io.RawIOBase):
    """What a gzip file holds, of which no more than `left` bytes may be read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = gzip.GzipFile(fileobj=file, mode="rb")
        self.left = HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.left:
            raise Invalid("it has a header of a length that no backup has")
        self.left -= size
        return self._file.read(size)

    def drain(self) -> None:
        """Read on to the checksum at the end."""
        while self._file.read(1 << 20):
            pass

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
