"""Bits per byte: what evaluate_bpb measures, against slow references."""

import itertools
import math
import sys
from types import SimpleNamespace

import pytest
import torch

import corpus
import prepare
from corpus import train_tokenizer
from prepare import Tokenizer, evaluate_bpb, pack_rows

CONTEXT = 16
TEXTS = [
    f"{i}: the quick brown fox, größer als {i * i} " + "jumps over it; " * (i % 6)
    for i in range(60)
]


@pytest.fixture(autouse=True)
def _small_cache(tmp_path, monkeypatch) -> None:
    """A small cache on the CPU; the profile asks for 20 rows of 16 tokens."""
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path))
    monkeypatch.setattr(prepare, "pick_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(prepare, "MAX_SEQ_LEN", CONTEXT)
    monkeypatch.setattr(prepare, "EVAL_TOKENS", 20 * CONTEXT)
    prepare.log_once.cache_clear()
    corpus.write_shards("offline", ["to train on"], TEXTS)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(iter(TEXTS * 10), vocab_size=340)


@pytest.fixture(scope="module")
def other_tokenizer() -> Tokenizer:
    return train_tokenizer(iter(TEXTS * 10), vocab_size=270)


def hashed_loss(x, y, reduction):
    """A stand-in for a model: nats that depend on both tokens."""
    assert reduction == "none"
    return (x * 31 + y * 17) % 97 / 13


def brute_force(tokenizer: Tokenizer, rows: int) -> float:
    """The definition, one target at a time, in Python's floats."""
    documents = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in prepared_texts()]
    nats, size = 0.0, 0
    for row in itertools.islice(pack_rows(documents, CONTEXT + 1), rows):
        for token, target in itertools.pairwise(itertools.chain(*row)):
            if target < tokenizer.vocab_size - 4:
                nats += (token * 31 + target * 17) % 97 / 13
                size += len(tokenizer._encoding.decode_single_token_bytes(target))
    return nats / (math.log(2) * size)


def prepared_texts() -> list[str]:
    (path,) = prepare.Manifest.require().paths("val")
    return [text for texts in prepare.read_texts(path) for text in texts]


def test_bpb_equals_the_definition_evaluated_in_a_loop(tokenizer):
    """Sum of nats over ln 2 times the sum of bytes, over every target that stands for text."""
    assert evaluate_bpb(hashed_loss, tokenizer, 4) == pytest.approx(
        brute_force(tokenizer, 20), rel=1e-6
    )


@pytest.mark.parametrize("batch_size", [1, 3, 7, 20, 64])
def test_bpb_does_not_depend_on_the_batch_size(tokenizer, batch_size):
    """20 rows, in batches that do or do not divide them: the filled-up last batch counts once."""
    expected = evaluate_bpb(hashed_loss, tokenizer, 5)
    assert evaluate_bpb(hashed_loss, tokenizer, batch_size) == pytest.approx(expected, rel=1e-12)


def test_each_measure_is_reported_to_the_worker(tokenizer, monkeypatch):
    """Exactly; a run by hand has nobody to report to."""
    first = evaluate_bpb(hashed_loss, tokenizer, 4)
    reported = []
    worker = SimpleNamespace(measured=reported.append)
    monkeypatch.setitem(sys.modules, "autoresearch_run", worker)
    second = evaluate_bpb(lambda x, y, reduction: hashed_loss(x, y, reduction) * 2, tokenizer, 4)
    evaluate_bpb(hashed_loss, tokenizer, 4)
    assert reported == [second, first]


def test_every_batch_has_the_same_shape(tokenizer):
    """A compiled model must not be compiled again for a smaller last batch."""
    shapes = []

    def model(x, y, reduction):
        shapes.append((x.shape, y.shape))
        return hashed_loss(x, y, reduction)

    evaluate_bpb(model, tokenizer, 7)
    assert shapes == [((7, CONTEXT), (7, CONTEXT))] * 3


def test_bpb_does_not_depend_on_the_tokenizer(tokenizer, other_tokenizer):
    """A model to which all 256 bytes are equally likely needs 8 bits a byte, in any vocabulary."""
    for each in (tokenizer, other_tokenizer):

        def model(_x, y, reduction, sizes=each.token_bytes):
            return sizes[y] * math.log(256)

        assert evaluate_bpb(model, each, 4) == pytest.approx(8.0, rel=1e-6)


def test_special_tokens_count_in_neither_sum(tokenizer):
    """The loss of a model on a document's beginning, even if infinite, changes nothing."""

    def hopeless_at_specials(x, y, reduction):
        losses = hashed_loss(x, y, reduction)
        return torch.where(y >= tokenizer.vocab_size - 4, math.inf, losses)

    expected = evaluate_bpb(hashed_loss, tokenizer, 4)
    assert evaluate_bpb(hopeless_at_specials, tokenizer, 4) == expected


def test_losses_may_come_flat(tokenizer):
    """[B·T] is as good as [B, T]."""

    def flat(x, y, reduction):
        return hashed_loss(x, y, reduction).flatten()

    assert evaluate_bpb(flat, tokenizer, 3) == evaluate_bpb(hashed_loss, tokenizer, 3)


def test_sums_are_kept_in_float64(tokenizer):
    """Small losses next to a huge one still count; a sum in float32 would swallow them."""

    def model(rest):
        def losses(_x, y, reduction):
            nats = torch.full(y.shape, rest)
            nats[0, 0] = 2.0**30
            return nats

        return losses

    assert evaluate_bpb(model(0.01), tokenizer, 20) > evaluate_bpb(model(0.0), tokenizer, 20)


def test_no_gradient_is_recorded(tokenizer):
    """Evaluation needs no memory for a backward pass, in any mode of the model."""
    weight = torch.ones((), requires_grad=True)

    def model(x, y, reduction):
        losses = hashed_loss(x, y, reduction) * weight
        assert not losses.requires_grad
        return losses

    evaluate_bpb(model, tokenizer, 4)


def test_a_small_validation_shard_is_read_once_and_that_is_said_once(
    tokenizer, monkeypatch, capsys
):
    """Never more than one pass: the result is the same for all batch sizes, and so is the text."""
    monkeypatch.setattr(prepare, "EVAL_TOKENS", 10**9)
    documents = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in prepared_texts()]
    rows = len(list(pack_rows(documents, CONTEXT + 1)))
    expected = brute_force(tokenizer, rows)
    for batch_size in (1, 8, 13):
        assert evaluate_bpb(hashed_loss, tokenizer, batch_size) == pytest.approx(expected, rel=1e-6)
    (line,) = [a for a in capsys.readouterr().out.splitlines() if "val_bpb" in a]
    assert f"{rows * CONTEXT:,} tokens" in line


def test_a_shard_without_one_row_is_an_error(tokenizer, monkeypatch):
    """Nothing to measure on must not be a number."""
    monkeypatch.setattr(prepare, "MAX_SEQ_LEN", 10**6)
    monkeypatch.setattr(prepare, "EVAL_TOKENS", 10**7)
    with pytest.raises(prepare.PrepareError, match="no row"):
        evaluate_bpb(hashed_loss, tokenizer, 1)


def test_validation_rows_are_packed_once_and_stored(tokenizer, monkeypatch):
    """Later evaluations read neither text nor documents, and find the same number."""
    expected = evaluate_bpb(hashed_loss, tokenizer, 4)
    monkeypatch.setattr(prepare, "pack_rows", None)
    monkeypatch.setattr(prepare, "read_texts", None)
    assert evaluate_bpb(hashed_loss, tokenizer, 4) == expected


def test_a_cache_that_cannot_be_written_to_is_evaluated_on_all_the_same(tokenizer, monkeypatch):
    """Workers in containers get it read-only, perhaps prepared for another profile."""
    expected = evaluate_bpb(hashed_loss, tokenizer, 4)
    monkeypatch.setattr(
        prepare.TokenFile, "exists", lambda file: "validation" not in file.path.name
    )
    real = prepare.Path.open

    def refuse(self, mode="r", *arguments, **keywords):
        if set(mode) & set("wax+"):
            raise OSError(30, "Read-only file system")
        return real(self, mode, *arguments, **keywords)

    monkeypatch.setattr(prepare.Path, "open", refuse)
    assert evaluate_bpb(hashed_loss, tokenizer, 4) == expected


def test_prepare_stores_rows_for_every_profile(tokenizer, monkeypatch):
    """The machine that prepares may have another device than the one that trains."""
    profile = prepare.Profile("tiny", None, 8, 64, 1, 1, 8, 0, 1, compile=False)
    monkeypatch.setattr(prepare, "PROFILES", (profile,))
    monkeypatch.setattr(Tokenizer, "load", lambda: tokenizer)
    corpus.prepare_tokens()
    shards = prepare.TokenShards(tokenizer, "val")
    assert prepare.validation_file(shards, 8, 64).map().shape == (8, 9)
