"""Gzip files that can be read from the middle: any `gunzip` reads them, `read` only what it needs.

The content is cut into members of CHUNK bytes. A last, empty member carries their compressed sizes
in its extra field (RFC 1952, 2.3.1.1), and ends with the number of them, so that it is found from
the end of the file. A gzip file without it, as earlier versions wrote, is read from its beginning.
Functions block.
"""

import gzip
import os
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

CHUNK = 256 * 1024

_SUBFIELD = b"AR"
_HEADER = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff"  # deflate, with an extra field, no time
_EMPTY = b"\x03\x00" + bytes(8)  # an empty deflate stream, its CRC and its length
_TOTAL = struct.Struct("<Q")
_COUNT = struct.Struct("<I")
_MAX_MEMBERS = 16_000  # what an extra field has room for: 4 GB


@dataclass(frozen=True)
class _Index:
    """Where the members begin in the file, and the length of the content."""

    starts: list[int]
    total: int


def pack(source: BinaryIO, target: BinaryIO) -> None:
    """Copy `source`, of at most 4 GB, to `target`, compressed."""
    sizes, total = [], 0
    while chunk := source.read(CHUNK):
        total += len(chunk)
        sizes.append(target.write(gzip.compress(chunk, compresslevel=6, mtime=0)))
    data = _TOTAL.pack(total) + struct.pack(f"<{len(sizes)}I", *sizes) + _COUNT.pack(len(sizes))
    extra = _SUBFIELD + struct.pack("<H", len(data)) + data
    target.write(_HEADER + struct.pack("<H", len(extra)) + extra + _EMPTY)


def read(file: BinaryIO, start: int, length: int | None) -> tuple[bytes, int, int]:
    """Bytes of the content from `start` (negative: from the end); where they begin; the total.

    Raises OSError, and for a damaged file its subclass gzip.BadGzipFile.
    """
    try:
        return _read(file, start, length)
    except (EOFError, zlib.error) as error:
        raise gzip.BadGzipFile(f"a damaged gzip file: {error}") from error


def _read(file: BinaryIO, start: int, length: int | None) -> tuple[bytes, int, int]:
    index = _index_of(file)
    if index is None:
        return _read_plain(file, start, length)
    start = max(0, index.total + start) if start < 0 else min(start, index.total)
    end = index.total if length is None else min(index.total, start + length)
    first, last = start // CHUNK, -(-end // CHUNK)
    members = (_member(file, *index.starts[i : i + 2]) for i in range(first, last))
    content = b"".join(members) if end > start else b""
    offset = first * CHUNK
    return content[start - offset : end - offset], start, index.total


def _index_of(file: BinaryIO) -> _Index | None:
    """The index of a file that `pack` wrote, else None. Only an empty member ends in `_EMPTY`, so
    no content of another gzip file can pass for one."""
    end = file.seek(0, os.SEEK_END)
    tail = _COUNT.size + len(_EMPTY)
    if end < tail:
        return None
    file.seek(end - tail)
    (count,) = _COUNT.unpack(file.read(_COUNT.size))
    size = _TOTAL.size + 4 * count + _COUNT.size
    start = end - len(_EMPTY) - size - 6 - len(_HEADER)
    if file.read() != _EMPTY or count > _MAX_MEMBERS or start < 0:
        return None
    file.seek(start)
    framing = _HEADER + struct.pack("<H", size + 4) + _SUBFIELD + struct.pack("<H", size)
    if file.read(len(framing)) != framing:
        return None
    (total,) = _TOTAL.unpack(file.read(_TOTAL.size))
    starts = [0]
    for member in struct.unpack(f"<{count}I", file.read(4 * count)):
        starts.append(starts[-1] + member)
    return _Index(starts, total)


def _member(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return zlib.decompress(file.read(end - start), wbits=zlib.MAX_WBITS | 16)


def _read_plain(file: BinaryIO, start: int, length: int | None) -> tuple[bytes, int, int]:
    file.seek(-4, os.SEEK_END)
    total = int.from_bytes(file.read(4), "little")  # ISIZE; a log is below 4 GiB
    start = max(0, total + start) if start < 0 else start
    file.seek(0)
    with gzip.GzipFile(fileobj=file) as content:
        content.seek(start)
        return content.read() if length is None else content.read(length), start, total
