"""The command `prepare.py`: settings, offline corpora, the tokenizer, --check."""

import fcntl
import json
import os
import pickle
import random
import runpy
import shutil
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, strategies as st

import corpus
import prepare
from corpus import train_tokenizer
from download import shard_name
from prepare import (
    VALIDATION_SHARD,
    Manifest,
    PrepareError,
    Tokenizer,
    TokenShards,
    select_profile,
)
from tests.conftest import eventually


def words(seed: int, n: int) -> str:
    """n made-up words in sentences and paragraphs: enough variety for 8192 tokens."""
    rng = random.Random(seed)  # noqa: S311 (no secret)
    syllables = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("", "n", "r", "st")]
    return "".join(
        "".join(rng.choices(syllables, k=rng.randint(1, 4))) + rng.choice([" ", " ", " ", ".\n\n"])
        for _ in range(n)
    )


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """A folder with some 1.3 MB of text in 40 files, below two folders."""
    folder = tmp_path_factory.mktemp("library")
    for i in range(40):
        path = folder / f"part{i % 2}" / f"{i}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(words(i, 5000))
    return folder


@pytest.fixture(scope="session")
def prepared(library, tmp_path_factory):
    """A cache made from `library`; tests take copies of it."""
    cache = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", str(cache))
        assert prepare.main(["--source", str(library)]) == 0
    return cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no settings from outside."""
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AUTORESEARCH_HUB", "http://127.0.0.1:9")
    monkeypatch.delenv("AUTORESEARCH_PROFILE", raising=False)
    monkeypatch.delenv("AUTORESEARCH_TIME_BUDGET", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def full_cache(cache, prepared):
    shutil.copytree(prepared, cache)
    return cache


@pytest.fixture
def data_only(monkeypatch):
    """For tests of corpora: the tokenizer, which takes longest, is left out."""
    monkeypatch.setattr(corpus, "prepare_tokenizer", lambda: None)
    monkeypatch.setattr(corpus, "prepare_tokens", lambda: None)


def texts(split: prepare.Split) -> list[str]:
    paths = Manifest.require().paths(split)
    return [t for path in paths for batch in prepare.read_texts(path) for t in batch]


def refusal(capsys, *argv: str) -> str:
    """Run the command, which must fail; what it says."""
    assert prepare.main(argv) == 1
    return capsys.readouterr().err


# Settings


@pytest.mark.parametrize(
    ("vram", "name"),
    [(None, "cpu"), (4, "small"), (15.8, "small"), (23.6, "24gb"), (44.4, "40gb"), (79.1, "80gb")],
)
def test_the_profile_follows_the_memory_of_the_gpu(vram, name):
    """Cards report a little less than their name says; the biggest profile that fits is taken."""
    assert select_profile(None, vram).name == name


def test_a_profile_can_be_named():
    """The name wins over the hardware, and a wrong one lists the right ones."""
    assert select_profile("cpu", 80).name == "cpu"
    with pytest.raises(PrepareError, match=r"'h100'.*80gb, 40gb, 24gb, small, mps, cpu"):
        select_profile("h100", 80)


@pytest.mark.parametrize("profile", prepare.PROFILES, ids=lambda p: p.name)
def test_profiles_fit_together(profile):
    """Batches divide, and evaluation reads whole rows."""
    assert profile.total_batch_size % (profile.device_batch_size * profile.max_seq_len) == 0
    assert profile.eval_tokens % profile.max_seq_len == 0
    assert profile.ngram_rows & (profile.ngram_rows - 1) == 0, "the hash takes bits"


@pytest.mark.parametrize(("budget", "rows"), [(1.0, 2**20), (3600.0, 0)])
def test_a_run_that_would_repeat_its_text_gets_no_tables_of_ngrams(
    full_cache, monkeypatch, budget, rows
):
    tokens = TokenShards(Tokenizer.load(), "train").size()
    profile = replace(select_profile("80gb", None), tokens_per_second=tokens // 10)
    monkeypatch.setattr(prepare, "PROFILE", profile)
    monkeypatch.setattr(prepare, "TIME_BUDGET", budget)
    assert prepare.ngram_rows() == rows


def test_without_a_corpus_there_are_no_tables_of_ngrams(cache, monkeypatch):
    monkeypatch.setattr(prepare, "PROFILE", select_profile("80gb", None))
    assert prepare.ngram_rows() == 0


def test_the_cpu_profile_runs_on_the_cpu(monkeypatch):
    """`worker --cpu` on a machine that has a GPU."""
    monkeypatch.setattr(prepare, "PROFILE", select_profile("cpu", None))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert prepare.pick_device() == torch.device("cpu")
    monkeypatch.setattr(prepare, "PROFILE", select_profile("small", None))
    assert prepare.pick_device() == torch.device("cuda")


def test_the_time_budget_is_read_from_the_environment(monkeypatch):
    """Seconds, fractions too; empty is unset."""
    monkeypatch.setenv("AUTORESEARCH_TIME_BUDGET", "2.5")
    assert prepare.time_budget() == 2.5
    monkeypatch.setenv("AUTORESEARCH_TIME_BUDGET", "")
    assert prepare.time_budget() == 300


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "five"])
def test_a_senseless_time_budget_is_refused(monkeypatch, text):
    """The run would end at once, or never."""
    monkeypatch.setenv("AUTORESEARCH_TIME_BUDGET", text)
    with pytest.raises(PrepareError, match="above 0"):
        prepare.time_budget()


def test_importing_reads_and_writes_nothing(cache):
    """The cache may be missing; only using it is an error. Constants are there."""
    module = runpy.run_path(prepare.__file__, run_name="imported")
    assert module["VOCAB_SIZE"] == 8192
    assert module["TIME_BUDGET"] == 300
    assert module["MAX_SEQ_LEN"] == module["PROFILE"].max_seq_len
    assert not cache.exists()


def test_importing_with_a_wrong_setting_fails(cache, monkeypatch):
    """A run must not start with other constants than were asked for."""
    monkeypatch.setenv("AUTORESEARCH_PROFILE", "h100")
    with pytest.raises(Exception, match="it must be one of"):
        runpy.run_path(prepare.__file__, run_name="imported")


# Corpora


def test_a_folder_becomes_a_corpus(full_cache, library):
    """Its text, cut into documents, without losses or repetitions; the source is recorded."""
    assert Manifest.require().source == str(library)
    train, validation = texts("train"), texts("val")
    written = sum(len(path.read_text()) for path in library.rglob("*.txt"))
    assert sum(map(len, train + validation)) == pytest.approx(written, rel=0.001)
    assert max(map(len, train)) <= corpus.DOCUMENT_CHARS
    assert 0.05 < len(validation) / len(train) < 0.2


def test_a_corpus_depends_on_the_text_alone(full_cache, library, tmp_path, monkeypatch, data_only):
    """Another folder, another order of creation, another machine: the same shards, byte by byte."""
    copy = tmp_path / "moved" / "library"
    for path in sorted(library.rglob("*.txt"), reverse=True):
        target = copy / path.relative_to(library)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "other"))
    assert prepare.main(["--source", str(copy)]) == 0
    for name in (shard_name(0), VALIDATION_SHARD):
        mine, other = full_cache / "data" / name, tmp_path / "other" / "data" / name
        assert mine.read_bytes() == other.read_bytes()


def test_validation_documents_are_never_in_training():
    """Even if two sections share a document, it is in one split, once."""
    sections = [[f"own {i}", f"shared {i % 5}", "licence"] for i in range(40)]
    train, validation = corpus.hold_out(sections, 200)
    assert validation
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted({text for section in sections for text in section})


def test_a_section_is_held_out_as_a_whole(full_cache, library):
    """Of each stretch of a file, all documents train or all validate."""
    train, validation = set(texts("train")), set(texts("val"))
    for path in library.rglob("*.txt"):
        for section in corpus.read_sections(path):
            assert set(section) <= train or set(section) <= validation


@pytest.mark.parametrize("text", ["", "short", "a\n\n" * 5000, "word " * 5000, "x" * 20_000])
def test_splitting_a_text_loses_nothing(text):
    """Pieces stay under the limit, are not tiny, and joined they are the text."""
    pieces = list(corpus.split_text(text, 4000))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 4000
    assert all(len(piece) > 2000 for piece in pieces[:-1])


def test_a_text_is_split_at_blank_lines_where_possible():
    """A paragraph stays in one document."""
    pieces = list(corpus.split_text(("y" * 900 + "\nmore\n\n") * 20, 4000))
    assert all(piece.endswith("\n\n") for piece in pieces[:-1])


def test_what_is_no_text_is_left_out(cache, library, tmp_path, data_only):
    """Binary, hidden and unreadable files, broken links and pipes in a folder do no harm."""
    folder = tmp_path / "mixed"
    shutil.copytree(library, folder)
    (folder / "image.png").write_bytes(bytes(range(256)) * 100)
    (folder / "zeros.bin").write_bytes(b"\0" * 1000)
    (folder / "link.txt").symlink_to(folder / "nowhere")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("hidden")
    os.mkfifo(folder / "pipe")
    assert prepare.main(["--source", str(folder)]) == 0
    everything = "".join(texts("train") + texts("val"))
    assert "hidden" not in everything
    assert "\0" not in everything


def test_rows_of_parquet_files_are_documents_as_they_are(cache, tmp_path, data_only):
    """Parquet files without our layout: split by document, long rows not cut."""
    rows = [words(i, 3000) for i in range(60)]
    pq.write_table(pa.table({"text": rows, "id": range(60)}), tmp_path / "mine.parquet")
    assert prepare.main(["--source", str(tmp_path / "mine.parquet")]) == 0
    assert sorted(texts("train") + texts("val")) == sorted(rows)


def test_a_folder_in_climbmix_layout_keeps_its_split(cache, prepared, tmp_path, data_only):
    """Its last shard stays the validation shard, and all shards stay as they are."""
    shutil.copytree(prepared / "data", tmp_path / "mirror")
    assert prepare.main(["--source", str(tmp_path / "mirror")]) == 0
    for name in (shard_name(0), VALIDATION_SHARD):
        copied = (cache / "data" / name).read_bytes()
        assert copied == (prepared / "data" / name).read_bytes()


def test_the_offline_corpus_is_made_of_pythons_own_text(cache, monkeypatch):
    """With no network and nothing given, the machine's sources and documentation suffice."""
    monkeypatch.setattr(corpus, "OFFLINE_BYTES", 1_500_000)
    assert prepare.main(["--source", "offline"]) == 0
    assert "import" in "".join(texts("train"))
    assert Tokenizer.load().vocab_size == 8192


def test_a_corpus_that_is_too_small_is_refused(cache, tmp_path, capsys):
    """Less than a megabyte of text trains nothing."""
    (tmp_path / "note.txt").write_text("hello")
    assert "1,000,000 at least" in refusal(capsys, "--source", str(tmp_path / "note.txt"))
    assert not (cache / "data").exists()


@pytest.mark.parametrize("repeats", [1, 2])
def test_repeated_text_counts_once(cache, tmp_path, capsys, repeats):
    """A megabyte of the same page is one page."""
    for i in range(600):
        (tmp_path / f"{i}.txt").write_text(words(1, 300) * repeats)
    assert "a corpus needs" in refusal(capsys, "--source", str(tmp_path))


def test_text_without_variety_gives_no_tokenizer(cache, tmp_path, capsys):
    """A vocabulary of 8192 needs that many different pieces; the error says so."""
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(
            "".join(f"{n}\n" for n in range(i * 9000, i * 9000 + 9000))
        )
    assert "too small or too uniform" in refusal(capsys, "--source", str(tmp_path))


def test_a_path_that_does_not_exist_is_named(cache, capsys):
    """A misspelt source is taken for a path, so the message lists the names as well."""
    message = refusal(capsys, "--source", "climbmx")
    assert "climbmx" in message
    assert "climbmix or offline" in message


def test_parquet_without_text_is_named(cache, tmp_path, capsys):
    """Neither another column nor another format passes for a corpus."""
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_text("no parquet at all")
    for name in ("a.parquet", "b.parquet"):
        assert name in refusal(capsys, "--source", str(tmp_path / name))


# The cache


def test_a_prepared_cache_stays_as_it_is(full_cache, capsys):
    """Without --source the corpus in the cache stays, and a second run writes nothing."""
    before = {p: p.stat().st_mtime_ns for p in full_cache.rglob("*.*") if p.suffix != ".lock"}
    assert prepare.main([]) == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert "there already" in capsys.readouterr().out


def test_corpora_are_never_mixed(full_cache, library, capsys):
    """Another source is refused, unless --force replaces data and tokenizer together."""
    message = refusal(capsys, "--source", "offline")
    assert "--force" in message
    assert "AUTORESEARCH_CACHE" in message
    ranks = (full_cache / "tokenizer" / "ranks.tiktoken").read_bytes()
    assert prepare.main(["--source", str(library / "part0"), "--force"]) == 1  # half: too small
    assert Manifest.require().source == str(library)
    shutil.copytree(library / "part0", full_cache / "new")
    (full_cache / "new" / "more.txt").write_text(words(77, 60_000))
    assert prepare.main(["--source", str(full_cache / "new"), "--force"]) == 0
    assert Manifest.require().source == str(full_cache / "new")
    assert (full_cache / "tokenizer" / "ranks.tiktoken").read_bytes() != ranks


def test_a_lost_shard_of_a_built_corpus_is_not_rebuilt(full_cache, capsys):
    """Rebuilding could give other text under the same name; a person decides that."""
    (full_cache / "data" / VALIDATION_SHARD).unlink()
    assert "--force" in refusal(capsys)


def test_a_build_that_was_interrupted_starts_over(full_cache, library, data_only):
    """Until all shards are there, nothing was measured on them."""
    (full_cache / "data" / VALIDATION_SHARD).unlink()
    Manifest(str(library), [shard_name(0), VALIDATION_SHARD]).save()
    assert prepare.main([]) == 0
    assert texts("val")


def test_shards_of_another_program_are_not_overwritten(cache, library, capsys):
    """autoresearch uses the same folder: hours of downloads must not vanish without --force."""
    (cache / "data").mkdir(parents=True)
    (cache / "data" / "shard_00005.parquet").write_bytes(b"theirs")
    assert "--force" in refusal(capsys, "--source", str(library))
    assert (cache / "data" / "shard_00005.parquet").read_bytes() == b"theirs"


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"source": "x", "shards": ["../../x"]}'])
def test_a_damaged_manifest_is_an_error(full_cache, content, capsys):
    """Broken, or naming files outside of the cache: said, and --force helps."""
    (full_cache / "data" / "manifest.json").write_bytes(content)
    assert "damaged" in refusal(capsys)


def test_num_shards_is_for_climbmix(cache, capsys, library):
    """An option that would be ignored is refused."""
    assert "climbmix only" in refusal(capsys, "--source", str(library), "--num-shards", "3")
    for wrong in ("0", "-2", "6543", "x"):
        with pytest.raises(SystemExit):
            prepare.main(["--num-shards", wrong])


def test_two_programs_do_not_work_on_one_cache_at_once(full_cache, capsys):
    """The second waits until the first one is done."""
    with (full_cache / "prepare.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=prepare.main, args=([],))
        second.start()
        assert "waiting" in eventually(lambda: capsys.readouterr().out)
        assert second.is_alive()
        fcntl.flock(lock, fcntl.LOCK_UN)
        second.join(60)
        assert not second.is_alive()


# Tokenizer


def test_the_tokenizer_gives_back_any_text(full_cache):
    """Bytes are its alphabet, so every text survives; one and several at a time agree."""
    tokenizer = Tokenizer.load()
    samples = ["", "plain words 12345", "größer 中文 🙂\r\n\t x", "<|reserved_0|> is text"]
    assert [tokenizer.decode(tokenizer.encode(s)) for s in samples] == samples
    assert tokenizer.encode(samples, num_threads=2) == [tokenizer.encode(s) for s in samples]


def test_text_never_becomes_a_special_token(full_cache):
    """A document that names a special token cannot begin another document."""
    tokenizer = Tokenizer.load()
    ids = tokenizer.encode("".join(prepare.SPECIAL_TOKENS))
    assert max(ids) < tokenizer.bos_id == prepare.VOCAB_SIZE - 4


def test_token_bytes_add_up_to_the_text(full_cache):
    """Tokens that are parts of characters count their own bytes; specials have none."""
    tokenizer = Tokenizer.load()
    text = "größer 中文 🙂 words"
    assert int(tokenizer.token_bytes[tokenizer.encode(text)].sum()) == len(text.encode())
    assert tokenizer.token_bytes.dtype == torch.int64
    assert len(tokenizer.token_bytes) == tokenizer.vocab_size == prepare.VOCAB_SIZE
    assert tokenizer.token_bytes[-4:].tolist() == [0, 0, 0, 0]


def test_numbers_are_split_into_pairs_of_digits(full_cache):
    """1234567 is at least four tokens."""
    tokenizer = Tokenizer.load()
    ids = tokenizer.encode("1234567")
    assert max(len(tokenizer.decode([i])) for i in ids) <= 2


@pytest.mark.parametrize("name", ["ranks.tiktoken", "meta.json"])
def test_a_changed_tokenizer_is_refused_and_made_again(full_cache, name, capsys):
    """The hash finds one changed byte; the command repairs it from the data, to what it was."""
    path = full_cache / "tokenizer" / name
    original = path.read_bytes()
    path.write_bytes(original.replace(b"1", b"2", 1))
    with pytest.raises(PrepareError, match=r"Run `uv run prepare\.py`"):
        Tokenizer.load()
    assert prepare.main([]) == 0
    assert path.read_bytes() == original


def test_a_tokenizer_of_another_size_is_refused(full_cache):
    """A run must not measure with a vocabulary that prepare.py does not promise."""
    train_tokenizer(iter([words(1, 5000)]), vocab_size=300).save(full_cache / "tokenizer")
    with pytest.raises(PrepareError, match="size"):
        Tokenizer.load()


class Hostile:
    def __reduce__(self):
        return (open, (Hostile.path, "w"))


def test_a_pickle_in_the_cache_is_never_executed(full_cache, tmp_path):
    """Loading reads text and JSON only, so a pickle under any name is ignored or refused."""
    Hostile.path = str(tmp_path / "executed")
    poison = pickle.dumps(Hostile())
    for name in ("tokenizer.pkl", "token_bytes.pt", "token_bytes.npy"):
        (full_cache / "tokenizer" / name).write_bytes(poison)
    Tokenizer.load()
    for name in ("meta.json", "ranks.tiktoken"):
        (full_cache / "tokenizer" / name).write_bytes(poison)
        with pytest.raises(PrepareError):
            Tokenizer.load()
    assert not (tmp_path / "executed").exists()


# --check


def checked(capsys) -> tuple[int, dict]:
    code = prepare.main(["--check"])
    (line,) = capsys.readouterr().out.splitlines()
    return code, json.loads(line)


def test_check_reports_a_machine_that_is_ready(full_cache, library, capsys):
    """One line of JSON and exit 0."""
    code, report = checked(capsys)
    assert code == 0
    assert report["ok"] is True
    assert report["problems"] == []
    assert report["profile"] == prepare.PROFILE.name
    assert report["device"] == prepare.pick_device().type
    assert report["device_name"]
    assert report["torch_version"] == torch.__version__
    assert report["cache"] == str(full_cache)
    assert report["data_source"] == str(library)
    assert report["validation_sha256"] == Manifest.require().validation_sha256


def test_check_lists_every_problem_and_changes_nothing(cache, capsys, monkeypatch):
    """All at once, each with what to do, exit 1."""
    monkeypatch.setenv("AUTORESEARCH_PROFILE", "h100")
    monkeypatch.setenv("AUTORESEARCH_TIME_BUDGET", "never")
    code, report = checked(capsys)
    assert code == 1
    assert report["ok"] is False
    assert report["data_source"] is report["profile"] is None
    profile, budget, data, tokenizer = report["problems"]
    assert "it must be one of" in profile
    assert "seconds above 0" in budget
    assert "Run `uv run prepare.py`" in data
    assert "Run `uv run prepare.py`" in tokenizer
    assert not cache.exists()


def test_check_finds_a_lost_shard_and_a_changed_tokenizer(full_cache, capsys):
    """The two things that a worker must know before it takes a job."""
    (full_cache / "data" / shard_name(0)).unlink()
    (full_cache / "tokenizer" / "ranks.tiktoken").write_bytes(b"IQ== 0\n")
    code, report = checked(capsys)
    assert code == 1
    assert ["shard_00000" in report["problems"][0], "SHA-256" in report["problems"][1]] == [
        True
    ] * 2


def test_the_program_reports_wrong_settings_instead_of_failing_to_start(cache, monkeypatch, capsys):
    """`python prepare.py --check` with settings at which an import fails still answers in JSON."""
    monkeypatch.setenv("AUTORESEARCH_PROFILE", "h100")
    monkeypatch.setattr(sys, "argv", ["prepare.py", "--check"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(prepare.__file__, run_name="__main__")
    assert exit_.value.code == 1
    assert "it must be one of" in json.loads(capsys.readouterr().out)["problems"][0]


def test_preparing_with_wrong_settings_is_refused(full_cache, monkeypatch, capsys):
    """A misspelt profile is reported before the download, not after it."""
    monkeypatch.setenv("AUTORESEARCH_PROFILE", "h100")
    assert "it must be one of" in refusal(capsys)


COMPILERS = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR")


def test_runs_share_compiled_code_in_the_cache(cache, monkeypatch):
    """Every compiler writes below the cache, except where the environment says otherwise."""
    for name in COMPILERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    monkeypatch.setenv("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")
    monkeypatch.setattr(os, "environ", dict(os.environ))  # a copy, so that nothing stays behind
    prepare.share_compiled_code()
    found = {name: os.environ[name] for name in COMPILERS}
    assert found.pop("TRITON_CACHE_DIR") == "/elsewhere"
    assert all(path.startswith(str(cache / "compiled")) for path in found.values())


def test_a_cache_that_cannot_be_written_to_shares_nothing(cache, monkeypatch):
    """The compilers' own defaults do there."""
    for name in COMPILERS:
        monkeypatch.delenv(name, raising=False)
    cache.write_text("a file where the folder should be")
    prepare.share_compiled_code()
    assert not [name for name in COMPILERS if name in os.environ]


# A damaged cache


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "changed": flip,
    "missing": lambda path: path.unlink(),
}
# All that a run reads, and the parquet files, without which no tokens can be made.
READ_BY_A_RUN = {
    "manifest": "data/manifest.json",
    "tokenizer": "tokenizer/ranks.tiktoken",
    "tokenizer's record": "tokenizer/meta.json",
    "training tokens": "tokens/*/shard_00000.tokens.npy",
    "training tokens' record": "tokens/*/shard_00000.tokens.json",
    "starts": "tokens/*/shard_00000.starts.npy",
    "starts' record": "tokens/*/shard_00000.starts.json",
    "validation tokens": "tokens/*/shard_06542.tokens.npy",
    "validation rows": f"tokens/*/validation_*x{prepare.MAX_SEQ_LEN}.npy",
    "rows' record": f"tokens/*/validation_*x{prepare.MAX_SEQ_LEN}.json",
    "parquet": "data/shard_00000.parquet",
    "validation parquet": "data/shard_06542.parquet",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("what", READ_BY_A_RUN)
def test_check_finds_whatever_is_damaged_and_names_the_remedy(full_cache, capsys, what, damage):
    """A run on it would fail, and that would count as its author's."""
    (path,) = full_cache.glob(READ_BY_A_RUN[what])
    DAMAGES[damage](path)
    code, report = checked(capsys)
    if "parquet" in what and damage == "changed":
        assert code == 0  # a run does not read it: its tokens are there
    else:
        assert (code, report["ok"]) == (1, False)
        assert "prepare.py" in " ".join(report["problems"])


@given(
    at=st.integers(0, 10**6), changes=st.binary(max_size=20), keep=st.integers(0, 10**6),
    codec=st.sampled_from(["zstd", "snappy", "none"]),
)  # fmt: skip
def test_whatever_is_damaged_in_a_parquet_file_is_one_line(at, changes, keep, codec):
    """Arrow and the decoder of its text raise a dozen kinds of error."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["ä plain text"] * 300}), sink, compression=codec)
    content = bytearray(sink.getvalue())
    at %= len(content)
    content[at : at + len(changes)] = changes
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        path = Path(file.name)
        path.write_bytes(content[: keep % len(content)] if keep % 2 else content)
        problem = "none"
        try:
            for _ in prepare.read_texts(path):
                pass
        except PrepareError as error:
            problem = str(error)
    assert len(problem.splitlines()) == 1


def test_a_cut_parquet_file_ends_the_command_in_one_line(full_cache, capsys):
    """It names the file and what to do."""
    cut(full_cache / "data" / "shard_00000.parquet")
    (line,) = refusal(capsys).splitlines()
    assert "shard_00000.parquet is damaged" in line
    assert "--force" in line


@pytest.mark.slow  # it trains tokenizers
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("what", READ_BY_A_RUN)
def test_a_damaged_cache_is_healed_or_the_command_says_how(
    full_cache, library, capsys, what, damage
):
    """`prepare.py` never ends in a traceback, and what it does not heal, `--force` does."""
    (path,) = full_cache.glob(READ_BY_A_RUN[what])
    DAMAGES[damage](path)
    if prepare.main([]) != 0:
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert "--force" in line
        assert prepare.main(["--force", "--source", str(library)]) == 0
    capsys.readouterr()
    assert checked(capsys)[0] == 0
