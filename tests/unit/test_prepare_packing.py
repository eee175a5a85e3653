"""Packing documents into rows, and the dataloader that turns rows into batches."""

import ast
import itertools
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

import corpus
import prepare
from corpus import train_tokenizer
from prepare import Tokenizer, make_dataloader, pack_rows

CPU = torch.device("cpu")
STRIDE = 1000  # token = document * STRIDE + index in it, so each token shows its origin

lengths = st.lists(st.integers(1, 40), max_size=60)
row_sizes = st.integers(2, 20)
buffer_sizes = st.integers(1, 12)


def documents(sizes: list[int]) -> list[list[int]]:
    return [[i * STRIDE + at for at in range(n)] for i, n in enumerate(sizes)]


def naive_rows(docs: list[list[int]], row_tokens: int, buffer_size: int) -> list[list[int]]:
    """The packing rule in its most literal form: look at every waiting document each time."""
    source, waiting, rows, row = iter(docs), [], [], []
    while True:
        waiting += itertools.islice(source, buffer_size - len(waiting))
        if not waiting:
            return rows
        space = row_tokens - len(row)
        fitting = [d for d in waiting if len(d) <= space]
        chosen = max(fitting, key=len) if fitting else min(waiting, key=len)
        waiting.remove(chosen)
        row += chosen[:space]
        if len(row) == row_tokens:
            rows.append(row)
            row = []


def packed(docs: list[list[int]], row_tokens: int, buffer_size: int) -> list[list[int]]:
    """What pack_rows gives, each row's pieces joined."""
    return [list(itertools.chain(*row)) for row in pack_rows(docs, row_tokens, buffer_size)]


@given(lengths, row_sizes, buffer_sizes)
def test_rows_are_full_and_start_with_a_document(sizes, row_tokens, buffer_size):
    """No padding: every row has exactly the asked length, and its first token begins a document."""
    for row in packed(documents(sizes), row_tokens, buffer_size):
        assert len(row) == row_tokens
        assert row[0] % STRIDE == 0


@given(lengths, row_sizes, buffer_sizes)
def test_nothing_is_lost_but_crops_and_the_last_incomplete_row(sizes, row_tokens, buffer_size):
    """Rows are made of whole documents; only a row's last one may be cut, and none comes twice."""
    placed: dict[int, int] = {}
    for pieces in pack_rows(documents(sizes), row_tokens, buffer_size):
        for piece in pieces:
            document = piece[0] // STRIDE
            assert document not in placed
            assert piece == [document * STRIDE + at for at in range(len(piece))]
            placed[document] = len(piece)
        assert all(placed[p[0] // STRIDE] == sizes[p[0] // STRIDE] for p in pieces[:-1])
    missing = [size for document, size in enumerate(sizes) if document not in placed]
    assert sum(missing) < row_tokens


@given(lengths, row_sizes, buffer_sizes)
def test_packing_equals_the_literal_rule(sizes, row_tokens, buffer_size):
    """The sorted buffer chooses what a scan of all waiting documents chooses."""
    docs = documents(sizes)
    assert packed(docs, row_tokens, buffer_size) == naive_rows(docs, row_tokens, buffer_size)


def test_packing_reads_no_further_ahead_than_its_buffer():
    """An endless stream can be packed, and only the buffer's documents are held."""
    taken = itertools.count()
    rows = pack_rows(([next(taken)] for _ in itertools.repeat(None)), 4, buffer_size=10)
    first, second = next(rows), next(rows)
    assert (first, second) == ([[0], [1], [2], [3]], [[4], [5], [6], [7]])
    assert next(taken) <= 12 + 10


@pytest.fixture
def tokenizer(tmp_path, monkeypatch) -> Tokenizer:
    """A cache with 30 documents to train on and 10 to validate, and a tokenizer of 280 tokens."""
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path))
    train = [f"train {i} " + "the cat sat on the mat " * (i % 7 + 1) for i in range(30)]
    validation = [f"held {i} " + "a dog ran in the fog " * (i % 5 + 1) for i in range(10)]
    corpus.write_shards("offline", train, validation)
    return train_tokenizer(iter(train * 20), vocab_size=280)


def test_batches_are_rows_and_the_same_one_token_on(tokenizer):
    """x and y are int64 [B, T]; y is x one token later; each row starts with BOS."""
    x, y, epoch = next(make_dataloader(tokenizer, 4, 16, "train", CPU))
    assert x.shape == y.shape == (4, 16)
    assert x.dtype == y.dtype == torch.int64
    assert epoch >= 1
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert (x[:, 0] == tokenizer.bos_id).all()


def test_rows_do_not_depend_on_the_batch_size(tokenizer):
    """One batch of twelve rows holds what four batches of three hold."""
    large = next(make_dataloader(tokenizer, 12, 16, "train", CPU))[0]
    small = itertools.islice(make_dataloader(tokenizer, 3, 16, "train", CPU), 4)
    assert torch.equal(large, torch.cat([x for x, _, _ in small]))


def test_the_loader_goes_on_forever_and_counts_epochs(tokenizer):
    """Many passes over 30 documents: the epoch rises by one at a time."""
    loader = make_dataloader(tokenizer, 8, 64, "train", CPU)
    epochs = [epoch for _, _, epoch in itertools.islice(loader, 60)]
    steps = [after - before for before, after in itertools.pairwise(epochs)]
    assert set(steps) == {0, 1}


def test_the_fifth_pass_over_the_text_is_told_once(tokenizer, capsys):
    loader = make_dataloader(tokenizer, 4, 16, "train", CPU)
    while loader.epoch < prepare.MANY_PASSES + 2:
        next(loader)
    assert capsys.readouterr().out.count("for the 5th time: a run learns it by heart") == 1


def test_a_batch_stays_as_it_is_when_the_next_one_comes(tokenizer):
    """A consumer may keep batches: memory that it was given is not written to again."""
    loader = make_dataloader(tokenizer, 2, 16, "train", CPU)
    kept = [next(loader)[:2] for _ in range(5)]
    copies = [(x.clone(), y.clone()) for x, y in kept]
    for _ in range(5):
        next(loader)
    for (x, y), (x_copy, y_copy) in zip(kept, copies, strict=True):
        assert torch.equal(x, x_copy)
        assert torch.equal(y, y_copy)


def test_each_split_reads_its_own_shards(tokenizer):
    """Text of the validation shard appears in no training batch, and the other way round."""
    for split, own, other in (("train", "train", "held"), ("val", "held", "train")):
        loader = make_dataloader(tokenizer, 8, 64, split, CPU)
        rows = [row for x, _, _ in itertools.islice(loader, 20) for row in x.tolist()]
        text = " ".join(tokenizer.decode(row) for row in rows)
        assert own in text
        assert other not in text


def test_an_unprepared_cache_is_an_error_that_says_what_to_do(tokenizer, tmp_path, monkeypatch):
    """The loader fails when it is made, not at the first batch, and names the command."""
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(prepare.PrepareError, match=r"Run `uv run prepare\.py`"):
        make_dataloader(tokenizer, 2, 16, "train", CPU)


def test_data_without_text_ends_instead_of_spinning(tokenizer):
    """An endless loader over nothing would hang a worker until its budget is over."""
    corpus.write_shards("offline", [""], [""])
    with pytest.raises(prepare.PrepareError, match="no text"):
        next(make_dataloader(tokenizer, 2, 16, "train", CPU))


def stored(tokenizer: Tokenizer, split: prepare.Split) -> list[list[int]]:
    return [d.tolist() for d in prepare.TokenShards(tokenizer, split).documents()]


def test_documents_are_tokenized_once_and_stored_as_they_are(tokenizer, monkeypatch):
    """The stored ids are those of encode() with BOS in front, and later runs read them."""
    next(make_dataloader(tokenizer, 2, 16, "train", CPU))
    (path,) = prepare.Manifest.require().paths("train")
    texts = [text for batch in prepare.read_texts(path) for text in batch]
    expected = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in texts]
    monkeypatch.setattr(prepare, "read_texts", None)
    assert stored(tokenizer, "train") == expected
    next(make_dataloader(tokenizer, 2, 16, "train", CPU))


def test_text_that_names_a_special_token_is_stored_as_text(tokenizer):
    """The array form of the encoder must not find specials either."""
    text = "".join(prepare.SPECIAL_TOKENS)
    ids = tokenizer.encode_document(text)
    assert ids.dtype == np.uint16
    assert ids.tolist() == [tokenizer.bos_id, *tokenizer.encode(text)]


def test_another_tokenizer_reads_no_foreign_tokens(tokenizer):
    """Ids mean nothing without the tokenizer they come from."""
    next(make_dataloader(tokenizer, 2, 16, "train", CPU))
    other = train_tokenizer(iter(["a dog ran in the fog"] * 20), vocab_size=262)
    next(make_dataloader(other, 2, 16, "train", CPU))
    assert other.digest != tokenizer.digest
    assert stored(other, "train") != stored(tokenizer, "train")


def test_damaged_tokens_are_an_error_that_says_what_to_do(tokenizer):
    """With a flipped bit a run would train on other text; the loader raises the thread's error."""
    shards = prepare.TokenShards(tokenizer, "train")
    next(make_dataloader(tokenizer, 2, 16, "train", CPU))
    (path,) = prepare.Manifest.require().paths("train")
    file, _ = shards.files(path)
    content = bytearray(file.path.read_bytes())
    content[-1] ^= 1
    file.path.write_bytes(content)
    loader = make_dataloader(tokenizer, 2, 16, "train", CPU)
    for _ in range(2):  # the second call raises too and does not hang
        with pytest.raises(prepare.PrepareError, match=r"damaged.*prepare\.py"):
            next(loader)
    shards.build(shards.missing(prepare.TokenFile.intact))
    next(make_dataloader(tokenizer, 2, 16, "train", CPU))


def test_tokens_are_mapped_without_the_parser_that_is_unsafe_in_threads(tokenizer, monkeypatch):
    """np.load parses its header with `ast`; beside a thread that compiles it failed now and then
    with "AST constructor recursion depth mismatch" (cpython#106905)."""
    expected = next(make_dataloader(tokenizer, 2, 16, "train", CPU))
    parsed, parse = [], ast.parse

    def noted(source, *args, **kwargs):
        parsed.append(source)
        return parse(source, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ast, "parse", noted)
        found = next(make_dataloader(tokenizer, 2, 16, "train", CPU))
    assert parsed == []
    assert all(map(torch.equal, found[:2], expected[:2]))


def test_a_loader_that_is_dropped_leaves_no_thread(tokenizer):
    """Tests, benchmarks and searches in one process make many of them."""
    before = set(threading.enumerate())  # of other tests; they may end meanwhile
    loaders = [make_dataloader(tokenizer, 2, 16, "train", CPU) for _ in range(3)]
    for loader in loaders:
        next(loader)
    assert set(threading.enumerate()) - before
    del loaders, loader
    assert set(threading.enumerate()) <= before


def test_runs_that_start_together_tokenize_once(tokenizer, monkeypatch):
    """Four loaders on a cache without tokens: one builds, three wait for it."""
    built = []
    real = prepare.TokenShards.build

    def build(self, parquet_files):
        built.append(len(parquet_files))
        real(self, parquet_files)

    monkeypatch.setattr(prepare.TokenShards, "build", build)

    def first() -> None:
        next(make_dataloader(tokenizer, 2, 16, "train", CPU))

    threads = [threading.Thread(target=first) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(built) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_buffers_are_not_overwritten_while_they_are_copied(tokenizer):
    """With the GPU far behind, its batches still equal those made on the CPU."""
    gpu = torch.device("cuda")
    slow = torch.randn(4096, 4096, device=gpu)
    on_gpu = make_dataloader(tokenizer, 64, 512, "train", gpu)
    on_cpu = make_dataloader(tokenizer, 64, 512, "train", CPU)
    batches = []
    for _ in range(20):
        for _ in range(5):
            slow = slow @ slow / 64
        batches.append(next(on_gpu)[:2])
    for (x, y), (x_cpu, y_cpu, _) in zip(batches, on_cpu, strict=False):
        assert torch.equal(x.cpu(), x_cpu)
        assert torch.equal(y.cpu(), y_cpu)
