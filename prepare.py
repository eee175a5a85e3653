"""What makes runs comparable: data, tokenizer, batches, the time budget and the metric.

train.py imports its parts, and agents never edit them. As a program, this file fills the cache:

    uv run prepare.py                      # climbmix, or without a network the offline corpus
    uv run prepare.py --source offline     # text that this machine has anyway
    uv run prepare.py --source ~/books     # a folder or a file of yours
    uv run prepare.py --check              # one line of JSON: can this machine train?

Importing it reads no data and uses no network. It does not cover the model, the optimizer or any
hyperparameter beyond its default (train.py), nor queues and workers (orchestrator/, gpu_worker/).

Environment: AUTORESEARCH_CACHE (folder, default ~/.cache/autoresearch), AUTORESEARCH_PROFILE (name
in PROFILES), AUTORESEARCH_TIME_BUDGET (seconds), AUTORESEARCH_HUB (a mirror of climbmix).
"""

import argparse
import base64
import contextlib
import fcntl
import functools
import hashlib
import http.client
import json
import math
import multiprocessing
import os
import platform
import queue
import random
import re
import shutil
import sys
import sysconfig
import threading
import urllib.error
import urllib.request
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from ssl import SSLError
from typing import Any, Literal, TypeVar, overload

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import tiktoken
import torch
from torch import Tensor

Split = Literal["train", "val"]
T = TypeVar("T")
say = functools.partial(print, flush=True)  # logs are often pipes, where Python would hold it back


class PrepareError(Exception):
    """Settings, data or tokenizer cannot be used; the message says why and what to do."""


# --------------------------------------------------------------------------------------------------
# Settings: what the machine and the environment decide


@dataclass(frozen=True)
class Profile:
    """What a class of machines can bear. Results compare only within one profile."""

    name: str
    min_vram_gb: float | None  # GiB that the GPU must have; None: no GPU
    max_seq_len: int  # context in tokens: a fact for train.py, like eval_tokens
    eval_tokens: int  # targets that the metric reads at most
    depth: int  # from here on defaults, which train.py may change
    device_batch_size: int  # rows in one forward pass
    total_batch_size: int  # tokens in one optimizer step
    compile: bool  # off where compiling fails (old cards) or lasts longer than it saves


# Big first: the first one that the GPU's memory reaches is taken.
PROFILES = (
    Profile("80gb", 70, 2048, 40 * 2**19, 8, 128, 2**19, compile=True),
    Profile("40gb", 38, 2048, 40 * 2**19, 8, 64, 2**19, compile=True),
    Profile("24gb", 20, 2048, 10 * 2**19, 8, 8, 2**17, compile=True),
    Profile("small", 0, 2048, 2 * 2**19, 4, 2, 2**16, compile=False),
    Profile("cpu", None, 256, 2**16, 2, 8, 2**11, compile=False),
)


def environment(name: str) -> str | None:
    """A variable's value; empty counts as unset, because docker compose passes unset ones so."""
    return os.environ.get(name) or None


def select_profile(name: str | None, vram_gb: float | None) -> Profile:
    """The profile called `name`, or the one for a GPU of `vram_gb` GiB (None: no GPU)."""
    if name is not None:
        for profile in PROFILES:
            if profile.name == name:
                return profile
        known = ", ".join(profile.name for profile in PROFILES)
        raise PrepareError(f"AUTORESEARCH_PROFILE is {name!r}; it must be one of: {known}.")
    if vram_gb is None:
        return PROFILES[-1]
    return next(p for p in PROFILES if p.min_vram_gb is not None and p.min_vram_gb <= vram_gb)


def active_profile() -> Profile:
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    vram_gb = None if gpu is None else gpu.total_memory / 2**30
    return select_profile(environment("AUTORESEARCH_PROFILE"), vram_gb)


def time_budget() -> float:
    """Seconds of training that a run has."""
    text = environment("AUTORESEARCH_TIME_BUDGET") or "300"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise PrepareError(
            f"AUTORESEARCH_TIME_BUDGET is {text!r}; it must be a number of seconds above 0."
        )
    return seconds


def _read(setting: Callable[[], T], fallback: T) -> T:
    """A setting at import. As a program, main() reads it again and reports its errors."""
    try:
        return setting()
    except PrepareError:
        if __name__ == "__main__":
            return fallback
        raise


PROFILE = _read(active_profile, PROFILES[-1])
MAX_SEQ_LEN = PROFILE.max_seq_len
EVAL_TOKENS = PROFILE.eval_tokens
TIME_BUDGET = _read(time_budget, 300.0)
VOCAB_SIZE = 8192


def pick_device() -> torch.device:
    """The GPU, unless there is none or the profile is the CPU's."""
    usable = torch.cuda.is_available() and PROFILE.min_vram_gb is not None
    return torch.device("cuda" if usable else "cpu")


# --------------------------------------------------------------------------------------------------
# Files in the cache

LAST_SHARD = 6542
VALIDATION_SHARD = "shard_06542.parquet"  # pinned: whatever the source, it is never trained on


def shard_name(index: int) -> str:
    return f"shard_{index:05d}.parquet"


def cache_dir() -> Path:
    return Path(environment("AUTORESEARCH_CACHE") or "~/.cache/autoresearch").expanduser()


def partial(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def publish(path: Path) -> None:
    """Rename the finished partial(path) to path; a crash leaves the whole file there, or none."""
    with partial(path).open("rb+") as file:
        os.fsync(file.fileno())
    partial(path).replace(path)


def write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial(path).write_bytes(content)
    publish(path)


@dataclass(frozen=True)
class Manifest:
    """data/manifest.json: the corpus in this cache. Written before its shards, and once more after.

    source: "climbmix", "offline", or the path that was given. shards: their file names.
    validation_sha256: None until all shards are there; equal ones mean the same text to measure on.
    """

    source: str
    shards: list[str]
    validation_sha256: str | None = None

    @classmethod
    def load(cls) -> "Manifest | None":
        path = cls.folder() / "manifest.json"
        try:
            manifest = cls(**json.loads(path.read_bytes()))
            known = all(re.fullmatch(r"shard_\d{5}\.parquet", name) for name in manifest.shards)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            known = False
        if not known:
            raise PrepareError(f"{path} is damaged. `uv run prepare.py --force` starts anew.")
        return manifest

    @classmethod
    def require(cls) -> "Manifest":
        """The manifest of a corpus that is there; PrepareError if it is not, or not all of it."""
        manifest = cls.load()
        if manifest is None:
            raise PrepareError(f"There is no data in {cls.folder()}. Run `uv run prepare.py` here.")
        if lacking := manifest.lacking():
            raise PrepareError(
                f"{len(lacking)} shards are missing in {cls.folder()} ({lacking[0]}). Run `uv run "
                "prepare.py`: it completes the data, or says what to do."
            )
        return manifest

    @staticmethod
    def folder() -> Path:
        return cache_dir() / "data"

    def lacking(self) -> list[str]:
        return [name for name in self.shards if not (self.folder() / name).is_file()]

    def paths(self, split: Split) -> list[Path]:
        names = [n for n in self.shards if (n == VALIDATION_SHARD) == (split == "val")]
        return [self.folder() / name for name in sorted(names)]

    def save(self) -> None:
        write_file(self.folder() / "manifest.json", json.dumps(vars(self), indent=1).encode())

    def finish(self) -> None:
        validation = (self.folder() / VALIDATION_SHARD).read_bytes()
        Manifest(self.source, self.shards, hashlib.sha256(validation).hexdigest()).save()


# --------------------------------------------------------------------------------------------------
# Tokenizer

SPECIAL_TOKENS = tuple(f"<|reserved_{i}|>" for i in range(4))  # the first one begins documents
# GPT-4's pattern (cl100k_base in tiktoken), but digits in groups of two: 1000 groups of three would
# take an eighth of this small vocabulary.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
TOKENIZER_CHARS = 1_000_000_000  # text that the training of the tokenizer reads at most
TOKENIZER_DOCUMENT_CHARS = 10_000  # of each document, so that a few long ones do not dominate
ENCODE_THREADS = min(8, os.cpu_count() or 1)


class Tokenizer:
    """Byte-pair encoding. Ordinary tokens have ids 0 … n-1 by rank, the specials follow.

    It lies in the cache as data (tiktoken's rank format and JSON), never as a pickle: reading a
    poisoned cache must not run code. The hash finds damage; it is no signature.

    vocab_size: ordinary and special tokens together. bos_id: starts every document.
    token_bytes: int64 [vocab_size], the bytes of text that a token stands for, 0 for specials.
    """

    def __init__(self, ranks: dict[bytes, int]) -> None:
        specials = {name: len(ranks) + i for i, name in enumerate(SPECIAL_TOKENS)}
        self.vocab_size = len(ranks) + len(specials)
        self.bos_id = specials[SPECIAL_TOKENS[0]]
        self._ranks = ranks
        self._encoding = tiktoken.Encoding(
            "n-autoresearch",
            pat_str=SPLIT_PATTERN,
            mergeable_ranks=ranks,
            special_tokens=specials,
            explicit_n_vocab=self.vocab_size,  # asserts that the ids have no gaps
        )
        by_rank = sorted(ranks, key=ranks.__getitem__)
        self.token_bytes = torch.tensor([*map(len, by_rank), *(0 for _ in specials)])

    @classmethod
    def train(cls, documents: Iterator[str], vocab_size: int = VOCAB_SIZE) -> "Tokenizer":
        import rustbpe  # type: ignore[import-untyped]  # here, because train.py needs none

        ordinary = vocab_size - len(SPECIAL_TOKENS)
        trainer = rustbpe.Tokenizer()
        trainer.train_from_iterator(documents, ordinary, pattern=SPLIT_PATTERN)
        ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
        if len(ranks) != ordinary:
            raise PrepareError(
                f"The corpus is too small or too uniform: it gives {len(ranks)} of the {ordinary} "
                "tokens of the vocabulary. Use a larger one."
            )
        return cls(ranks)

    @classmethod
    def load(cls, directory: Path | None = None) -> "Tokenizer":
        """From `directory`, by default the cache; PrepareError if it is missing or changed."""
        directory = directory or cache_dir() / "tokenizer"
        again = "Run `uv run prepare.py`: it trains the tokenizer from the data in the cache."
        try:
            meta = json.loads((directory / "meta.json").read_bytes())
            content = (directory / "ranks.tiktoken").read_bytes()
        except FileNotFoundError as error:
            raise PrepareError(f"There is no tokenizer in {directory}. {again}") from error
        except ValueError as error:
            raise PrepareError(f"{directory / 'meta.json'} is damaged. {again}") from error
        if meta != cls._meta(content) or meta["vocab_size"] != VOCAB_SIZE:
            raise PrepareError(
                f"The tokenizer in {directory} was changed, damaged, or made by another version of "
                f"prepare.py: its SHA-256, size, split pattern or specials differ. {again}"
            )
        lines = (line.split() for line in content.splitlines())
        return cls({base64.b64decode(token): int(rank) for token, rank in lines})

    def save(self, directory: Path) -> None:
        by_rank = sorted(self._ranks.items(), key=lambda item: item[1])
        content = b"".join(b"%s %d\n" % (base64.b64encode(t), rank) for t, rank in by_rank)
        write_file(directory / "ranks.tiktoken", content)
        write_file(directory / "meta.json", json.dumps(self._meta(content), indent=1).encode())

    @staticmethod
    def _meta(ranks: bytes) -> dict[str, Any]:
        return {
            "vocab_size": ranks.count(b"\n") + len(SPECIAL_TOKENS),
            "pattern": SPLIT_PATTERN,
            "specials": list(SPECIAL_TOKENS),
            "ranks_sha256": hashlib.sha256(ranks).hexdigest(),
        }

    @overload
    def encode(self, text: str, num_threads: int = ...) -> list[int]: ...
    @overload
    def encode(self, text: list[str], num_threads: int = ...) -> list[list[int]]: ...
    def encode(
        self, text: str | list[str], num_threads: int = ENCODE_THREADS
    ) -> list[int] | list[list[int]]:
        """Ids of one text or of several, without BOS; a special's name in a text is just text."""
        if isinstance(text, str):
            return self._encoding.encode_ordinary(text)
        return self._encoding.encode_ordinary_batch(text, num_threads=num_threads)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return self._encoding.decode(list(ids))


# --------------------------------------------------------------------------------------------------
# Batches

READ_DOCUMENTS = 128  # tokenized at a time: enough for all threads, and no long pause on a CPU
PACKING_BUFFER = 1000  # documents that best-fit chooses from


def pack_rows(
    documents: Iterable[Sequence[int]], row_tokens: int, buffer_size: int = PACKING_BUFFER
) -> Iterator[list[int]]:
    """Rows of exactly `row_tokens` tokens, without padding, each starting with a document's start.

    Of the `buffer_size` documents that wait, the longest that fits the rest of the row is placed;
    if none fits, the shortest is cropped to fill it, and what was cropped is lost. Equal lengths
    leave in order of arrival. At the end of finite input, the last incomplete row is dropped.
    """
    source = iter(documents)
    lengths: list[int] = []  # ascending; waiting[i] has lengths[i] tokens
    waiting: list[Sequence[int]] = []
    row: list[int] = []
    while True:
        for document in islice(source, buffer_size - len(waiting)):
            at = bisect_right(lengths, len(document))
            lengths.insert(at, len(document))
            waiting.insert(at, document)
        if not waiting:
            return
        room = row_tokens - len(row)
        fitting = bisect_right(lengths, room)
        at = bisect_left(lengths, lengths[fitting - 1]) if fitting else 0
        del lengths[at]
        row.extend(waiting.pop(at)[:room])
        if len(row) == row_tokens:
            yield row
            row = []


def read_texts(path: Path, documents: int = READ_DOCUMENTS) -> Iterator[list[str]]:
    """The `text` column of a parquet file, up to `documents` at a time, without empty texts."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=documents, columns=["text"]):
                yield [text for text in batch.column(0).to_pylist() if text]
    except (pa.ArrowInvalid, pa.ArrowKeyError, IndexError) as error:
        raise PrepareError(f"{path} is no parquet file with a `text` column: {error}") from error


class TokenDocuments:
    """The documents of a split as token lists that start with BOS; `passes` None never ends.

    The order is the files' own, every time. `epoch` is the pass of the document read last, from 1.
    """

    def __init__(self, tokenizer: Tokenizer, split: Split, passes: int | None) -> None:
        self.epoch = 0
        self._tokenizer = tokenizer
        self._passes = passes
        self._paths = Manifest.require().paths(split)

    def __iter__(self) -> Iterator[list[int]]:
        bos = self._tokenizer.bos_id
        for epoch in count(1) if self._passes is None else range(1, self._passes + 1):
            self.epoch = epoch
            found = False
            for texts in (texts for path in self._paths for texts in read_texts(path)):
                for ids in self._tokenizer.encode(texts):
                    found = True
                    ids.insert(0, bos)
                    yield ids
            if not found:  # or an endless stream of nothing would hang
                raise PrepareError(
                    "The data holds no text. `uv run prepare.py --force` starts anew."
                )


def device_batches(
    rows: Iterable[list[int]], batch_size: int, row_tokens: int, device: torch.device
) -> Iterator[tuple[Tensor, int]]:
    """Pairs (batch int64 [2, B, T] on `device`: inputs and targets; how many of its B rows count).

    Only the last batch of finite rows can have rows that do not count: copies of its first row,
    because a compiled model would be compiled anew for another shape.
    """
    shape, on_gpu = (2, batch_size, row_tokens - 1), device.type == "cuda"
    slots: list[tuple[Tensor, torch.cuda.Event]] = []
    if on_gpu:
        # A copy is asynchronous from page-locked memory only. One buffer is filled while the other
        # is on its way; its event says when it may be written to again.
        pinned = (torch.empty(shape, dtype=torch.int64, pin_memory=True) for _ in range(2))
        slots = [(host, torch.cuda.Event()) for host in pinned]  # type: ignore[no-untyped-call]
    source = iter(rows)
    for turn in count():
        if on_gpu:
            host, copied = slots[turn % 2]
            copied.synchronize()
        else:
            host = torch.empty(shape, dtype=torch.int64)  # the consumer may keep it
        used = fill(host.numpy(), islice(source, batch_size))
        if not used:
            return
        batch = host.to(device, non_blocking=True)
        if on_gpu:
            copied.record(torch.cuda.current_stream(device))
        yield batch, used


def fill(host: "np.ndarray[Any, np.dtype[np.int64]]", rows: Iterable[list[int]]) -> int:
    """Write rows of T+1 tokens into host [2, B, T], targets one ahead; return their number."""
    used = 0
    for i, row in enumerate(rows):
        tokens = np.asarray(row, dtype=np.int64)
        host[0, i], host[1, i] = tokens[:-1], tokens[1:]
        used = i + 1
    if used:
        host[:, used:] = host[:, :1]
    return used


def make_dataloader(
    tokenizer: Tokenizer, batch_size: int, seq_len: int, split: Split, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Endless batches (x, y, epoch); x and y are int64 [batch_size, seq_len] on `device`.

    y[b, t] follows x[b, t]. Rows depend on data, tokenizer and seq_len, not on batch_size. `epoch`
    counts from 1. Raises PrepareError when the cache is not prepared.
    """
    documents = TokenDocuments(tokenizer, split, passes=None)
    batches = device_batches(pack_rows(documents, seq_len + 1), batch_size, seq_len + 1, device)
    return ((batch[0], batch[1], documents.epoch) for batch, _ in batches)


# --------------------------------------------------------------------------------------------------
# The metric

say_once = functools.cache(say)


@torch.no_grad()
def evaluate_bpb(model: Callable[..., Tensor], tokenizer: Tokenizer, batch_size: int) -> float:
    """Bits per byte on the validation shard: sum of nats / (ln 2 · sum of bytes) over all targets.

    `model(x, y, reduction="none")` gives the cross-entropy in nats of each target, [B, T] or [B·T].
    Special tokens stand for no text and count in neither sum, so the number compares across
    vocabularies. EVAL_TOKENS targets are read, or one pass where the shard has fewer; which ones
    does not depend on batch_size. The caller sets the model's mode. Sums are kept in float64.
    """
    device = pick_device()
    token_bytes = tokenizer.token_bytes.to(device)
    nats = torch.zeros((), dtype=torch.float64, device=device)
    total_bytes = torch.zeros((), dtype=torch.int64, device=device)
    wanted, read = EVAL_TOKENS // MAX_SEQ_LEN, 0
    documents = TokenDocuments(tokenizer, "val", passes=1)
    rows = islice(pack_rows(documents, MAX_SEQ_LEN + 1), wanted)
    for (x, y), used in device_batches(rows, batch_size, MAX_SEQ_LEN + 1, device):
        losses = model(x, y, reduction="none").reshape(y.shape)[:used]
        sizes = token_bytes[y[:used]]
        nats += torch.where(sizes > 0, losses.double(), 0.0).sum()  # 0 · inf would be NaN
        total_bytes += sizes.sum()
        read += used
    if read == 0:
        raise PrepareError(
            f"The validation shard has no row of {MAX_SEQ_LEN} tokens. Use more text."
        )
    if read < wanted:
        say_once(
            f"val_bpb is measured on {read * MAX_SEQ_LEN:,} tokens, all that the validation shard "
            f"has; profile {PROFILE.name} asks for {EVAL_TOKENS:,}"
        )
    return nats.item() / (math.log(2) * total_bytes.item())


# --------------------------------------------------------------------------------------------------
# climbmix: download

HUB = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
DEFAULT_SHARDS = 10
DOWNLOADS_AT_ONCE = 4
PROBE_SECONDS = 4.0  # how long to wait for the hub before going offline
STALL_SECONDS = 30.0  # a connection that is silent for so long is given up
ATTEMPTS = 6  # in a row without a single new byte
BACKOFF_SECONDS = 0.5  # after the first failure, doubled after each further one, 30 at most
CHUNK_BYTES = 1 << 18
FAULTS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, SSLError)


class TransientError(Exception):
    """A fault of the network or the server that may be over at the next attempt."""


def shard_url(name: str) -> str:
    base = (environment("AUTORESEARCH_HUB") or HUB).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise PrepareError(f"AUTORESEARCH_HUB is {base!r}; it must start with http:// or https://.")
    return f"{base}/{name}"


@contextlib.contextmanager
def open_url(url: str, byte_range: str, timeout: float) -> Iterator[Any]:
    """The response to a GET of a range; failures, in reading it too, become one of two errors."""
    headers = {"Range": f"bytes={byte_range}", "User-Agent": "n-autoresearch"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (shard_url looks at it)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            yield response
    except urllib.error.HTTPError as error:
        with error:
            if error.code not in (408, 425, 429) and error.code < 500:
                raise PrepareError(f"{url}: HTTP {error.code} {error.reason}") from error
            raise TransientError(f"HTTP {error.code} {error.reason}") from error
    except FAULTS as error:
        reason = str(getattr(error, "reason", error))
        raise TransientError(reason or type(error).__name__) from error


def remote_size(url: str, timeout: float = STALL_SECONDS) -> int:
    """Bytes of the file at url, from Content-Range, or Content-Length where ranges are ignored."""
    with open_url(url, "0-0", timeout) as response:
        name = "Content-Range" if response.status == 206 else "Content-Length"
        size = response.headers.get(name, "").rpartition("/")[2]
    if not size.isdecimal():
        raise TransientError("the server does not say how long the file is")
    return int(size)


def download_rest(url: str, part: Path, received: Callable[[int], None]) -> None:
    """Append what `part` lacks of url. What it holds afterwards has the size the server states."""
    have, total = part.stat().st_size if part.exists() else 0, remote_size(url)
    if have > total:
        part.unlink()
        have = 0
    received(have)
    if have == total:
        return
    with open_url(url, f"{have}-", STALL_SECONDS) as response:
        resumed = response.status == 206
        expected = f"bytes {have}-{total - 1}/{total}"
        if resumed and response.headers.get("Content-Range") != expected:
            part.unlink(missing_ok=True)
            raise TransientError("the server sent another part of the file than was asked for")
        if not resumed:
            have = 0  # it ignores ranges and starts over; so must we
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                have += len(chunk)
                received(have)
                file.write(chunk)
    if have != total:
        raise TransientError(f"the connection ended after {have:,} of {total:,} bytes")


def download(
    url: str, target: Path, received: Callable[[int], None], stop: threading.Event
) -> None:
    """Fetch url into target, through a partial file that outlives failures and interruption."""
    part, failures = partial(target), 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if target.exists() and target.stat().st_size == remote_size(url):
                return  # of an earlier download that this cache's manifest does not know
            download_rest(url, part, received)
            break
        except TransientError as error:
            gained = part.exists() and part.stat().st_size > before
            failures = 1 if gained else failures + 1
            if failures >= ATTEMPTS:
                raise PrepareError(
                    f"{url}: {error}. Run the same command later to go on."
                ) from error
            pause = min(30.0, BACKOFF_SECONDS * 2 ** (failures - 1))
            stop.wait(pause * random.uniform(0.5, 1.5))  # noqa: S311 (jitter is no secret)
    try:
        readable = "text" in pq.read_schema(part).names
    except (pa.ArrowInvalid, OSError):
        readable = False
    if not readable:  # a proxy's error page, for one
        part.unlink()
        raise PrepareError(f"{url} gave no parquet file with a `text` column.")
    publish(target)


def download_all(names: Sequence[str], folder: Path) -> None:
    """Fetch shards into `folder`, several at once; the first that fails for good ends it."""
    received: dict[str, int] = {}
    stop = threading.Event()

    def fetch(name: str) -> None:
        def note(size: int) -> None:
            if stop.is_set():
                raise PrepareError("stopped, because another download failed")
            received[name] = size

        download(shard_url(name), folder / name, note, stop)

    finished, terminal = 0, sys.stdout.isatty()
    # Its threads are daemons: after Ctrl-C nothing waits for a connection that is silent.
    with ThreadPool(DOWNLOADS_AT_ONCE) as pool:
        results = pool.imap_unordered(fetch, names)
        try:
            while finished < len(names):
                with contextlib.suppress(multiprocessing.TimeoutError):
                    results.next(timeout=0.25)
                    finished += 1
                    if not terminal:
                        say(f"climbmix: {finished} of {len(names)} shards")
                if terminal:
                    size = sum(list(received.values())) / 1e6
                    say(f"\rclimbmix: {finished} of {len(names)} shards, {size:,.0f} MB ", end="")
        finally:
            stop.set()
            if terminal:
                say()


def hub_trouble() -> str | None:
    """Why the hub cannot be used, or None if it answers."""
    url = shard_url(VALIDATION_SHARD)
    answer: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            remote_size(url, PROBE_SECONDS)
            answer.put(None)
        except (PrepareError, TransientError) as error:
            answer.put(str(error))

    # In a thread, because name resolution heeds no timeout.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.get(timeout=PROBE_SECONDS)
    except queue.Empty:
        return f"no answer within {PROBE_SECONDS:.0f} s"


# --------------------------------------------------------------------------------------------------
# Other corpora: text of this machine, of a folder, of parquet files

OFFLINE_BYTES = 60_000_000  # of text that the offline corpus takes; ready in half a minute
FOLDER_BYTES = 200_000_000  # and that a folder of the user's may give
VALIDATION_BYTES = 10_000_000  # held out, but at most a twelfth
SMALLEST_BYTES = 1_000_000
OFFLINE_SUFFIXES = {".py", ".md", ".rst", ".txt"}
SECTION_CHARS = 64_000  # held out or trained on as a whole: neighbouring text is much alike
DOCUMENT_CHARS = 4_000  # about half a context, since what exceeds a row is cropped and lost


def digest(text: bytes) -> bytes:
    """Identifies a text. Sorting by it is a shuffle with a fixed seed, the same on any machine."""
    return hashlib.blake2b(text, key=b"42").digest()


def cut(text: str, limit: int) -> Iterator[str]:
    """Pieces of at most `limit` characters, cut at blank lines where possible, else at line ends.

    Joined, they give the text back.
    """
    start = 0
    while len(text) - start > limit:
        half, end = start + limit // 2, start + limit
        ends = (text.rfind(mark, half, end) + len(mark) for mark in ("\n\n", "\n", " "))
        stop = next((at for at in ends if at > half), end)
        yield text[start:stop]
        start = stop
    yield text[start:]


def source_files(source: str) -> list[Path]:
    """The files of a source, in an order that only their paths within it decide.

    "offline": sources and documentation of Python and of the installed packages.
    """
    offline = source == "offline"
    libraries = (sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    found: dict[Path, bytes] = {}
    for root in sorted(set(libraries)) if offline else [source]:
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for path in (Path(folder, name) for name in names if not name.startswith(".")):
                if not offline or path.suffix in OFFLINE_SUFFIXES:
                    found.setdefault(path, digest(os.fsencode(path.relative_to(root))))
    return sorted(found, key=found.__getitem__) or [Path(source)]


def read_sections(path: Path) -> Iterator[list[str]]:
    """Documents to be held out together: pieces of a stretch of text, or a row of a parquet."""
    if path.suffix == ".parquet":
        for texts in read_texts(path):
            yield from ([text] for text in texts)
        return
    if not path.is_file():  # a broken link; a pipe, which would block
        return
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(FOLDER_BYTES)
    except (PermissionError, UnicodeDecodeError):
        return
    if "\0" not in text:
        for section in cut(text, SECTION_CHARS):
            yield [piece for piece in cut(section, DOCUMENT_CHARS) if piece.strip()]


def gather(paths: Iterable[Path], limit: int) -> list[list[str]]:
    """Different sections of the files, in order of digest, up to about `limit` bytes of text."""
    sections: dict[bytes, list[str]] = {}
    size = 0
    for section in (section for path in paths for section in read_sections(path)):
        key = digest("".join(section).encode())
        if key not in sections:
            sections[key] = section
            size += text_bytes(section)
        if size >= limit:
            break
    if size < SMALLEST_BYTES:
        raise PrepareError(
            f"There are only {size:,} bytes of text; a corpus needs {SMALLEST_BYTES:,} at least. "
            "Name a larger folder with --source."
        )
    return [sections[key] for key in sorted(sections)]


def text_bytes(texts: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def hold_out(sections: Iterable[list[str]], limit: int) -> tuple[list[str], list[str]]:
    """(training, validation) documents, shuffled: the first sections of `limit` bytes validate.

    No document is twice in the result, so none is in both, even if two sections share it.
    """
    seen: set[bytes] = set()
    splits: tuple[list[tuple[bytes, str]], ...] = ([], [])
    size = 0
    for section in sections:
        validates = size < limit
        size += text_bytes(section)
        for key, text in ((digest(text.encode()), text) for text in section):
            if key not in seen:
                seen.add(key)
                splits[validates].append((key, text))
    train, validation = ([text for _, text in sorted(split)] for split in splits)
    return train, validation


def write_shards(source: str, train: list[str], validation: list[str]) -> None:
    """Put a corpus into the cache, in climbmix's layout."""
    shards = {shard_name(0): train, VALIDATION_SHARD: validation}
    manifest = begin(source, list(shards))
    for name, texts in shards.items():
        path = manifest.folder() / name
        table = pa.table({"text": pa.array(texts, pa.string())})
        pq.write_table(table, partial(path), compression="zstd", row_group_size=1024)
        publish(path)
    manifest.finish()


def copy_shards(source: Path) -> None:
    """Take over a folder that has climbmix's layout, its split included."""
    if source == Manifest.folder().resolve():
        raise PrepareError(f"{source} is the cache itself. Name another folder.")
    names = sorted(path.name for path in source.glob("shard_" + "[0-9]" * 5 + ".parquet"))
    for name in names:
        next(read_texts(source / name), None)  # raises if it holds something else
    if len(names) < 2:
        raise PrepareError(f"{source} has {VALIDATION_SHARD} but no shard to train on.")
    manifest = begin(str(source), names)
    for name in names:
        path = manifest.folder() / name
        shutil.copyfile(source / name, partial(path))
        publish(path)
    manifest.finish()


def begin(source: str, shards: list[str]) -> Manifest:
    """Remove the old corpus and its tokenizer, but no file of others, and announce the new one."""
    folder, tokenizer = Manifest.folder(), cache_dir() / "tokenizer"
    ours = [tokenizer / "meta.json", tokenizer / "ranks.tiktoken", folder / "manifest.json"]
    for path in [*ours, *folder.glob("shard_?????.parquet*")]:
        path.unlink(missing_ok=True)
    manifest = Manifest(source, shards)
    manifest.save()
    return manifest


# --------------------------------------------------------------------------------------------------
# The command


def prepare_data(source: str | None, num_shards: int | None, *, force: bool) -> None:
    """Complete the corpus in the cache, or make the one that is asked for (None: by default)."""
    held = None if force else Manifest.load()
    if source not in (None, "climbmix", "offline"):
        source = str(Path(source).expanduser().resolve())
    if held is not None and source not in (None, held.source):
        raise PrepareError(
            f"{held.folder()} already holds {held.source!r}, and results on different corpora do "
            "not compare. Replace it with --force, or set AUTORESEARCH_CACHE to another folder."
        )
    source = held.source if held is not None else source or default_source()
    if source == "climbmix":
        prepare_climbmix(held, num_shards, force=force)
    elif num_shards is not None:
        raise PrepareError(f"--num-shards is for climbmix only; the source is {source!r}.")
    else:
        prepare_text(held, source, force=force)


def default_source() -> str:
    if (trouble := hub_trouble()) is None:
        return "climbmix"
    say(f"The hub of climbmix cannot be reached ({trouble}): taking text of this machine instead.")
    return "offline"


def prepare_climbmix(held: Manifest | None, num_shards: int | None, *, force: bool) -> None:
    """Download what is missing of the held shards, or of `num_shards` (-1: all) and validation."""
    n = LAST_SHARD if num_shards == -1 else num_shards or DEFAULT_SHARDS
    names = [*map(shard_name, range(n)), VALIDATION_SHARD]
    if held is not None and num_shards is None:
        names = held.shards
    wanted = Manifest("climbmix", names)
    # Without a manifest, shards that lie there are another program's: their size decides.
    missing = wanted.lacking() if held else names
    if missing:
        if trouble := hub_trouble():
            raise PrepareError(
                f"{len(missing)} shards of climbmix are to be downloaded, but its hub cannot be "
                f"reached ({trouble}). Try again later; `--source offline` needs no network."
            )
        if force:
            begin("climbmix", names)
        wanted.save()
        say(f"data: downloading {len(missing)} shards to {wanted.folder()}")
        download_all(missing, wanted.folder())
    wanted.finish()
    say(f"data: climbmix, {len(names) - 1} shards to train on, one to validate")


def prepare_text(held: Manifest | None, source: str, *, force: bool) -> None:
    """Build the corpus "offline" or the one at the path `source`, unless it is there."""
    if held is not None and held.validation_sha256 is not None:
        if lacking := held.lacking():
            raise PrepareError(
                f"{lacking[0]} is missing in {held.folder()}. This corpus can only be built anew, "
                "perhaps with other text: `uv run prepare.py --force`."
            )
        say(f"data: {source!r} is there already")
        return
    if held is None and not force and any(Manifest.folder().glob("shard_?????.parquet")):
        raise PrepareError(
            f"{Manifest.folder()} holds shards of another program. `--source climbmix` keeps those "
            "that are climbmix's (needs the network); --force removes them."
        )
    if source != "offline" and not Path(source).exists():
        raise PrepareError(f"There is no {source}. Apart from paths: climbmix or offline.")
    say(f"data: collecting text ({source})")
    if source != "offline" and (Path(source) / VALIDATION_SHARD).is_file():
        copy_shards(Path(source))
    else:
        limit = OFFLINE_BYTES if source == "offline" else FOLDER_BYTES
        sections = gather(source_files(source), limit)
        total = sum(map(text_bytes, sections))
        train, validation = hold_out(sections, min(VALIDATION_BYTES, total // 12))
        write_shards(source, train, validation)
        say(f"data: {len(train):,} documents to train on, {len(validation):,} to validate")
    say("data: val_bpb on this corpus compares only with itself")


def training_texts() -> Iterator[str]:
    """What the tokenizer learns from: the beginnings of training documents, up to a limit."""
    left = TOKENIZER_CHARS
    batches = (batch for path in Manifest.require().paths("train") for batch in read_texts(path))
    for text in (text for batch in batches for text in batch):
        if left <= 0:
            return
        left -= min(len(text), TOKENIZER_DOCUMENT_CHARS)
        yield text[:TOKENIZER_DOCUMENT_CHARS]


def prepare_tokenizer() -> None:
    directory = cache_dir() / "tokenizer"
    try:
        Tokenizer.load(directory)
    except PrepareError as error:
        if directory.exists():
            say(error)
        say(f"tokenizer: learning {VOCAB_SIZE} tokens")
        Tokenizer.train(training_texts()).save(directory)
    say(f"tokenizer: {directory}")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Lets one prepare.py at a time work on this cache; the lock ends with its process."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "prepare.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another prepare.py is at work on this cache; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check() -> dict[str, Any]:
    """Whether this machine can train, as the worker reports it. Hashes no shard, so it is quick."""
    readers: dict[str, Callable[[], Any]] = {
        "profile": active_profile,
        "budget": time_budget,
        "data": Manifest.require,
        "tokenizer": Tokenizer.load,
    }
    found: dict[str, Any] = dict.fromkeys(readers)
    problems = []
    for name, read in readers.items():
        try:
            found[name] = read()
        except (PrepareError, OSError) as error:
            problems.append(str(error))
    device = pick_device()
    return {
        "ok": not problems,
        "problems": problems,
        "profile": found["profile"] and found["profile"].name,
        "device": device.type,
        "device_name": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
        "cache": str(cache_dir()),
        "data_source": found["data"] and found["data"].source,
        "validation_sha256": found["data"] and found["data"].validation_sha256,
    }


def shard_count(text: str) -> int:
    number = int(text)
    if number != -1 and not 1 <= number <= LAST_SHARD:
        raise argparse.ArgumentTypeError(f"must be -1 or lie in 1 ... {LAST_SHARD}")
    return number


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="prepare.py",
        description="Fill the cache with training data and a tokenizer; does only what is missing.",
        epilog="AUTORESEARCH_CACHE moves the cache from ~/.cache/autoresearch.",
    )
    parser.add_argument(
        "--source",
        metavar="climbmix|offline|PATH",
        help="climbmix: shards of karpathy/climbmix-400b-shuffle; offline: text of this machine's "
        "Python and packages, no network; PATH: a folder of text or parquet files, or one file. A "
        f"folder with {VALIDATION_SHARD} keeps its split. Default: what the cache holds, else "
        "climbmix, else, where its hub cannot be reached, offline",
    )
    parser.add_argument(
        "--num-shards",
        type=shard_count,
        metavar="N",
        help=f"shards of climbmix to train on, 90 MB each (default {DEFAULT_SHARDS}, -1: all)",
    )
    parser.add_argument("--force", action="store_true", help="replace the data and the tokenizer")
    parser.add_argument(
        "--check",
        action="store_true",
        help="change nothing; print one line of JSON, exit 1 if not ok",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.check:
        report = check()
        say(json.dumps(report))
        return 0 if report["ok"] else 1
    try:
        active_profile()  # a wrong setting is reported now, not when training starts
        time_budget()
        with alone():
            prepare_data(args.source, args.num_shards, force=args.force)
            prepare_tokenizer()
    except KeyboardInterrupt:
        say("\nInterrupted. The same command goes on where this one stopped.")
        return 130
    except (PrepareError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say("Ready. Train with: uv run train.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
