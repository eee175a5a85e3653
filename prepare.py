"""What makes runs comparable: data, tokenizer, batches, the time budget and the metric.

- Covers all that train.py imports: platform profile, kernels, tokenizer, dataloader, val_bpb.
- Leaves out the command `uv run prepare.py`, which fills the cache (corpus.py); the model and its
  optimizer (train.py); queues and workers (orchestrator/, gpu_worker/).

Agents never edit this file: a tag pins its SHA-256. Importing it reads no data and uses no network.

Environment: AUTORESEARCH_CACHE (folder, default ~/.cache/autoresearch), AUTORESEARCH_PROFILE (name
in PROFILES), AUTORESEARCH_TIME_BUDGET (seconds).
"""

import base64
import contextlib
import fcntl
import functools
import hashlib
import json
import math
import os
import platform
import re
import sys
import weakref
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, count, islice, pairwise
from multiprocessing.pool import ThreadPool
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the conventional name)
from torch import Tensor

# pyarrow and tiktoken are imported where they are used: training needs neither of them.
if TYPE_CHECKING:
    import tiktoken

Split = Literal["train", "val"]
Tokens = np.ndarray[Any, np.dtype[np.uint16]]  # token ids of one or more documents, [n]
log = functools.partial(print, flush=True)  # stdout is often a pipe, which Python would buffer
log_once = functools.cache(log)


class PrepareError(Exception):
    """Settings, data or tokenizer cannot be used; the message says why and what to do."""


# Settings: what the machine and the environment decide --------------------------------------------


@dataclass(frozen=True)
class Profile:
    """What a class of machines can run. Results compare only within one profile."""

    name: str
    min_vram_gb: float | None  # GiB of NVIDIA memory that it needs; None: none
    max_seq_len: int  # context in tokens; fixed for train.py
    eval_tokens: int  # targets that the metric reads at most; fixed for train.py
    depth: int  # number of blocks; this and what follows are defaults that train.py may change
    device_batch_size: int  # rows in one forward pass
    total_batch_size: int  # tokens in one optimizer step
    ngram_rows: int  # of each table of n-grams; 0: no tables
    tokens_per_second: int  # that train.py reads, about
    compile: bool  # off where torch.compile fails (old cards) or takes longer than it saves


# In falling order of memory: the first one that fits the GPU is taken.
PROFILES = (
    Profile("80gb", 70, 2048, 40 * 2**19, 8, 64, 2**18, 2**20, 1_800_000, compile=True),
    Profile("40gb", 38, 2048, 40 * 2**19, 8, 64, 2**18, 2**19, 800_000, compile=True),
    Profile("24gb", 20, 2048, 10 * 2**19, 8, 32, 2**17, 2**18, 400_000, compile=True),
    Profile("small", 0, 2048, 2 * 2**19, 4, 2, 2**16, 0, 100_000, compile=False),
    Profile("mps", None, 1024, 2 * 2**19, 4, 8, 2**15, 0, 30_000, compile=False),  # Apple's GPUs
    Profile("cpu", None, 256, 2**16, 2, 8, 2**11, 0, 10_000, compile=False),
)


def env_value(name: str) -> str | None:
    """An environment variable; an empty one counts as unset, as docker compose passes those."""
    return os.environ.get(name) or None


def select_profile(name: str | None, vram_gb: float | None) -> Profile:
    """The profile called `name`, or the one for a GPU of `vram_gb` GiB (None: no GPU)."""
    if name is not None:
        by_name = {profile.name: profile for profile in PROFILES}
        if name not in by_name:
            known = ", ".join(by_name)
            raise PrepareError(f"AUTORESEARCH_PROFILE is {name!r}; it must be one of: {known}.")
        return by_name[name]
    if vram_gb is None:
        return PROFILES[-1]
    return next(p for p in PROFILES if p.min_vram_gb is not None and p.min_vram_gb <= vram_gb)


def active_profile() -> Profile:
    vram_gb, mps = None, torch.backends.mps.is_available()
    if torch.cuda.is_available():
        vram_gb = torch.cuda.get_device_properties(0).total_memory / 2**30
    return select_profile(env_value("AUTORESEARCH_PROFILE") or ("mps" if mps else None), vram_gb)


def time_budget() -> float:
    """Seconds of counted training in a run."""
    text = env_value("AUTORESEARCH_TIME_BUDGET") or "300"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise PrepareError(f"AUTORESEARCH_TIME_BUDGET is {text!r}; it must be seconds above 0.")
    return seconds


try:
    PROFILE, TIME_BUDGET = active_profile(), time_budget()
except PrepareError:
    if __name__ != "__main__":
        raise
    PROFILE, TIME_BUDGET = PROFILES[-1], 300.0  # the program reads both again and reports the error
MAX_SEQ_LEN = PROFILE.max_seq_len
EVAL_TOKENS = PROFILE.eval_tokens
VOCAB_SIZE = 8192


def pick_device() -> torch.device:
    """The GPU, unless there is none or the profile is the CPU's."""
    mps, cuda = torch.backends.mps.is_available(), torch.cuda.is_available()
    if PROFILE.name == "mps":
        return torch.device("mps" if mps else "cpu")
    return torch.device("cuda" if cuda and PROFILE.min_vram_gb is not None else "cpu")


# Dense bf16 TFLOP/s with fp32 accumulation, from the makers' data sheets; the first match counts.
PEAK_TFLOPS = (
    ("B200", 2250.0), ("NVL", 835.0), ("H100 PCIe", 756.0), ("H100", 989.5), ("H200", 989.5),
    ("A100", 312.0), ("L40S", 362.0), ("L40", 181.0), ("L4", 121.0),
    ("RTX 5090", 209.5), ("RTX 4090", 165.2), ("RTX 3090", 71.0),
)  # fmt: skip


def peak_flops(device_name: str) -> float:
    """FLOP/s of a device, or 0.0 when it is not in the table (as a CPU)."""
    return next((t * 1e12 for name, t in PEAK_TFLOPS if name in device_name), 0.0)


def share_compiled_code() -> None:
    """Give the compilers one cache for all runs of this host; variables set outside win. They
    rename finished files into place, so runs may overlap or be killed."""
    folder = cache_dir() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # the compilers keep their own defaults
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    # Without it, a graph that contains an autograd.Function (FusedMLP) is not cached as a whole.
    os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE_ALLOW_CUSTOM_AUTOGRAD", "1")
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", str(folder / "flash"))


# Kernels for attention and the relu² MLP. Each has a plain form, which runs on any device ---------

if torch.cuda.is_available():  # the import takes half a second, which a CPU run saves
    import triton  # type: ignore[import-untyped]
    import triton.language as tl  # type: ignore[import-untyped]
    from triton.tools.tensor_descriptor import TensorDescriptor  # type: ignore[import-untyped]


@dataclass
class Kernels:
    """The fast kernels in use; with the defaults, every operation takes its plain form."""

    flash: Any = None  # FlashAttention-4's module
    flex_masks: dict[tuple[int, int], Any] = field(default_factory=dict)  # by (context, window)
    multiprocessors: int = 0  # of a GPU that runs the fused MLP, else 0


KERNELS = Kernels()


def choose_kernels(
    context: int, windows: Iterable[int], dtype: torch.dtype, device: torch.device
) -> None:
    """Set KERNELS for a compiled model on a GPU. bf16 on Hopper gets the fused MLP, for which other
    GPUs lack shared memory, and FlashAttention-4 if installed. Else windows get FlexAttention."""
    gpu = torch.cuda.get_device_properties(device)
    if dtype == torch.bfloat16 and gpu.major == 9:
        KERNELS.multiprocessors = gpu.multi_processor_count
        with contextlib.suppress(ImportError):
            from flash_attn.cute import interface  # type: ignore[import-not-found]

            KERNELS.flash = interface
            return
    from torch.nn.attention.flex_attention import create_block_mask

    for window in set(windows) - {context}:

        def visible(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor, window: int = window) -> Tensor:
            return (q >= k) & (q - k < window)

        mask = create_block_mask(visible, None, None, context, context, device=str(device))
        KERNELS.flex_masks[context, window] = mask


# Custom operations are opaque to the compiler, so each also declares the shapes that it returns.
# The compile cache finds them by name alone: an operation with other shapes needs another name.
@torch.library.custom_op("autoresearch::flash", mutates_args=())
def flash(q: Tensor, k: Tensor, v: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The result, [B, T, H, D], and the softmax's log-sum-exp in fp32, [B, H, T]."""
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


def save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.window = inputs[3]


def flash_shapes(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    rows, context, heads, _width = q.shape
    return q.new_empty(q.shape), q.new_empty((rows, heads, context), dtype=torch.float32)


flash.register_fake(flash_shapes)
flash_backward.register_fake(lambda _dy, *others: tuple(map(torch.empty_like, others[:3])))
flash.register_autograd(
    lambda ctx, dy, _: (*flash_backward(dy, *ctx.saved_tensors, ctx.window), None),
    setup_context=save_for_backward,
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
    """relu(a bᵀ)² of a [M, K] and b [N, K], both contiguous bf16: [M, N].

    With `hidden` = relu(z)² and a bᵀ as its gradient: the gradient of z, a bᵀ · 2 relu(z).
    """
    (m, k), n, (bm, bn, bk) = a.shape, len(b), (128, 256, 64)
    c = a.new_empty(m, n)
    half = [bm, bn // 2]
    blocks = ((a, [bm, bk]), (b, [bn, bk]), (c, half), (c if hidden is None else hidden, half))
    tensors = [TensorDescriptor.from_tensor(x, block) for x, block in blocks]
    relu2_kernel[(KERNELS.multiprocessors,)](
        *tensors, m, n, k, bm, bn, bk, KERNELS.multiprocessors, hidden is not None,
        num_stages=3, num_warps=8,
    )  # fmt: skip
    return c


class FusedMLP(torch.autograd.Function):
    """down · relu(up · x)² of x [N, C]; of the hidden activations it keeps only relu²."""

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

    q, k, v and the result: [B, T, H, D]. Scores are scaled by D^-1/2.
    """
    if KERNELS.flash is not None:
        return flash(q, k, v, window)[0]  # type: ignore[no-any-return]
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
    """down · relu(up · x)² for x [..., C], up [H, C], down [C, H] (Primer, arXiv:2109.08668)."""
    up, down = up.to(x.dtype), down.to(x.dtype)
    if not KERNELS.multiprocessors:
        return F.linear(F.relu(F.linear(x, up)).square(), down)
    return FusedMLP.apply(x.flatten(0, -2), up, down).view_as(x)  # type: ignore[no-any-return]


# Files in the cache -------------------------------------------------------------------------------

VALIDATION_SHARD = "shard_06542.parquet"  # the same name for every source; never trained on


def cache_dir() -> Path:
    try:
        return Path(env_value("AUTORESEARCH_CACHE") or "~/.cache/autoresearch").expanduser()
    except RuntimeError as error:
        raise PrepareError("This user has no home folder: set AUTORESEARCH_CACHE.") from error


@contextlib.contextmanager
def cache_lock() -> Iterator[None]:
    """Let one process at a time write to the cache; PrepareError if it cannot be written to."""
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        lock = (cache_dir() / "prepare.lock").open("w")
    except OSError as error:
        problem = f"The cache cannot be written to ({error})"
        raise PrepareError(f"{problem}. Run `uv run prepare.py` where it can.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("Another prepare.py is at work on this cache; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give <path>.part to write to, then flush and rename it; an error leaves it where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    yield part
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)


@dataclass(frozen=True)
class Manifest:
    """data/manifest.json: which corpus is in this cache. Saved before its shards, and after them.

    source: "climbmix", "offline", or the path that was given. shards: their file names.
    validation_sha256: None until all shards are there; equal hashes mean equal validation text.
    """

    source: str
    shards: list[str]
    validation_sha256: str | None = None

    @classmethod
    def load(cls) -> "Manifest | None":
        """None if there is no manifest; PrepareError if it is damaged."""
        path = cls.folder() / "manifest.json"
        try:
            manifest = cls(**json.loads(path.read_bytes()))
            valid = all(re.fullmatch(r"shard_\d{5}\.parquet", name) for name in manifest.shards)
            valid = valid and VALIDATION_SHARD in manifest.shards
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            valid = False
        if not valid:
            raise PrepareError(f"{path} is damaged. `uv run prepare.py --force` starts over.")
        return manifest

    @classmethod
    def require(cls) -> "Manifest":
        """The manifest of a corpus of which every shard is there; otherwise PrepareError."""
        manifest = cls.load()
        if manifest is None:
            raise PrepareError(f"There is no data in {cls.folder()}. Run `uv run prepare.py` here.")
        if missing := manifest.missing():
            raise PrepareError(f"{cls.folder() / missing[0]} is missing. Run `uv run prepare.py`.")
        return manifest

    @staticmethod
    def folder() -> Path:
        return cache_dir() / "data"

    def missing(self) -> list[str]:
        return [name for name in self.shards if not (self.folder() / name).is_file()]

    def paths(self, split: Split) -> list[Path]:
        names = [n for n in self.shards if (n == VALIDATION_SHARD) == (split == "val")]
        return [self.folder() / name for name in sorted(names)]

    def save(self) -> None:
        with atomic_write(self.folder() / "manifest.json") as part:
            part.write_text(json.dumps(vars(self), indent=1))


def read_texts(path: Path) -> Iterator[list[str]]:
    """The `text` column of a parquet file, a batch of rows at a time, without empty texts."""
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=READ_DOCUMENTS, columns=["text"]):
                yield [text for text in batch.column(0).to_pylist() if text]
    except (pa.ArrowException, OSError, IndexError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())  # Arrow writes several lines
        problem = f"{path} is damaged, or no parquet file with a `text` column: {why}"
        raise PrepareError(f"{problem}. In the cache, --force replaces it.") from error


# Tokenizer ----------------------------------------------------------------------------------------

SPECIAL_TOKENS = tuple(f"<|reserved_{i}|>" for i in range(4))  # the first one begins documents
# GPT-4's pattern (cl100k_base in tiktoken), but with digits in groups of two: the 1000 groups of
# three digits would take an eighth of this small vocabulary.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)


class Tokenizer:
    """Byte-pair encoding. Ordinary tokens have ids 0 … n-1 by rank, the special ones follow.

    The cache holds it as data (tiktoken's rank format and JSON), never as a pickle: reading a
    manipulated cache must not run code. The hash detects damage; it is no signature.

    vocab_size: ordinary and special tokens together. bos_id: starts every document.
    token_bytes: int64 [vocab_size], bytes of text that a token stands for, 0 for special tokens.
    """

    def __init__(self, ranks: dict[bytes, int]) -> None:
        specials = {name: len(ranks) + i for i, name in enumerate(SPECIAL_TOKENS)}
        self.vocab_size = len(ranks) + len(specials)
        self.bos_id = specials[SPECIAL_TOKENS[0]]
        self._ranks, self._specials = ranks, specials
        self._tokens = sorted(ranks, key=ranks.__getitem__)
        self.token_bytes = torch.tensor([*map(len, self._tokens), *(0 for _ in specials)])

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
    def load(cls, directory: Path | None = None) -> "Tokenizer":
        """From `directory`, by default the cache's; PrepareError if it is missing or changed."""
        directory = directory or cache_dir() / "tokenizer"
        remedy = "Run `uv run prepare.py`: it trains the tokenizer from the data in the cache."
        try:
            meta = json.loads((directory / "meta.json").read_bytes())
            content = (directory / "ranks.tiktoken").read_bytes()
        except (FileNotFoundError, ValueError) as error:
            raise PrepareError(f"No tokenizer in {directory}: {error}. {remedy}") from error
        if meta != cls._meta(content) or meta["vocab_size"] != VOCAB_SIZE:
            raise PrepareError(
                f"The tokenizer in {directory} was changed, damaged, or made by another version of "
                f"prepare.py: its SHA-256, size, split pattern or specials differ. {remedy}"
            )
        lines = (line.split() for line in content.splitlines())
        return cls({base64.b64decode(token): int(rank) for token, rank in lines})

    def save(self, directory: Path) -> None:
        content = self._content()
        with atomic_write(directory / "ranks.tiktoken") as part:
            part.write_bytes(content)
        with atomic_write(directory / "meta.json") as part:
            part.write_text(json.dumps(self._meta(content), indent=1))

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 that is equal for tokenizers that give equal ids, and for no others."""
        return hashlib.sha256(json.dumps(self._meta(self._content())).encode()).hexdigest()

    def _content(self) -> bytes:
        return b"".join(b"%s %d\n" % (base64.b64encode(t), i) for i, t in enumerate(self._tokens))

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
    def encode(self, text: str | list[str], num_threads: int = 8) -> list[int] | list[list[int]]:
        """Ids of one text or of several, without BOS; the name of a special token is plain text."""
        if isinstance(text, str):
            return self._encoding.encode_ordinary(text)
        return self._encoding.encode_ordinary_batch(text, num_threads=num_threads)

    def encode_document(self, text: str) -> Tokens:
        """BOS and the ids of a text, as the cache stores them."""
        ids = self._encoding.encode_to_numpy(text, disallowed_special=())
        return np.concatenate(([self.bos_id], ids), dtype=np.uint16, casting="unsafe")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return self._encoding.decode(list(ids))


# Token files: each document is tokenized once, and training reads the ids through memory maps -----

READ_DOCUMENTS = 128  # rows of a parquet file that are read at a time
NPY_HEADER_BYTES = 128  # what np.save writes before the data of a one- or two-dimensional array


@dataclass(frozen=True)
class TokenFile:
    """An array in the cache: <name>.npy, and <name>.json with its SHA-256, which is written last.

    The latter also has the size of the parquet file `source`: with another size, another array.
    """

    path: Path
    source: Path
    dtype: type[np.generic]
    shape: tuple[int, ...] = (-1,)

    def exists(self) -> bool:
        """True if it is there and up to date; reads its record only."""
        return self.path.is_file() and self._recorded("source_bytes") == self.source.stat().st_size

    def intact(self) -> bool:
        """True if it also has the recorded SHA-256; reads the whole file."""
        return self.exists() and self._recorded("sha256") == self._sha256()

    def write(self, array: "np.ndarray[Any, Any]") -> None:
        record = self.path.with_suffix(".json")
        record.unlink(missing_ok=True)
        with atomic_write(self.path) as part, part.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        content = {"sha256": self._sha256(), "source_bytes": self.source.stat().st_size}
        with atomic_write(record) as part:
            part.write_text(json.dumps(content))

    def map(self) -> "np.ndarray[Any, Any]":
        """Check the hash, then map the array into memory. PrepareError if it is damaged."""
        if not self.intact():
            raise PrepareError(f"{self.path} is damaged. `uv run prepare.py` makes it again.")
        # np.load would parse the header with `ast`, which in Python 3.11 can fail while another
        # thread parses too (cpython#106905), and the compiler parses while this thread packs.
        flat = np.memmap(self.path, self.dtype, mode="r", offset=NPY_HEADER_BYTES)
        return np.asarray(flat).reshape(self.shape)

    def _recorded(self, key: str) -> Any:
        try:
            return json.loads(self.path.with_suffix(".json").read_bytes()).get(key)
        except (OSError, ValueError, AttributeError):
            return None

    def _sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


MANY_PASSES = 5  # text read so often is no longer nearly as good as new (arXiv:2305.16264)
_MORE_TEXT = "a run learns it by heart; `prepare.py --num-shards 20` brings more of climbmix"


class TokenShards:
    """The tokenized documents of a split: for each parquet file two arrays in the cache.

    <shard>.tokens.npy: uint16, all documents one after the other, each with BOS in front.
    <shard>.starts.npy: int64, the start of each document, and last the end of the last one.
    Their folder is named after the tokenizer, because ids mean nothing without it.
    """

    def __init__(self, tokenizer: Tokenizer, split: Split) -> None:
        self._tokenizer = tokenizer
        self._parquet = Manifest.require().paths(split)
        self.folder = cache_dir() / "tokens" / tokenizer.digest[:16]
        self.epoch = 0  # the pass that stream() is in, from 1

    def files(self, parquet: Path) -> tuple[TokenFile, TokenFile]:
        """The (tokens, starts) of one parquet file, which may not exist yet."""
        path = self.folder / parquet.stem
        tokens = TokenFile(path.with_suffix(".tokens.npy"), parquet, np.uint16)
        return tokens, TokenFile(path.with_suffix(".starts.npy"), parquet, np.int64)

    def missing(self, usable: Callable[[TokenFile], bool] = TokenFile.exists) -> list[Path]:
        """The parquet files of which an array is not `usable`."""
        return [p for p in self._parquet if not all(map(usable, self.files(p)))]

    def build(self, parquet_files: list[Path]) -> None:
        """Tokenize these on all cores. The caller holds the cache lock."""
        encode = self._tokenizer.encode_document
        for number, parquet in enumerate(parquet_files, 1):
            log(f"tokens: tokenizing {parquet.name}, {number} of {len(parquet_files)}")
            texts = chain.from_iterable(read_texts(parquet))
            with ThreadPool(os.cpu_count() or 1) as pool:  # tiktoken releases the GIL
                documents = list(pool.imap(encode, texts, chunksize=READ_DOCUMENTS))
            tokens_file, starts_file = self.files(parquet)
            tokens_file.write(np.concatenate([np.empty(0, np.uint16), *documents]))
            starts_file.write(np.cumsum([0, *map(len, documents)], dtype=np.int64))

    def size(self) -> int:
        """Tokens of all documents, from the sizes of their files, which are not opened."""
        sizes = (self.files(parquet)[0].path.stat().st_size for parquet in self._parquet)
        return sum((size - NPY_HEADER_BYTES) // 2 for size in sizes)

    def documents(self) -> Iterator[Tokens]:
        """One pass over all documents in the order of the files; each file is checked before."""
        for parquet in self._parquet:
            tokens, starts = (file.map() for file in self.files(parquet))
            for start, end in pairwise(starts.tolist()):
                yield tokens[start:end]

    def stream(self) -> Iterator[Tokens]:
        """Pass after pass over the documents, without end."""
        if not self.size():  # an endless loop over nothing would hang
            raise PrepareError("There is no text. `uv run prepare.py --force` starts over.")
        for self.epoch in count(1):
            if self.epoch == MANY_PASSES:
                log(f"\nthe training text is read for the {MANY_PASSES}th time: {_MORE_TEXT}")
            yield from self.documents()


def ngram_rows() -> int:
    """Rows of each table of n-grams in train.py. None (0) if a run reads its text again and again:
    tables learn that by heart. (The loader drops about a quarter of the text.)"""
    try:
        tokens = TokenShards(Tokenizer.load(), "train").size()
    except (PrepareError, OSError):
        tokens = 0  # the run will say what is missing
    enough = TIME_BUDGET * PROFILE.tokens_per_second <= tokens
    return PROFILE.ngram_rows if enough else 0


def ensure_tokenized(shards: TokenShards) -> None:
    """Tokenize what prepare.py has not, once for all runs that start at the same time."""
    if shards.missing():
        with cache_lock():
            shards.build(shards.missing())


# Batches ------------------------------------------------------------------------------------------

PACKING_BUFFER = 1000  # documents that best-fit packing chooses from
BATCHES_AHEAD = 3  # that the thread may pack before they are wanted
Document = TypeVar("Document", bound="Sequence[int] | Tokens")


def pack_rows(
    documents: Iterable[Document], row_tokens: int, buffer_size: int = PACKING_BUFFER
) -> Iterator[list[Document]]:
    """Best-fit packing: rows of exactly `row_tokens` tokens without padding, as lists of pieces.

    Of a buffer of `buffer_size` documents, the longest that fits the rest of the row is placed. If
    none fits, the shortest is cropped to fill the row and its end is lost. Among equal lengths the
    first to arrive is taken. The last, incomplete row of finite input is dropped.
    """
    arrivals = enumerate(documents)
    buffer: list[tuple[int, int, Document]] = []  # (length, -arrival, document), sorted
    length = itemgetter(0)
    row: list[Document] = []
    space = row_tokens
    while True:
        for arrival, document in islice(arrivals, buffer_size - len(buffer)):
            insort(buffer, (len(document), -arrival, document))
        if not buffer:
            return
        # Of each length, the last entry is the one that arrived first.
        end = bisect_right(buffer, space, key=length)
        end = end or bisect_right(buffer, length(buffer[0]), key=length)
        piece: Any = buffer.pop(end - 1)[2][:space]
        row.append(piece)
        space -= len(piece)
        if not space:
            yield row
            row, space = [], row_tokens


class Batches(Iterator[tuple[Tensor, Tensor, int]]):
    """Endless batches for make_dataloader, packed ahead in a thread that ends with this object.
    `epoch` is the pass over the text of the last batch that was taken, from 1.

    Each is packed into new page-locked memory, so that its copy to the GPU is asynchronous; torch
    reuses the memory when the copy is done.
    """

    def __init__(
        self, shards: TokenShards, batch_size: int, seq_len: int, device: torch.device
    ) -> None:
        self.epoch, self._device = 0, device
        rows = pack_rows(shards.stream(), seq_len + 1)
        on_gpu = device.type == "cuda"

        def pack() -> tuple[Tensor, int]:
            tokens = torch.empty(batch_size, seq_len + 1, dtype=torch.int32, pin_memory=on_gpu)
            for target, row in zip(tokens.numpy(), rows, strict=False):
                np.concatenate(row, out=target, casting="unsafe")
            return tokens, shards.epoch

        thread = ThreadPoolExecutor(1)
        self._submit: Callable[[], Future[tuple[Tensor, int]]] = lambda: thread.submit(pack)
        self._packed = deque(self._submit() for _ in range(BATCHES_AHEAD))
        weakref.finalize(self, thread.shutdown, cancel_futures=True)

    def __next__(self) -> tuple[Tensor, Tensor, int]:
        batch, self.epoch = self._packed[0].result()  # an error stays there: each call raises it
        tokens = batch.to(self._device, non_blocking=batch.is_pinned())
        x, y = tokens[:, :-1].long(), tokens[:, 1:].long()
        self._packed.popleft()
        self._packed.append(self._submit())  # last, because packing competes for the GIL
        return x, y, self.epoch


def make_dataloader(
    tokenizer: Tokenizer, batch_size: int, seq_len: int, split: Split, device: torch.device
) -> Batches:
    """Endless batches (x, y, epoch); x and y are int64 [batch_size, seq_len] on `device`.

    y[b, t] is the token after x[b, t]. Rows depend on data, tokenizer and seq_len, not on
    batch_size. `epoch` counts passes from 1. PrepareError if the cache is not prepared.
    """
    shards = TokenShards(tokenizer, split)
    ensure_tokenized(shards)
    return Batches(shards, batch_size, seq_len, device)


# The metric ---------------------------------------------------------------------------------------


def validation_file(shards: TokenShards, context: int, eval_tokens: int) -> TokenFile:
    """Where the rows that the metric reads are stored, uint16 [rows, context + 1]."""
    (parquet,) = Manifest.require().paths("val")
    name = f"validation_{eval_tokens // context}x{context}.npy"
    return TokenFile(shards.folder / name, parquet, np.uint16, shape=(-1, context + 1))


def pack_validation(shards: TokenShards, context: int, eval_tokens: int) -> Tokens:
    """The rows for `eval_tokens` targets, or for one pass where the validation shard has fewer."""
    rows = islice(pack_rows(shards.documents(), context + 1), eval_tokens // context)
    return np.array([np.concatenate(row) for row in rows], np.uint16).reshape(-1, context + 1)


def validation_rows(tokenizer: Tokenizer) -> Tokens:
    """This profile's rows, stored by prepare.py or by the first run that has to pack them."""
    shards = TokenShards(tokenizer, "val")
    file = validation_file(shards, MAX_SEQ_LEN, EVAL_TOKENS)
    if file.exists():
        return file.map()
    ensure_tokenized(shards)
    rows = pack_validation(shards, MAX_SEQ_LEN, EVAL_TOKENS)
    with contextlib.suppress(PrepareError), cache_lock():  # the cache may be read-only
        file.write(rows)
    return rows


@torch.no_grad()
def evaluate_bpb(model: Callable[..., Tensor], tokenizer: Tokenizer, batch_size: int) -> float:
    """Bits per byte on the validation shard: sum of nats / (ln 2 · sum of bytes) over its targets,
    as in The Pile (arXiv:2101.00027, section 3.1).

    `model(x, y, reduction="none")` gives the cross-entropy in nats of each target, [B, T] or [B·T].
    Special tokens stand for no text and count in neither sum, so the number compares across
    vocabularies. EVAL_TOKENS targets are read, or one pass where the shard has fewer; which ones
    does not depend on batch_size. The caller sets the model's mode. Sums are kept in float64.
    """
    rows = torch.from_numpy(validation_rows(tokenizer).astype(np.int32)).to(device := pick_device())
    if not len(rows):
        raise PrepareError(f"There is no row of {MAX_SEQ_LEN} tokens to validate on; add text.")
    if len(rows) < EVAL_TOKENS // MAX_SEQ_LEN:
        log_once(
            f"val_bpb is measured on {len(rows) * MAX_SEQ_LEN:,} tokens, all that the validation "
            f"shard has; profile {PROFILE.name} asks for {EVAL_TOKENS:,}"
        )
    exact = torch.device("cpu") if device.type == "mps" else device  # Apple's GPUs lack float64
    token_bytes = tokenizer.token_bytes.to(exact)
    nats = torch.zeros((), dtype=torch.float64, device=exact)
    total_bytes = torch.zeros((), dtype=torch.int64, device=exact)
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        # Copies of its first row fill up the last batch, since a compiled model would be compiled
        # again for another shape. They do not count.
        used, filler = len(part), part[:1].expand(batch_size - len(part), -1)
        tokens = torch.cat((part, filler)).long()
        x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        losses = model(x, y, reduction="none").reshape(y.shape)[:used].to(exact)
        sizes = token_bytes[y[:used].to(exact)]
        nats += torch.where(sizes > 0, losses.double(), 0.0).sum()  # 0 · inf would be NaN
        total_bytes += sizes.sum()
    val_bpb = nats.item() / (math.log(2) * total_bytes.item())
    # Of all result blocks that a run prints, the worker believes one with a val_bpb reported here.
    if "autoresearch_run" in sys.modules:  # the worker's, in place before train.py began
        sys.modules["autoresearch_run"].measured(val_bpb)
    return val_bpb


# The command --------------------------------------------------------------------------------------


def check_tokens() -> None:
    """Read all arrays that a run reads; PrepareError if one is missing or damaged."""
    tokenizer = Tokenizer.load()
    train, val = TokenShards(tokenizer, "train"), TokenShards(tokenizer, "val")
    bad = [p.name for shards in (train, val) for p in shards.missing(TokenFile.intact)]
    if bad or not validation_file(val, MAX_SEQ_LEN, EVAL_TOKENS).intact():
        what = f"{', '.join(bad[:3]) or 'the validation rows'} are missing or damaged"
        remedy = "`uv run prepare.py` makes them again, or says that --force must."
        raise PrepareError(f"The tokens of {what}, in {val.folder}. {remedy}")


def check() -> int:
    """Print one line of JSON: can this machine train, and with what? Exit code 0 if it can."""
    found: list[Any] = []
    problems: list[str] = []
    checks = active_profile, time_budget, cache_dir, Manifest.require, Tokenizer.load, check_tokens
    for read in checks:
        try:
            found.append(read())
        except (PrepareError, OSError) as error:
            found.append(None)
            problems += [str(error)] if str(error) not in problems else []
    profile, _, cache, data, *_ = found
    device = pick_device()
    report = {
        "ok": not problems,
        "problems": problems,
        "profile": profile and profile.name,
        "device": device.type,
        "device_name": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
        "cache": cache and str(cache),
        "data_source": data and data.source,
        "validation_sha256": data and data.validation_sha256,
    }
    log(json.dumps(report))
    return 1 if problems else 0


def main(argv: Sequence[str]) -> int:
    """The whole command is in corpus.py; `--check`, which workers run, needs this file alone."""
    if argv == ["--check"]:
        return check()
    import corpus

    return corpus.main(argv)


if __name__ == "__main__":
    sys.modules.setdefault("prepare", sys.modules[__name__])  # corpus.py imports it by this name
    sys.exit(main(sys.argv[1:]))
