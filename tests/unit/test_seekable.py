"""Compressed logs are read from any place, and by any gunzip."""

import gzip
import io

import pytest
from hypothesis import given, settings, strategies as st

from orchestrator import seekable

PATTERN = bytes(range(256))


def packed(content: bytes) -> io.BytesIO:
    target = io.BytesIO()
    seekable.pack(io.BytesIO(content), target)
    return target


def content_of(length: int) -> bytes:
    return (PATTERN * (length // 256 + 1))[:length]


@settings(max_examples=60, deadline=None)
@given(
    length=st.sampled_from([0, 1, 100, seekable.CHUNK - 1, seekable.CHUNK, seekable.CHUNK + 1])
    | st.integers(0, 3 * seekable.CHUNK),
    start=st.integers(-4 * seekable.CHUNK, 4 * seekable.CHUNK),
    wanted=st.none() | st.integers(0, 2 * seekable.CHUNK),
)
def test_any_slice_is_that_of_the_content(length: int, start: int, wanted: int | None) -> None:
    """Whatever members it lies in; a negative start counts from the end."""
    content = content_of(length)
    data, begins, total = seekable.read(packed(content), start, wanted)
    expected = max(0, length + start) if start < 0 else min(start, length)
    assert (begins, total) == (expected, length)
    assert data == content[expected:][:wanted]


def test_any_gunzip_reads_the_whole() -> None:
    """The index is an empty member: others do not see it."""
    content = content_of(2 * seekable.CHUNK + 7)
    assert gzip.decompress(packed(content).getvalue()) == content


class Counting(io.BytesIO):
    """A file that counts the bytes that are read from it."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def test_the_end_of_a_large_log_costs_one_member() -> None:
    """Of 64 MiB that do not compress, the last 4 KB take one member and the index."""
    member = gzip.compress(content_of(seekable.CHUNK))
    file = Counting(packed(content_of(64 * 1024 * 1024)).getvalue())
    data, start, total = seekable.read(file, -4096, None)
    assert (len(data), start + len(data), total) == (4096, total, 64 * 1024 * 1024)
    assert file.count < len(member) + 4096


def test_a_log_of_an_earlier_version_is_still_read() -> None:
    """One plain gzip member, without an index."""
    content = content_of(70_000)
    file = io.BytesIO(gzip.compress(content))
    assert seekable.read(file, -100, None) == (content[-100:], 69_900, 70_000)
    assert seekable.read(file, 10, 5) == (content[10:15], 10, 70_000)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_a_damaged_file_is_an_error_of_the_system(damage: bytes) -> None:
    """Never a wrong answer, and no exception that callers do not expect."""
    whole = packed(content_of(100_000)).getvalue()
    broken = {
        "cut": whole[:300],
        "flipped": whole[:200] + bytes([whole[200] ^ 255]) + whole[201:],
        "text": b"this is no gzip file at all",
    }[damage]
    with pytest.raises(OSError):  # noqa: PT011 - BadGzipFile and its like
        seekable.read(io.BytesIO(broken), 0, None)
