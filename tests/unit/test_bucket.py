"""A log in pieces reads as its bytes, whatever came twice and however often it is packed."""

import gzip
import json
from collections.abc import Callable, Iterator
from copy import copy
from functools import cache

import pytest
from hypothesis import given, settings, strategies as st
from obstore.exceptions import GenericError
from obstore.store import MemoryStore

from orchestrator import bucket
from orchestrator.bucket import Bucket
from orchestrator.errors import NotFound, Unavailable
from orchestrator.files import Slice

LOG = ("mar11", "exp-00000000000001-mar11", 1)
TAIL = 40
CONTENT = bytes(range(250)) * 2


@pytest.fixture(scope="module", autouse=True)
def _small_tail() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bucket, "LOG_TAIL_BYTES", TAIL)
        yield


@cache
def to_copy() -> Bucket:
    """Making a client takes more time than all of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "any")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        return Bucket("s3://unused")


def in_memory() -> Bucket:
    """On obstore's own store in memory, which has the order and the atomic writes of S3."""
    files = copy(to_copy())
    files._store, files._notes = MemoryStore(), {}
    return files


def expected(end: int, start: int, wanted: int | None) -> Slice:
    first = max(0, end + start) if start < 0 else min(start, end)
    return Slice(CONTENT[first:end][:wanted], first, end)


@pytest.mark.slow
@settings(max_examples=150)
@given(data=st.data())
def test_any_slice_of_a_log_is_that_of_what_was_sent_open_packed_or_both(
    data: st.DataObject,
) -> None:
    """A worker sends on from where it is, or again from anywhere before, after a fault; it may be
    packed in between and more may come late; each orchestrator reads the same."""
    files, end = in_memory(), 0
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, end))
        upto = data.draw(st.integers(start, min(len(CONTENT), start + 120)))
        files.append_log(*LOG, start, CONTENT[start:upto])
        end = max(end, upto)
        if data.draw(st.booleans()):
            files.close_log(*LOG)
    for _ in range(3):
        place = data.draw(st.integers(-TAIL - 20, len(CONTENT)))
        wanted = data.draw(st.none() | st.integers(0, 200))
        assert files.read_log(*LOG, place, wanted) == expected(end, place, wanted)
    files.close_log(*LOG)
    assert files.read_log(*LOG, 0, None) == expected(end, 0, None)
    assert len(files._list("runs")) == 2
    assert not files.open_logs()


class Killed(Exception):
    pass


def killed_after(writes: int, files: Bucket) -> Callable[..., None]:
    """What `files` does up to so many writes and deletes; then it is killed."""
    left = [writes]

    def counted(do: Callable[..., None]) -> Callable[..., None]:
        def wrapper(*arguments: object) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1
            do(*arguments)

        return wrapper

    dying = in_memory()
    dying._store = files._store
    dying._put = counted(dying._put)  # type: ignore[method-assign]
    dying._delete = counted(dying._delete)  # type: ignore[method-assign]
    return dying.close_log


@pytest.mark.parametrize("writes", range(4))
def test_an_orchestrator_killed_while_it_packs_loses_nothing(writes: int) -> None:
    """At each of its steps; another one finds the log among the open ones and ends the work."""
    files = in_memory()
    for start in range(0, 500, 100):
        files.append_log(*LOG, start, CONTENT[start : start + 100])
    with pytest.raises(Killed):
        killed_after(writes, files)(*LOG)
    assert files.read_log(*LOG, 0, None).data == CONTENT
    assert [(str(a.experiment_id), a.epoch) for a in files.open_logs()] == [LOG[1:]]
    files.close_log(*LOG)
    assert files.read_log(*LOG, 0, None).data == CONTENT
    assert not files.open_logs()


def test_a_log_that_is_packed_while_it_is_read_is_read_again() -> None:
    files, other = in_memory(), in_memory()
    other._store = files._store
    for start in range(0, 500, 100):
        files.append_log(*LOG, start, CONTENT[start : start + 100])
    pieces = files._pieces

    def packed_meanwhile(folder: str) -> object:
        found = pieces(folder)
        other.close_log(*LOG)
        return found

    files._pieces = packed_meanwhile  # type: ignore[assignment, method-assign]
    assert files.read_log(*LOG, 0, None).data == CONTENT


def test_the_end_of_a_closed_log_is_read_without_decompressing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = in_memory()
    files.append_log(*LOG, 0, CONTENT)
    files.close_log(*LOG)
    monkeypatch.setattr(bucket.gzip, "GzipFile", lambda **_: pytest.fail("it was decompressed"))
    assert files.read_log(*LOG, -TAIL, None).data == CONTENT[-TAIL:]


def test_a_curve_that_comes_late_does_not_replace_that_of_the_report() -> None:
    files = in_memory()
    early, last = [{"step": 1}], [{"step": 1}, {"step": 2}]
    files.put_curve(*LOG[:2], early)
    assert files.curve(*LOG[:2]) == early
    files.put_curve(*LOG[:2], last, final=True)
    files.put_curve(*LOG[:2], early)
    assert files.curve(*LOG[:2]) == last


def test_no_log_is_not_found_and_closing_it_does_nothing() -> None:
    files = in_memory()
    files.close_log(*LOG)
    with pytest.raises(NotFound):
        files.read_log(*LOG, 0, None)


def test_notes_of_several_orchestrators_are_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that no longer fit into one object."""
    monkeypatch.setattr(bucket, "_NOTES_BYTES", 30)
    files, other = in_memory(), in_memory()
    other._store = files._store
    lines = [f"{number} {'a' * 10}\n" for number in range(20)]
    for number, line in enumerate(lines):
        (files, other)[number % 2].note_seal("mar11", line)
    assert sorted(files.noted_seals("mar11").splitlines()) == sorted(map(str.strip, lines))
    assert files.noted_tags() == ["mar11"]
    assert len(files._list("seals")) < len(lines) / 2
    files.forget_notes()
    assert files.noted_tags() == []


def test_the_key_is_made_once() -> None:
    files, other = in_memory(), in_memory()
    other._store = files._store
    assert not files.has_journal_key()
    assert files.journal_key() == other.journal_key() == files.journal_key()


@pytest.mark.parametrize(
    "said",
    [
        "Generic Azure error: PUT https://a.b/c?sv=1&sig=SECRET in 2 ms - 403\n\nDebug: SECRET",
        "Generic S3 error: 403 Forbidden: <Error><AWSAccessKeyId>SECRET</AWSAccessKeyId></Error>",
    ],
)
def test_what_a_store_answers_is_told_without_keys_and_signatures(said: str) -> None:
    files = in_memory()
    with pytest.raises(Unavailable, match="403") as caught, files._errors():
        raise GenericError(said)
    assert "SECRET" not in str(caught.value)
    assert caught.value.extra["reason"] == "store"


def test_a_backup_names_and_holds_files_as_a_folder_does() -> None:
    files = in_memory()
    sha256 = files.put_source("x = 1\n")
    files.append_log(*LOG, 0, CONTENT[:100])
    files.append_log(*LOG, 100, CONTENT[100:])
    files.put_curve(*LOG[:2], [{"step": 1}])
    run = f"runs/{LOG[0]}/{LOG[1]}"
    source = f"sources/{sha256[:2]}/{sha256}.py.gz"
    assert files.names() == [f"{run}/1.log", f"{run}/curve.json", source]
    assert files.open(f"{run}/1.log").read() == CONTENT
    files.close_log(*LOG)
    files.journal_key()
    names = ["journal.key", f"{run}/1.log.gz", f"{run}/1.log.tail", f"{run}/curve.json", source]
    assert files.names() == names
    assert gzip.decompress(files.open(f"{run}/1.log.gz").read()) == CONTENT
    assert files.open(f"{run}/1.log.tail").read() == CONTENT[-TAIL:]
    assert json.loads(files.open(f"{run}/curve.json").read()) == [{"step": 1}]
