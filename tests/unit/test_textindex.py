"""The index of ideas: what it finds, and that a lost one is created again."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from orchestrator import textindex
from orchestrator.errors import Unavailable
from orchestrator.textindex import Document, TextIndex

IDEAS = {
    1: "raise the learning rate of the muon optimizer\nMATRIX_LR 0.04 -> 0.08",
    2: "tie value embeddings across layers",
    3: "lower the learning rate in the warm-down",
    4: "windowed attention with sink tokens\nWINDOW 512",
}
CREATED = 7


def documents(ideas: dict[int, str] = IDEAS) -> list[Document]:
    return [Document(created_us, text) for created_us, text in ideas.items()]


@pytest.fixture
def index(tmp_path: Path) -> TextIndex:
    index = TextIndex(tmp_path / "deep" / "t.sqlite3", CREATED)
    index.add(documents())
    return index


def ids(index: TextIndex, idea: str, limit: int = 5) -> list[int]:
    return [match.created_us for match in index.search(idea, limit)]


def test_the_experiment_with_most_of_the_idea_comes_first(index: TextIndex) -> None:
    """Words count by their stem, identifiers by their parts, and order does not."""
    assert ids(index, "What about higher learning rates for Muon?")[:2] == [1, 3]
    assert ids(index, "attend in windows") == [4]
    assert ids(index, "matrix_lr")[0] == 1
    assert index.search(IDEAS[2], 1)[0].share == pytest.approx(1)


@pytest.mark.parametrize("idea", ["", "!!! ???", "the of and", "unheard", '" OR words NEAR(x'])
def test_an_idea_of_no_known_word_finds_nothing(index: TextIndex, idea: str) -> None:
    """No query language shines through."""
    assert [m for m in index.search(idea, 5) if m.share > 0.9] == []


@settings(max_examples=100)
@given(idea=st.text(max_size=100))
def test_no_text_breaks_the_search(tmp_path_factory: pytest.TempPathFactory, idea: str) -> None:
    index = TextIndex(tmp_path_factory.getbasetemp() / "any.sqlite3", CREATED)
    index.add(documents())
    for match in index.search(idea, 3):
        assert 0 < match.share <= 1.000001


def test_what_is_indexed_already_is_passed_over(index: TextIndex) -> None:
    """Two orchestrators that catch up at once index each experiment once."""
    index.add(documents())
    assert (index.size(), index.newest_us()) == (4, 4)


def test_an_old_idea_is_found_among_many_that_share_its_common_words(tmp_path: Path) -> None:
    """A rare word counts more than all common ones; of equal matches the newer comes first."""
    index = TextIndex(tmp_path / "t.sqlite3", CREATED)
    many = {n: f"lower the learning rate number {n}" for n in range(2, 202)}
    index.add(documents({1: "lower the learning rate of rotary"} | many))
    found = index.search("lower learning rate of rotary", 3)
    assert [match.created_us for match in found] == [1, 201, 200]
    assert found[0].share == pytest.approx(1)
    assert found[1].share == pytest.approx(3 / 4)


def test_a_file_that_is_lost_or_damaged_is_created_again(index: TextIndex) -> None:
    """Empty, and the store fills it again."""
    index._path.write_bytes(b"this was a database once" * 1000)
    assert index.size() == 0
    index.add(documents())
    index._path.unlink()
    assert index.newest_us() == 0
    index.add(documents())
    assert ids(index, "muon") == [1]


def test_an_index_of_another_tag_of_this_name_is_dropped(index: TextIndex) -> None:
    """A new tag of the same name begins with an empty index."""
    assert TextIndex(index._path, CREATED + 1).size() == 0
    assert TextIndex(index._path, CREATED + 1).search("muon", 5) == []


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    """503, not a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="index of ideas"):
        TextIndex(tmp_path / "file" / "t.sqlite3", CREATED).size()


def test_a_sqlite_that_cannot_search_text_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some builds of Python leave FTS5 out."""
    monkeypatch.setattr(textindex, "_SCHEMA", textindex._SCHEMA.replace("fts5", "fts0"))
    with pytest.raises(Unavailable, match="no such module"):
        TextIndex(tmp_path / "t.sqlite3", CREATED).size()


def _add_all(path: Path, start: int) -> None:
    index = TextIndex(path, CREATED)
    for n in range(start, start + 40):
        index.add([Document(n + 1, f"idea {n}")])


def test_processes_that_share_a_file_lose_nothing_and_break_nothing(tmp_path: Path) -> None:
    """Four of them index the same experiments at once, from an empty folder on."""
    path = tmp_path / "index" / "t.sqlite3"
    context = multiprocessing.get_context("spawn")
    crowd = [context.Process(target=_add_all, args=(path, 0)) for _ in range(4)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join()
        assert process.exitcode == 0
    assert TextIndex(path, CREATED).size() == 40
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
