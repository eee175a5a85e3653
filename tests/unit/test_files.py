"""Finished logs are read from any place, and by any gunzip."""

import gzip
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from orchestrator import folder
from orchestrator.errors import NotFound, Unavailable
from orchestrator.files import LOG_TAIL_BYTES, Slice
from orchestrator.folder import Folder
from orchestrator.settings import HomePaths

PATTERN = bytes(range(256))
LOG = ("mar11", "exp-1", 1)


@pytest.fixture
def paths(tmp_path: Path) -> HomePaths:
    return HomePaths(tmp_path)


def closed(paths: HomePaths, content: bytes) -> Folder:
    kept = Folder(paths)
    kept.append_log(*LOG, 0, content)
    kept.close_log(*LOG)
    assert not paths.live_log(*LOG).exists()
    return kept


def of_an_earlier_version(content: bytes, chunk: int) -> bytes:
    """A gzip member for each chunk, and their sizes in the extra field of an empty last one."""
    members = [gzip.compress(content[i : i + chunk]) for i in range(0, len(content), chunk)]
    sizes = struct.pack(f"<Q{len(members)}I", len(content), *map(len, members))
    index = b"AR" + struct.pack("<H", len(sizes) + 4) + sizes + struct.pack("<I", len(members))
    header = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff" + struct.pack("<H", len(index))
    return b"".join(members) + header + index + b"\x03\x00" + bytes(8)


def content_of(length: int) -> bytes:
    return (PATTERN * (length // 256 + 1))[:length]


@settings(max_examples=60)
@given(
    length=st.sampled_from([0, 1, 100, LOG_TAIL_BYTES - 1, LOG_TAIL_BYTES, LOG_TAIL_BYTES + 1])
    | st.integers(0, 3 * LOG_TAIL_BYTES),
    start=st.integers(-4 * LOG_TAIL_BYTES, 4 * LOG_TAIL_BYTES),
    wanted=st.none() | st.integers(0, 2 * LOG_TAIL_BYTES),
)
def test_any_slice_is_that_of_the_content(
    tmp_path_factory: pytest.TempPathFactory, length: int, start: int, wanted: int | None
) -> None:
    """From the compressed log as from its tail; a negative start counts from the end."""
    content = content_of(length)
    kept = closed(HomePaths(tmp_path_factory.mktemp("home")), content)
    expected = max(0, length + start) if start < 0 else min(start, length)
    assert kept.read_log(*LOG, start, wanted) == Slice(
        content[expected:][:wanted], expected, length
    )


def test_any_gunzip_reads_the_whole(paths: HomePaths) -> None:
    content = content_of(2 * LOG_TAIL_BYTES + 7)
    closed(paths, content)
    assert gzip.decompress(paths.closed_log(*LOG).read_bytes()) == content


def test_the_end_of_a_large_log_costs_a_small_file(
    paths: HomePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 64 MiB the last 4 KB are read without decompressing anything."""
    kept = closed(paths, content_of(64 * 1024 * 1024))
    monkeypatch.setattr(folder.gzip, "open", lambda *_: pytest.fail("it was decompressed"))
    found = kept.read_log(*LOG, -4096, None)
    assert (len(found.data), found.start + len(found.data), found.total) == (
        4096, found.total, 64 * 1024 * 1024,
    )  # fmt: skip
    assert paths.log_tail(*LOG).stat().st_size == LOG_TAIL_BYTES


@pytest.mark.parametrize("members", ["one", "many"])
def test_a_log_of_an_earlier_version_is_still_read(paths: HomePaths, members: str) -> None:
    """One plain gzip member, or many with an index in the last; neither has a tail beside it."""
    content = content_of(70_000)
    packed = gzip.compress(content) if members == "one" else of_an_earlier_version(content, 9000)
    paths.run_dir(*LOG[:2]).mkdir(parents=True)
    paths.closed_log(*LOG).write_bytes(packed)
    kept = Folder(paths)
    assert kept.read_log(*LOG, -100, None) == Slice(content[-100:], 69_900, 70_000)
    assert kept.read_log(*LOG, 10, 5) == Slice(content[10:15], 10, 70_000)
    assert kept.read_log(*LOG, 0, None) == Slice(content, 0, 70_000)


def test_closing_a_log_again_or_none_changes_nothing(paths: HomePaths) -> None:
    Folder(paths).close_log(*LOG)
    with pytest.raises(NotFound):
        Folder(paths).read_log(*LOG, 0, None)
    kept = closed(paths, b"hello")
    kept.close_log(*LOG)
    assert kept.read_log(*LOG, -3, None) == Slice(b"llo", 2, 5)


@pytest.mark.parametrize("offset", [0, 3])
def test_a_chunk_that_comes_after_the_log_was_closed_changes_nothing(
    paths: HomePaths, offset: int
) -> None:
    """A worker sent it again, and one of the two was served late."""
    kept = closed(paths, b"hello")
    kept.append_log(*LOG, offset, b"hello"[offset:])
    assert not paths.live_log(*LOG).exists()
    assert kept.read_log(*LOG, 0, None) == Slice(b"hello", 0, 5)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_a_damaged_file_is_an_error_of_the_system(paths: HomePaths, damage: str) -> None:
    """Never a wrong answer, and no exception that callers do not expect."""
    kept = closed(paths, content_of(100_000))
    whole = paths.closed_log(*LOG).read_bytes()
    paths.closed_log(*LOG).write_bytes(
        {
            "cut": whole[:300],
            "flipped": whole[:200] + bytes([whole[200] ^ 255]) + whole[201:],
            "text": b"this is no gzip file at all",
        }[damage]
    )
    with pytest.raises(Unavailable):
        kept.read_log(*LOG, 0, None)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "another"])
def test_a_damaged_source_is_an_error_of_the_system(paths: HomePaths, damage: str) -> None:
    """Its hash says whether it is the one that was kept."""
    sha256 = Folder(paths).put_source("x = 1\n" * 100)
    whole = paths.source(sha256).read_bytes()
    paths.source(sha256).write_bytes(
        {
            "cut": whole[:20],
            "flipped": whole[:15] + bytes([whole[15] ^ 255]) + whole[16:],
            "text": b"this is no gzip file at all",
            "another": gzip.compress(b"x = 2\n"),
        }[damage]
    )
    with pytest.raises(Unavailable):
        Folder(paths).source(sha256)
