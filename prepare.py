"""What makes runs comparable: data, tokenizer, batches, the time budget and the metric.

train.py imports its parts, and agents never edit them. As a program, this file fills the cache:

    uv run prepare.py                      # climbmix, or without a network the offline corpus
    uv run prepare.py --source offline     # text that this machine has anyway
    uv run prepare.py --source ~/books     # a folder or a file of yours
    uv run prepare.py --check              # one line of JSON: can this machine train?

Importing it reads no data and uses no network. It does not cover the model, the optimizer or any
hyperparameter beyond its default (train.py), nor queues and workers (orchestrator/, gpu_worker/).

Environment: AUTORESEARCH_CACHE (folder, default ~/.cache/autoresearch), AUTORESEARCH_PROFILE (name
in PROFILES), AUTORESEARCH_TIME_BUDGET (seconds), AUTORESEARCH_HUB (a mirror of climbmix),
AUTORESEARCH_MEASURES (a file to which each measured val_bpb is added).
"""

import argparse
import base64
import contextlib
import fcntl
import functools
import hashlib
import heapq
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
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice, pairwise
from multiprocessing.pool import ThreadPool
from pathlib import Path
from ssl import SSLError
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor

# pyarrow and tiktoken are imported where they are used: training needs neither, and a run starts
# the sooner.
if TYPE_CHECKING:
    import tiktoken

Split = Literal["train", "val"]
T = TypeVar("T")
Tokens = np.ndarray[Any, np.dtype[np.uint16]]  # ids of one or more documents, one-dimensional
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
    Profile("80gb", 70, 2048, 40 * 2**19, 8, 128, 2**18, compile=True),
    Profile("40gb", 38, 2048, 40 * 2**19, 8, 64, 2**18, compile=True),
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


# Dense bf16 TFLOP/s with fp32 accumulation, from the makers' data sheets; the first match counts.
PEAK_TFLOPS = (
    ("B200", 2250.0),
    ("NVL", 835.0),
    ("H100 PCIe", 756.0),
    ("H100", 989.5),
    ("H200", 989.5),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("RTX 5090", 209.5),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
)


def peak_flops(device_name: str) -> float:
    """FLOP/s of a device, or 0.0 when it is not in the table (the CPU, for one)."""
    return next((t * 1e12 for name, t in PEAK_TFLOPS if name in device_name), 0.0)


def share_compiled_code() -> None:
    """Let all runs on this host find what an earlier one compiled; variables set outside win.

    The compilers write each file under another name and rename it, so runs at the same time, and
    killed ones, do no harm. Where the cache cannot be written to, each keeps to its own default.
    """
    folder = cache_dir() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    # A graph with an autograd.Function (FusedMLP) is not cached whole without it.
    os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE_ALLOW_CUSTOM_AUTOGRAD", "1")
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", str(folder / "flash"))


# --------------------------------------------------------------------------------------------------
# Kernels: what this device does fastest. Each has a plain form, which runs anywhere

if torch.cuda.is_available():  # half a second that a CPU run saves
    import triton  # type: ignore[import-untyped]
    import triton.language as tl  # type: ignore[import-untyped]
    from triton.tools.tensor_descriptor import TensorDescriptor  # type: ignore[import-untyped]


@dataclass
class Kernels:
    """What is used where the plain form is not."""

    flash: Any = None  # FlashAttention-4's module
    flex_masks: dict[tuple[int, int], Any] = field(default_factory=dict)  # by (context, window)
    multiprocessors: int = 0  # of a GPU that runs the fused MLP, else 0


KERNELS = Kernels()


def choose_kernels(
    context: int, windows: Iterable[int], dtype: torch.dtype, device: torch.device
) -> None:
    """For a compiled model on a GPU.

    On Hopper in bf16, where alone they were tried: the fused MLP, whose blocks a smaller GPU has
    no shared memory for, and FlashAttention-4 if it is installed. Else windows go to FlexAttention.
    """
    gpu = torch.cuda.get_device_properties(device)
    if dtype == torch.bfloat16 and gpu.major == 9:
        KERNELS.multiprocessors = gpu.multi_processor_count
        with contextlib.suppress(ImportError):
            from flash_attn.cute import interface  # type: ignore[import-not-found]

            KERNELS.flash = interface
            return
    from torch.nn.attention.flex_attention import create_block_mask

    for window in set(windows) - {context}:

        def sees(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor, window: int = window) -> Tensor:
            return (q >= k) & (q - k < window)

        mask = create_block_mask(sees, None, None, context, context, device=str(device))
        KERNELS.flex_masks[context, window] = mask


# The compiler takes these two for black boxes, so each also has to say what shapes it returns. What
# was compiled is found again by their names: with other shapes they need other names.
@torch.library.custom_op("autoresearch::flash", mutates_args=())
def flash(q: Tensor, k: Tensor, v: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The result, [B, T, H, D], and the logarithms of the softmax's denominators, [B, H, T]."""
    sides = (window - 1, 0) if window < q.size(1) else (None, None)
    attend = KERNELS.flash.flash_attn_func
    return attend(q, k, v, causal=True, window_size=sides, return_lse=True)  # type: ignore[no-any-return]


@torch.library.custom_op("autoresearch::flash_backward", mutates_args=())
def flash_backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    left, right = (window - 1, 0) if window < q.size(1) else (None, None)
    sides = {"window_size_left": left, "window_size_right": right}
    backward = KERNELS.flash._flash_attn_bwd  # noqa: SLF001  (public only by way of autograd)
    return backward(q, k, v, y, dy, lse, causal=True, **sides)  # type: ignore[no-any-return]


def keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.window = inputs[3]


def flash_shapes(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    rows, context, heads, _width = q.shape
    return q.new_empty(q.shape), q.new_empty((rows, heads, context), dtype=torch.float32)


flash.register_fake(flash_shapes)
flash_backward.register_fake(
    lambda _dy, *qkv_and_more: tuple(map(torch.empty_like, qkv_and_more[:3]))
)
flash.register_autograd(
    lambda ctx, dy, _: (*flash_backward(dy, *ctx.saved_tensors, ctx.window), None),
    setup_context=keep_for_backward,
)

if torch.cuda.is_available():

    @triton.jit  # type: ignore[untyped-decorator]
    def relu2_kernel(a, b, c, hidden, M, N, K,  # type: ignore[no-untyped-def]  # noqa: N803
                     BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,  # noqa: N803
                     PROGRAMS: tl.constexpr, BACKWARD: tl.constexpr):  # noqa: N803  # fmt: skip
        columns = tl.cdiv(N, BN)
        for tile in tl.range(tl.program_id(0), tl.cdiv(M, BM) * columns, PROGRAMS, flatten=True):
            m, n = tile // columns * BM, tile % columns * BN
            x = tl.zeros((BM, BN), tl.float32)
            for k in range(0, K, BK):
                x = tl.dot(a.load([m, k]), b.load([n, k]).T, x)
            # In two halves, which take less shared memory on their way out.
            halves = tl.split(tl.permute(tl.reshape(x, (BM, 2, BN // 2)), (0, 2, 1)))
            for i in tl.static_range(2):
                half = halves[i]
                if BACKWARD:
                    half *= 2 * tl.sqrt(hidden.load([m, n + i * (BN // 2)]).to(tl.float32))
                else:
                    half = tl.maximum(half, 0.0)
                    half *= half
                c.store([m, n + i * (BN // 2)], half.to(c.dtype))


def relu2_product(a: Tensor, b: Tensor, hidden: Tensor | None = None) -> Tensor:
    """relu(a bᵀ)² of a [M, K] and b [N, K], both contiguous: [M, N].

    With `hidden`, relu(z)², and a bᵀ as the gradient by it: the gradient by z, a bᵀ · 2 relu(z).
    """
    (m, k), n, (bm, bn, bk) = a.shape, len(b), (128, 256, 64)
    c = a.new_empty(m, n)
    blocks = (
        (a, [bm, bk]),
        (b, [bn, bk]),
        (c, [bm, bn // 2]),
        (c if hidden is None else hidden, [bm, bn // 2]),
    )
    tensors = [TensorDescriptor.from_tensor(x, block) for x, block in blocks]
    relu2_kernel[(KERNELS.multiprocessors,)](
        *tensors, m, n, k, bm, bn, bk, KERNELS.multiprocessors, hidden is not None,
        num_stages=3, num_warps=8,
    )  # fmt: skip
    return c


class FusedMLP(torch.autograd.Function):
    """down · relu(up · x)² of x [N, C]; keeps the hidden activations after relu² alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        hidden = relu2_product(x, up)
        ctx.save_for_backward(x, up, down, hidden)
        return hidden @ down.T

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, up, down, hidden = ctx.saved_tensors
        dz = relu2_product(dy.contiguous(), down.T.contiguous(), hidden)
        return dz @ up, dz.T @ x, dy.T @ hidden


def window_mask(context: int, window: int, device: torch.device) -> Tensor:
    """Boolean [context, context]: row t is true at the last `window` tokens up to t, t included."""
    position = torch.arange(context, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < window)


def attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Causal attention in which each token sees the last `window` tokens, itself included.

    q, k, v and the result: [B, T, H, D]. The scale is D^-1/2.
    """
    if KERNELS.flash is not None:
        y: Tensor = flash(q, k, v, window)[0]
        return y
    context = q.size(1)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if window >= context:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    elif (context, window) in KERNELS.flex_masks:
        from torch.nn.attention.flex_attention import flex_attention

        y = flex_attention(q, k, v, block_mask=KERNELS.flex_masks[context, window])
    else:
        mask = window_mask(context, window, q.device)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return y.transpose(1, 2)


def relu2_mlp(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """down · relu(up · x)² for each x of [..., C]; up [H, C], down [C, H]."""
    up, down = up.to(x.dtype), down.to(x.dtype)
    if not KERNELS.multiprocessors:
        return F.linear(F.relu(F.linear(x, up)).square(), down)
    y: Tensor = FusedMLP.apply(x.flatten(0, -2), up, down)
    return y.view_as(x)


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
        self._specials = specials
        by_rank = sorted(ranks, key=ranks.__getitem__)
        self.token_bytes = torch.tensor([*map(len, by_rank), *(0 for _ in specials)])

    @functools.cached_property
    def _encoding(self) -> "tiktoken.Encoding":
        import tiktoken

        return tiktoken.Encoding(
            "n-autoresearch",
            pat_str=SPLIT_PATTERN,
            mergeable_ranks=self._ranks,
            special_tokens=self._specials,
            explicit_n_vocab=self.vocab_size,  # asserts that the ids have no gaps
        )

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
        content = self._content()
        write_file(directory / "ranks.tiktoken", content)
        write_file(directory / "meta.json", json.dumps(self._meta(content), indent=1).encode())

    @functools.cached_property
    def digest(self) -> str:
        """Equal for tokenizers that give equal ids, and for no others."""
        return hashlib.sha256(json.dumps(self._meta(self._content())).encode()).hexdigest()

    def _content(self) -> bytes:
        by_rank = sorted(self._ranks.items(), key=lambda item: item[1])
        return b"".join(b"%s %d\n" % (base64.b64encode(t), rank) for t, rank in by_rank)

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

    def encode_document(self, text: str) -> Tokens:
        """BOS and the ids of a text, as they are stored."""
        ids = self._encoding.encode_to_numpy(text, disallowed_special=())
        return np.concatenate(([self.bos_id], ids), dtype=np.uint16, casting="unsafe")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return self._encoding.decode(list(ids))


# --------------------------------------------------------------------------------------------------
# Tokens: each document is tokenized once, and training reads them through memory maps

READ_DOCUMENTS = 128  # taken from a parquet file at a time
PACKING_BUFFER = 1000  # documents that best-fit chooses from
BATCHES_AHEAD = 3  # buffers between the thread that packs and the device
SAMPLED_DOCUMENTS = 100_000  # by which Batches.tokens_per_pass() knows what packing crops
NPY_HEADER_BYTES = 128  # in front of what np.save writes, if it has one or two dimensions


def read_texts(path: Path, documents: int = READ_DOCUMENTS) -> Iterator[list[str]]:
    """The `text` column of a parquet file, up to `documents` at a time, without empty texts."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=documents, columns=["text"]):
                yield [text for text in batch.column(0).to_pylist() if text]
    except (pa.ArrowInvalid, pa.ArrowKeyError, IndexError) as error:
        raise PrepareError(f"{path} is no parquet file with a `text` column: {error}") from error


@dataclass(frozen=True)
class TokenFile:
    """An array in the cache, <name>.npy, and <name>.json with its SHA-256, which is written last.

    `source_bytes` is the size of the parquet file that it was made of: another one, another array.
    """

    path: Path
    source_bytes: int
    dtype: type[np.generic]
    shape: tuple[int, ...] = (-1,)

    @property
    def record(self) -> Path:
        return self.path.with_suffix(".json")

    def exists(self) -> bool:
        """Whether it is there and made of the right file; a look at its name and record only."""
        return self.path.is_file() and self._recorded("source_bytes") == self.source_bytes

    def intact(self) -> bool:
        """Whether it is also what was written: reads all of it, at the disk's speed."""
        return self.exists() and self._recorded("sha256") == self._sha256()

    def write(self, array: "np.ndarray[Any, Any]") -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.record.unlink(missing_ok=True)
        with partial(self.path).open("wb") as file:
            np.save(file, array, allow_pickle=False)
        publish(self.path)
        record = {"sha256": self._sha256(), "source_bytes": self.source_bytes}
        write_file(self.record, json.dumps(record).encode())

    def map(self) -> "np.ndarray[Any, Any]":
        """The array, checked, and then read from disk where it is looked at."""
        if not self.intact():
            raise PrepareError(f"{self.path} is damaged. `uv run prepare.py` makes it again.")
        # np.load would parse the header with `ast`, which in Python 3.11 fails now and then if two
        # threads do so (cpython#106905), and what compiles the model does so beside the packing.
        flat = np.memmap(self.path, self.dtype, mode="r", offset=NPY_HEADER_BYTES)
        return np.asarray(flat).reshape(self.shape)

    def _recorded(self, key: str) -> Any:
        try:
            return json.loads(self.record.read_bytes()).get(key)
        except (FileNotFoundError, ValueError, AttributeError):
            return None

    def _sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


class TokenShards:
    """The tokenized documents of a split: for each parquet file two arrays in the cache.

    <shard>.tokens.npy: uint16, the documents one after the other, each with BOS in front.
    <shard>.starts.npy: int64, where each one starts, and at last where the last one ends.
    They lie in a folder named after the tokenizer, so that no other one reads them.
    """

    def __init__(self, tokenizer: Tokenizer, split: Split) -> None:
        self._tokenizer = tokenizer
        self._parquet = Manifest.require().paths(split)
        self.folder = cache_dir() / "tokens" / tokenizer.digest[:16]

    def files(self, parquet: Path) -> tuple[TokenFile, TokenFile]:
        """The (tokens, starts) of one parquet file, whether they exist or not."""
        size = parquet.stat().st_size
        name = str(self.folder / parquet.stem)
        return (
            TokenFile(Path(f"{name}.tokens.npy"), size, np.uint16),
            TokenFile(Path(f"{name}.starts.npy"), size, np.int64),
        )

    def missing(self, there: Callable[[TokenFile], bool] = TokenFile.exists) -> list[Path]:
        """The parquet files whose arrays are not `there`."""
        return [p for p in self._parquet if not all(map(there, self.files(p)))]

    def build(self, parquet_files: list[Path]) -> None:
        """Tokenize these on all cores. The caller sees to it that it is `alone`."""
        for number, parquet in enumerate(parquet_files, 1):
            pieces: list[Tokens] = []
            for documents in self._tokenized(parquet, f"{number} of {len(parquet_files)} shards"):
                pieces += documents
            starts = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
            tokens_file, starts_file = self.files(parquet)
            tokens_file.write(np.concatenate([np.empty(0, np.uint16), *pieces]))
            starts_file.write(starts)

    def _tokenized(self, parquet: Path, title: str) -> Iterator[list[Tokens]]:
        """The file's documents in order. tiktoken lets other threads run, so threads suffice."""
        import pyarrow.parquet as pq

        total, done, terminal = max(1, pq.read_metadata(parquet).num_rows), 0, sys.stdout.isatty()
        encode = self._tokenizer.encode_document
        with ThreadPool(os.cpu_count() or 1) as pool:
            for documents in pool.imap(lambda texts: [*map(encode, texts)], read_texts(parquet)):
                done += len(documents)
                if terminal:
                    bar = "#" * (30 * done // total)
                    say(f"\rtokens: {title} [{bar:30}] {100 * done // total:3} %", end="")
                yield documents
        say(("\r" if terminal else "") + f"tokens: {title}, {done:,} documents".ljust(70))

    def size(self) -> int:
        """Tokens of all documents, by the sizes of their files, which need not be opened."""
        sizes = (self.files(parquet)[0].path.stat().st_size for parquet in self._parquet)
        return sum((size - NPY_HEADER_BYTES) // 2 for size in sizes)

    def lengths(self) -> Iterator[int]:
        """Tokens of each document, in order."""
        for parquet in self._parquet:
            yield from np.diff(self.files(parquet)[1].map()).tolist()

    def documents(self) -> Iterator[Tokens]:
        """One pass over all documents, in the files' own order, checking each file before."""
        for parquet in self._parquet:
            tokens, starts = (file.map() for file in self.files(parquet))
            for start, end in pairwise(starts.tolist()):
                yield tokens[start:end]


def complete(shards: TokenShards) -> None:
    """Tokenize what prepare.py has not, once for all runs that start at the same time."""
    if shards.missing():
        with alone():
            shards.build(shards.missing())


class EndlessDocuments:
    """Pass after pass over the documents; `epoch` is the pass of the one read last, from 1."""

    def __init__(self, shards: TokenShards) -> None:
        self.epoch = 0
        self._shards = shards

    def __iter__(self) -> Iterator[Tokens]:
        for self.epoch in count(1):
            document = None
            for document in self._shards.documents():
                yield document
            if document is None:  # or an endless stream of nothing would hang
                raise PrepareError(
                    "The data holds no text. `uv run prepare.py --force` starts anew."
                )


# --------------------------------------------------------------------------------------------------
# Batches

Document = TypeVar("Document", bound="Sequence[int] | Tokens")


class Waiting(Generic[Document]):
    """Documents by length: the longest that fits, or the shortest, in order of arrival.

    Those that fit a row wait in one queue per length, and the bits of an integer say which queues
    hold any; longer ones wait in a heap. Neither looks at the other documents one by one.
    """

    def __init__(self, row_tokens: int) -> None:
        self._row_tokens = row_tokens
        self._by_length: defaultdict[int, deque[Document]] = defaultdict(deque)
        self._lengths = 0  # bit n is set when documents of n tokens wait
        self._longer: list[tuple[int, int, Document]] = []
        self._arrivals = count()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, document: Document) -> None:
        self._size += 1
        length = len(document)
        if length <= self._row_tokens:
            self._by_length[length].append(document)
            self._lengths |= 1 << length
        else:
            heapq.heappush(self._longer, (length, next(self._arrivals), document))

    def take(self, room: int) -> Document:
        """The longest of at most `room` tokens; if there is none, the shortest of all."""
        self._size -= 1
        fitting = self._lengths & ((2 << room) - 1)
        if not fitting and not self._lengths:
            return heapq.heappop(self._longer)[2]
        lowest = (self._lengths & -self._lengths).bit_length() - 1
        length = fitting.bit_length() - 1 if fitting else lowest
        queue_of_length = self._by_length[length]
        document = queue_of_length.popleft()
        if not queue_of_length:
            self._lengths ^= 1 << length
        return document


def pack_rows(
    documents: Iterable[Document], row_tokens: int, buffer_size: int = PACKING_BUFFER
) -> Iterator[list[Document]]:
    """Rows of exactly `row_tokens` tokens, without padding, as lists of pieces of documents.

    Of the `buffer_size` documents that wait, the longest that fits the rest of the row is placed;
    if none fits, the shortest is cropped to fill it, and what was cropped is lost. Equal lengths
    leave in order of arrival. At the end of finite input, the last incomplete row is dropped.
    """
    source = iter(documents)
    waiting = Waiting[Document](row_tokens)
    row: list[Document] = []
    room = row_tokens
    while True:
        for document in islice(source, buffer_size - len(waiting)):
            waiting.add(document)
        if not len(waiting):
            return
        piece: Any = waiting.take(room)[:room]
        row.append(piece)
        room -= len(piece)
        if not room:
            yield row
            row, room = [], row_tokens


@dataclass
class HostBatch:
    """A buffer that the packing thread fills and the device reads: int32 [B, T+1]."""

    tokens: Tensor
    copied: "torch.cuda.Event | None"  # when the device has read it
    epoch: int = 0


class Batches:
    """Endless batches for make_dataloader. A thread packs while the device works on earlier ones.

    A copy is asynchronous from page-locked memory only, so the thread waits for a buffer's event
    before it writes to it again. The thread ends with this object.
    """

    def __init__(
        self, shards: TokenShards, batch_size: int, seq_len: int, device: torch.device
    ) -> None:
        self._shards, self._seq_len, self._device = shards, seq_len, device
        documents = EndlessDocuments(shards)
        self._filled: queue.SimpleQueue[HostBatch | Exception] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[HostBatch | None] = queue.SimpleQueue()
        on_gpu = device.type == "cuda"
        for _ in range(BATCHES_AHEAD):
            tokens = torch.empty(batch_size, seq_len + 1, dtype=torch.int32, pin_memory=on_gpu)
            self._free.put(HostBatch(tokens, torch.cuda.Event() if on_gpu else None))  # type: ignore[no-untyped-call]
        thread = threading.Thread(
            target=fill_batches, args=(documents, self._free, self._filled), daemon=True
        )
        thread.start()
        # Also when the program ends: Python would tear a running thread out of the middle of C++.
        weakref.finalize(self, end_thread, thread, self._free)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> tuple[Tensor, Tensor, int]:
        batch = self._filled.get()
        if isinstance(batch, Exception):
            self._filled.put(batch)  # whoever asks again is told again
            raise batch
        tokens, epoch = batch.tokens.to(self._device, non_blocking=True), batch.epoch
        x, y = tokens[:, :-1].long(), tokens[:, 1:].long()
        if batch.copied is not None:
            batch.copied.record(torch.cuda.current_stream(self._device))
        self._free.put(batch)
        return x, y, epoch

    def tokens_per_pass(self) -> int:
        """Tokens in one pass over the text, at least 1: those that packing does not crop.

        Of our text a quarter is cropped. The share is that of the first SAMPLED_DOCUMENTS, a fifth
        of a second's work.
        """
        sample = list(islice(self._shards.lengths(), SAMPLED_DOCUMENTS))
        rows = sum(1 for _ in pack_rows(map(range, sample), self._seq_len + 1))
        return max(1, rows * self._seq_len * self._shards.size() // max(1, sum(sample)))


def end_thread(thread: threading.Thread, free: "queue.SimpleQueue[HostBatch | None]") -> None:
    free.put(None)
    if thread is not threading.current_thread():  # where a garbage collection may run
        thread.join()


def fill_batches(
    documents: EndlessDocuments,
    free: "queue.SimpleQueue[HostBatch | None]",
    filled: "queue.SimpleQueue[HostBatch | Exception]",
) -> None:
    """The packing thread: fill each free buffer, until None comes. Its errors go the same way."""
    try:
        rows: Iterator[list[Tokens]] | None = None
        while (batch := free.get()) is not None:
            rows = rows or pack_rows(documents, batch.tokens.size(1))
            if batch.copied is not None:
                batch.copied.synchronize()
            for target, row in zip(batch.tokens.numpy(), rows, strict=False):
                np.concatenate(row, out=target, casting="unsafe")
            batch.epoch = documents.epoch
            filled.put(batch)
    except Exception as error:  # noqa: BLE001 (whatever it is, the consumer must not wait for ever)
        filled.put(error)


def make_dataloader(
    tokenizer: Tokenizer, batch_size: int, seq_len: int, split: Split, device: torch.device
) -> Batches:
    """Endless batches (x, y, epoch); x and y are int64 [batch_size, seq_len] on `device`.

    y[b, t] follows x[b, t]. Rows depend on data, tokenizer and seq_len, not on batch_size. `epoch`
    counts from 1. Raises PrepareError when the cache is not prepared.
    """
    shards = TokenShards(tokenizer, split)
    complete(shards)
    return Batches(shards, batch_size, seq_len, device)


# --------------------------------------------------------------------------------------------------
# The metric

say_once = functools.cache(say)


def validation_file(shards: TokenShards, context: int, eval_tokens: int) -> TokenFile:
    """Where the rows that the metric reads are stored, uint16 [rows, context + 1]."""
    (parquet,) = Manifest.require().paths("val")
    name = f"validation_{eval_tokens // context}x{context}.npy"
    size = parquet.stat().st_size
    return TokenFile(shards.folder / name, size, np.uint16, shape=(-1, context + 1))


def pack_validation(shards: TokenShards, context: int, eval_tokens: int) -> Tokens:
    """The rows for `eval_tokens` targets, or for one pass where the validation shard has fewer."""
    rows = islice(pack_rows(shards.documents(), context + 1), eval_tokens // context)
    array = np.array([np.concatenate(row) for row in rows], dtype=np.uint16)
    return array.reshape(-1, context + 1)


def validation_rows(tokenizer: Tokenizer) -> Tokens:
    """This profile's rows, stored by prepare.py or by the first run that has to pack them."""
    shards = TokenShards(tokenizer, "val")
    file = validation_file(shards, MAX_SEQ_LEN, EVAL_TOKENS)
    if file.exists():
        return file.map()
    complete(shards)
    rows = pack_validation(shards, MAX_SEQ_LEN, EVAL_TOKENS)
    with contextlib.suppress(PrepareError), alone():  # a cache that cannot be written to will do
        file.write(rows)
    return rows


@torch.no_grad()
def evaluate_bpb(model: Callable[..., Tensor], tokenizer: Tokenizer, batch_size: int) -> float:
    """Bits per byte on the validation shard: sum of nats / (ln 2 · sum of bytes) over all targets.

    `model(x, y, reduction="none")` gives the cross-entropy in nats of each target, [B, T] or [B·T].
    Special tokens stand for no text and count in neither sum, so the number compares across
    vocabularies. EVAL_TOKENS targets are read, or one pass where the shard has fewer; which ones
    does not depend on batch_size. The caller sets the model's mode. Sums are kept in float64.
    """
    device = pick_device()
    rows = torch.from_numpy(validation_rows(tokenizer).astype(np.int32)).to(device)
    if not len(rows):
        raise PrepareError(
            f"The validation shard has no row of {MAX_SEQ_LEN} tokens. Use more text."
        )
    if len(rows) < EVAL_TOKENS // MAX_SEQ_LEN:
        say_once(
            f"val_bpb is measured on {len(rows) * MAX_SEQ_LEN:,} tokens, all that the validation "
            f"shard has; profile {PROFILE.name} asks for {EVAL_TOKENS:,}"
        )
    token_bytes = tokenizer.token_bytes.to(device)
    nats = torch.zeros((), dtype=torch.float64, device=device)
    total_bytes = torch.zeros((), dtype=torch.int64, device=device)
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        # Copies of its first row fill the last batch, because a compiled model would be compiled
        # anew for another shape; they do not count.
        used, filler = len(part), part[:1].expand(batch_size - len(part), -1)
        tokens = torch.cat((part, filler)).long()
        x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        losses = model(x, y, reduction="none").reshape(y.shape)[:used]
        sizes = token_bytes[y[:used]]
        nats += torch.where(sizes > 0, losses.double(), 0.0).sum()  # 0 · inf would be NaN
        total_bytes += sizes.sum()
    val_bpb = nats.item() / (math.log(2) * total_bytes.item())
    tell_worker(val_bpb)
    return val_bpb


def tell_worker(val_bpb: float) -> None:
    """Write the measure where the worker looks for it, if one asked: among all that is printed it
    believes the result block that says the same, and so no other."""
    if path := environment("AUTORESEARCH_MEASURES"):
        with Path(path).open("a", encoding="ascii") as file:
            file.write(f"{val_bpb!r}\n")


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
    import pyarrow as pa
    import pyarrow.parquet as pq

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
    import pyarrow as pa
    import pyarrow.parquet as pq

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
    """Remove the old corpus, what was made of it but no file of others; announce the new one."""
    folder, tokenizer = Manifest.folder(), cache_dir() / "tokenizer"
    ours = [tokenizer / "meta.json", tokenizer / "ranks.tiktoken", folder / "manifest.json"]
    for path in [*ours, *folder.glob("shard_?????.parquet*")]:
        path.unlink(missing_ok=True)
    shutil.rmtree(cache_dir() / "tokens", ignore_errors=True)
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


def prepare_tokens() -> None:
    """Tokenize what is missing or damaged, so that runs need not."""
    tokenizer = Tokenizer.load()
    train, validation = TokenShards(tokenizer, "train"), TokenShards(tokenizer, "val")
    for shards in (train, validation):
        shards.build(shards.missing(TokenFile.intact))
    # For every profile: those who train may have other devices than the one who prepares.
    for shape in {(profile.max_seq_len, profile.eval_tokens) for profile in PROFILES}:
        if not (file := validation_file(validation, *shape)).intact():
            file.write(pack_validation(validation, *shape))
    say(f"tokens: {validation.folder}")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Lets one prepare.py at a time work on this cache; the lock ends with its process."""
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        lock = (cache_dir() / "prepare.lock").open("w")
    except OSError as error:
        raise PrepareError(
            f"The cache cannot be written to ({error}). Run `uv run prepare.py` where it can."
        ) from error
    with lock as file:
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
            prepare_tokens()
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
