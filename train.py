"""Train one language model for a fixed time and print its val_bpb. An agent edits this file.

- Covers all that may change: model, optimizer, schedules, hyperparameters, loop.
- Leaves out what makes runs comparable (prepare.py): data, tokenizer, context, time budget, and the
  metric, bits per byte on held-out text (lower is better).

Only training time counts against the budget; the first UNTIMED_STEPS steps, in which compilers and
caches warm up, are free. A run ends with `key: value` lines after `---`; one that fails prints FAIL
and why, and exits with 1.
"""
# ruff: noqa: E402, I001  (the clock and the settings come before the imports; prepare's are dense)

import gc
import os
import time

PROCESS_START = time.perf_counter()
if __name__ == "__main__":
    gc.disable()  # what imports and compilers build stays; scanning it repeatedly costs 2 s
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow other runs

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812  (the conventional name)
from torch import Tensor, nn

from prepare import (
    MAX_SEQ_LEN, PROFILE, TIME_BUDGET, PrepareError, Tokenizer, attention, choose_kernels,
    evaluate_bpb, make_dataloader, ngram_rows, peak_flops, pick_device, relu2_mlp,
    share_compiled_code,
)  # fmt: skip

# Hyperparameters ----------------------------------------------------------------------------------
# The first five come from prepare.py, which knows the machine and the text; the rest are literals.

DEPTH = PROFILE.depth  # number of blocks
DEVICE_BATCH_SIZE = PROFILE.device_batch_size  # rows in one forward pass; halve it if out of memory
TOTAL_BATCH_SIZE = PROFILE.total_batch_size  # tokens in one optimizer step
NGRAM_ROWS = ngram_rows()  # of each table of n-grams, a power of 2; 0 for text that repeats
COMPILE = PROFILE.compile  # True uses torch.compile

ASPECT_RATIO = 64  # width per block of depth, rounded up to whole heads
HEAD_DIM = 128  # width of one attention head
WINDOW_PATTERN = "SSSL"  # attention window per block, repeated: S short, L full; the last is full
SHORT_WINDOW = 0.125  # short window, as a fraction of the context
MLP_RATIO = 4  # hidden width of the MLP, as a multiple of the model's width
QUERY_SCALE = 1.2  # of normalized queries; above 1, attention is sharper
ROTARY_BASE = 100_000.0  # base of the rotary frequencies
GATE_CHANNELS = 32  # channels of the block's input that the value gates read
LOGIT_SOFTCAP = 15.0  # logits are capped to ± this

MATRIX_LR = 0.04  # Muon, all matrices inside the blocks
EMBEDDING_LR = 0.8  # AdamW, token and value embeddings, at width 768
NGRAM_LR = 0.6  # AdamW, tables of n-grams, at width 768
HEAD_LR = 0.006  # AdamW, lm_head, at width 768
RESID_LR = 0.005  # AdamW, scalars on the residual stream
X0_LR = 0.5  # AdamW, scalars on the embedding that is added again before each block
ADAM_BETA1 = 0.8  # decay of AdamW's first moment
ADAM_BETA2 = 0.95  # decay of AdamW's second moment
X0_BETA1 = 0.96  # decay of the first moment of the x0 scalars
ADAM_EPS = 1e-10  # added to AdamW's denominator
MUON_MOMENTUM_START = 0.85  # Nesterov momentum at step 0
MUON_MOMENTUM_END = 0.95  # and after the ramp
MUON_MOMENTUM_STEPS = 300  # length of the ramp, in steps
MUON_BETA2 = 0.95  # decay of NorMuon's second moment
WEIGHT_DECAY = 0.2  # Muon's cautious weight decay at the start; falls linearly to 0
EMBEDDING_DECAY = 0.001  # AdamW's decay of token embeddings, relative to the learning rate
VALUE_DECAY = 0.01  # the same of value embeddings
HEAD_DECAY = 0.01  # the same of lm_head

WARMDOWN_FRACTION = 0.75  # last part of the run, in which the learning rate falls
FINAL_LR_FRACTION = 0.03  # of the learning rate, at the end
LOSS_CHUNK_TOKENS = 32_768  # tokens whose logits exist at a time on a GPU; no effect on losses
CPU_LOSS_CHUNK_TOKENS = 512  # the same on a CPU: chunks that malloc can reuse halve a step's time

# Not for tuning
UNTIMED_STEPS = 3  # steps that do not count against the budget
MAX_LOSS = 100.0  # in nats; above it a run counts as diverged


# Model --------------------------------------------------------------------------------------------


def compute_dtype(device: torch.device) -> torch.dtype:
    """Type of activations, embeddings and Muon's iterations. (fp16 would need loss scaling.)"""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a model. `windows` has one entry per block: the tokens that a token attends to."""

    context: int
    vocab_size: int
    n_head: int
    width: int
    windows: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @property
    def depth(self) -> int:
        return len(self.windows)


def layer_windows(pattern: str, depth: int, context: int) -> tuple[int, ...]:
    """Attention window of each block in tokens; that of the last block is the whole context."""
    sizes = {"S": round(context * SHORT_WINDOW), "L": context}
    windows = [sizes[pattern[i % len(pattern)]] for i in range(depth)]
    return (*windows[:-1], context)


def build_config(depth: int, context: int, vocab_size: int, dtype: torch.dtype) -> GPTConfig:
    n_head = math.ceil(depth * ASPECT_RATIO / HEAD_DIM)
    windows = layer_windows(WINDOW_PATTERN, depth, context)
    return GPTConfig(context, vocab_size, n_head, n_head * HEAD_DIM, windows, dtype)


Rotary = tuple[Tensor, Tensor]  # cosines and sines, see rotary_tables


def rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


def rotary_tables(context: int, head_dim: int) -> Rotary:
    """Cosines and signed sines [context, 1, head_dim], in fp32 (RoFormer, arXiv:2104.09864)."""
    exact = partial(torch.arange, dtype=torch.float64, device="cpu")  # Apple's GPUs lack float64
    exponents = exact(0, head_dim, 2) / head_dim
    angles = torch.outer(exact(context), ROTARY_BASE**-exponents).unsqueeze(1)
    device = torch.get_default_device()
    cos, sin = angles.cos().to(device, torch.float32), angles.sin().to(device, torch.float32)
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (i, i + D/2) of x [B, T, H, D] by the angle of its position."""
    return (x * cos + x.roll(x.size(-1) // 2, -1) * sin).to(x.dtype)


class Linear(nn.Linear):
    """A matrix without bias in fp32, which is cast to the activations' type where it is used."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Attention(nn.Module):
    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.window = config.windows[layer]
        self.query = Linear(config.width, config.width)
        self.key = Linear(config.width, config.width)
        self.value = Linear(config.width, config.width)
        self.out = Linear(config.width, config.width)
        gated = has_value_embedding(layer, config.depth)
        self.value_gate = Linear(GATE_CHANNELS, config.n_head) if gated else None

    def forward(self, x: Tensor, value_embedding: Tensor | None, rotary: Rotary) -> Tensor:
        # One product is faster than three; the optimizer has three matrices.
        weight = torch.cat((self.query.weight, self.key.weight, self.value.weight)).to(x.dtype)
        q, k, v = F.linear(x, weight).view(*x.shape[:2], 3, self.n_head, -1).unbind(2)
        if self.value_gate is not None and value_embedding is not None:
            gate = 2 * torch.sigmoid(self.value_gate(x[..., :GATE_CHANNELS]))
            v = v + gate.unsqueeze(-1) * value_embedding.view_as(v)
        q, k = rotate(rms_norm(q) * QUERY_SCALE, *rotary), rotate(rms_norm(k), *rotary)
        return self.out(attention(q, k, v, self.window).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.up = Linear(config.width, MLP_RATIO * config.width)
        self.down = Linear(MLP_RATIO * config.width, config.width)

    def forward(self, x: Tensor, value_embedding: Tensor | None, rotary: Rotary) -> Tensor:
        x = x + self.attention(rms_norm(x), value_embedding, rotary)
        return x + relu2_mlp(rms_norm(x), self.up.weight, self.down.weight)


def has_value_embedding(layer: int, depth: int) -> bool:
    """True for every second block, the last included (ResFormer, arXiv:2410.17897)."""
    return (depth - 1 - layer) % 2 == 0


def hash_ngrams(tokens: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Rows, [B, T], of a block's tables of two and of three tokens: hashes by odd multipliers."""
    second, third = (F.pad(tokens, (back, 0))[:, : tokens.size(1)] for back in (1, 2))
    pairs = tokens * (0x1F3D5B79A2C4E6F1 + 2 * layer) + second * (0x2B4D6F8193A5C7E9 + 4 * layer)
    triples = pairs * 0x0C2B3A495867F6E5 + third * (0x3C5E7A9B1D2F4861 + 6 * layer)
    return (pairs >> 40) & (NGRAM_ROWS - 1), (triples >> 40) & (NGRAM_ROWS - 1)


def softcap(logits: Tensor) -> Tensor:
    """In fp32 (Gemma 2, arXiv:2408.00118)."""
    return LOGIT_SOFTCAP * torch.tanh(logits.float() / LOGIT_SOFTCAP)


def cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Per row of logits [N, V]: the loss in nats, [N], and its gradient by the logits, [N, V].

    No maximum is subtracted before exp: sums of capped logits fit fp32 up to a cap of 79.
    """
    capped = softcap(logits)
    exps = capped.exp()
    total = exps.sum(-1, keepdim=True)
    losses = total.log().squeeze(-1) - capped.gather(-1, targets[:, None]).squeeze(-1)
    gradient = exps.div_(total)  # in place: on a CPU, this is bound by memory
    if logits.is_cpu:
        gradient[torch.arange(len(logits)), targets] -= 1
    else:  # a comparison fuses with the rest, indexing would not
        is_target = torch.arange(logits.size(-1), device=logits.device) == targets[:, None]
        gradient = gradient - is_target.to(gradient.dtype)
    slope = capped.div_(LOGIT_SOFTCAP).square_().neg_().add_(1)
    return losses, gradient.mul_(slope).to(logits.dtype)


class HeadLoss(torch.autograd.Function):
    """Mean cross-entropy in nats and that per token, [N], of hidden [N, C], head [V, C], targets.

    Each chunk of LOSS_CHUNK_TOKENS computes its gradients along with its losses: the logits of the
    whole batch never exist, and none are computed twice. Only the mean has a gradient.
    """

    cross_entropy = staticmethod(cross_entropy)  # run() replaces it by the compiled one

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, learns: bool
    ) -> tuple[Tensor, Tensor]:
        weight = head.to(hidden.dtype)
        d_hidden = torch.empty_like(hidden) if learns else hidden
        d_head = torch.zeros_like(head) if learns else head
        chunk = CPU_LOSS_CHUNK_TOKENS if hidden.is_cpu else LOSS_CHUNK_TOKENS
        losses = []
        for start in range(0, len(hidden), chunk):
            h, t = hidden[start : start + chunk], targets[start : start + chunk]
            logits = h @ weight.T
            if learns or COMPILE:  # when compiled, it is the fastest even for the loss alone
                loss, d_logits = HeadLoss.cross_entropy(logits, t)
            else:
                loss = F.cross_entropy(softcap(logits), t, reduction="none")
            losses.append(loss)
            if learns:
                torch.mm(d_logits, weight, out=d_hidden[start : start + chunk])
                if h.is_cuda:  # without out_dtype, the product would be rounded to bf16
                    d_head += torch.mm(d_logits.T, h, out_dtype=torch.float32)
                else:
                    d_head += d_logits.T @ h
        ctx.save_for_backward(d_hidden, d_head)
        per_token = torch.cat(losses)
        ctx.mark_non_differentiable(per_token)
        return per_token.mean(), per_token

    @staticmethod
    def backward(ctx: Any, d_mean: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_hidden, d_head = ctx.saved_tensors
        scale = d_mean / len(d_hidden)
        return d_hidden * scale, d_head * scale, None, None


class GPT(nn.Module):
    """Decoder with rotary attention, relu² MLPs, an untied head, and value embeddings: of the token
    and, by hashed tables, of the last two and three tokens (after Engram, arXiv:2601.07372)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config, depth = config, config.depth
        table = partial(nn.Embedding, config.vocab_size, config.width, dtype=config.dtype)
        self.token_embedding = table()
        with_values = [i for i in range(depth) if has_value_embedding(i, depth)]
        self.value_embeddings = nn.ModuleDict({str(i): table() for i in with_values})
        half = partial(nn.Embedding, NGRAM_ROWS, config.width // 2, dtype=config.dtype)
        tables = {str(i): nn.ModuleList([half(), half()]) for i in with_values if NGRAM_ROWS}
        self.ngrams = nn.ModuleDict(tables)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(depth))
        self.resid_scale = nn.Parameter(torch.ones(depth))
        self.x0_scale = nn.Parameter(torch.full((depth,), 0.1))
        self.lm_head = Linear(config.width, config.vocab_size)
        cos, sin = rotary_tables(config.context, config.width // config.n_head)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Output matrices start at 0, so a block starts as the identity; value gates start at 1."""
        bound = math.sqrt(3 / self.config.width)  # gives a standard deviation of width^-1/2
        nn.init.normal_(self.token_embedding.weight, std=1.0)
        nn.init.normal_(self.lm_head.weight, std=0.001)
        for embedding in self.value_embeddings.parameters():
            nn.init.uniform_(embedding, -bound, bound)
        for rows in self.ngrams.parameters():
            nn.init.zeros_(rows)
        for name, matrix in self.blocks.named_parameters():
            if name.endswith(("out.weight", "down.weight", "value_gate.weight")):
                nn.init.zeros_(matrix)
            else:
                nn.init.uniform_(matrix, -bound, bound)

    def values(self, tokens: Tensor, layer: int) -> Tensor | None:
        """What a block adds to its attention's values: [B, T, C], or None for every second one."""
        if not has_value_embedding(layer, self.config.depth):
            return None
        own: Tensor = self.value_embeddings[str(layer)](tokens)
        if NGRAM_ROWS:
            pairs, triples = cast("nn.ModuleList", self.ngrams[str(layer)])
            of_pairs, of_triples = hash_ngrams(tokens, layer)
            own = own + torch.cat((pairs(of_pairs), triples(of_triples)), -1)
        return own

    def hidden(self, tokens: Tensor) -> Tensor:
        """The input of lm_head, [B, T, C], from token ids [B, T]."""
        rotary = (self.cos[: tokens.size(1)], self.sin[: tokens.size(1)])
        x = x0 = rms_norm(self.token_embedding(tokens))
        for i, block in enumerate(self.blocks):
            x = self.resid_scale[i] * x + self.x0_scale[i] * x0
            x = block(x, self.values(tokens, i), rotary)
        return rms_norm(x)

    def logits(self, tokens: Tensor) -> Tensor:
        """[B, T, V] in fp32, for inspection and sampling."""
        return softcap(self.lm_head(self.hidden(tokens)))

    def forward(
        self, tokens: Tensor, targets: Tensor, reduction: Literal["mean", "none"] = "mean"
    ) -> Tensor:
        """Loss in nats: its mean over all tokens, or with reduction="none" each token's, [B, T]."""
        learns = torch.is_grad_enabled()
        with torch.set_grad_enabled(learns or COMPILE):  # evaluation runs what training compiled
            hidden = self.hidden(tokens).flatten(0, 1)
        hidden = hidden if learns else hidden.detach()  # frees what a backward pass would need
        result = HeadLoss.apply(hidden, self.lm_head.weight, targets.flatten(), learns)
        mean, losses = cast("tuple[Tensor, Tensor]", result)
        return mean if reduction == "mean" else losses.view_as(targets)

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        """FLOPs of forward and backward, counted as in PaLM (arXiv:2204.02311, appendix B).

        6 per weight of a matrix product, and 12 · width · window per block for attention, as if
        every token saw a full window; with the causal mask it needs about half of that.
        """
        matrices = sum(p.numel() for p in self.blocks.parameters()) + self.lm_head.weight.numel()
        return 6 * matrices + 12 * self.config.width * sum(self.config.windows)


# Optimizer: Muon for the matrices inside the blocks, AdamW for the rest ---------------------------

# Coefficients (a, b, c) of X <- aX + (bA + cA²)X with A = XXᵀ (Polar Express, arXiv:2505.16932).
POLAR_EXPRESS = (
    (8.15655, -22.48329, 15.87877), (4.04293, -2.80892, 0.50002), (3.89167, -2.77248, 0.50606),
    (3.28575, -2.36813, 0.46449), (2.34654, -1.70978, 0.42324),
)  # fmt: skip

Scalar = float | Tensor  # compiled steps take 0-d tensors: each new float would recompile them
Hyper = Sequence[Scalar]


def frobenius_norm(x: Tensor) -> Tensor:
    return x.square().sum((-2, -1), keepdim=True).sqrt()


def orthogonalize(g: Tensor, dtype: torch.dtype) -> Tensor:
    """Approximate U Vᵀ of each matrix U S Vᵀ in g [N, rows, cols]: all singular values near 1."""
    x = (g / (1.02 * frobenius_norm(g) + 1e-6)).to(dtype)
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x  # so that `gram` has the size of the short side
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


def normalize_rows(update: Tensor, second: Tensor, beta2: Scalar) -> Tensor:
    """Divide rows (columns of a wide matrix) by their running RMS, keeping each matrix's norm.

    `second` [N, rows, 1] or [N, 1, cols] is updated in place (NorMuon, arXiv:2510.05491).
    """
    across = -1 if second.size(-1) == 1 else -2
    second.lerp_(update.square().mean(across, keepdim=True), 1 - beta2)
    scaled = update * second.clamp_min(1e-10).rsqrt()
    return scaled * (frobenius_norm(update) / frobenius_norm(scaled).clamp_min(1e-10))


def muon_step(
    weight: Tensor, grad: Tensor, average: Tensor, second: Tensor, hyper: Hyper, dtype: torch.dtype
) -> None:
    """One step of N matrices of one shape, [N, rows, cols]; changes all tensors but `grad`."""
    lr, momentum, beta2, weight_decay = hyper
    average.lerp_(grad, 1 - momentum)
    nesterov = grad.lerp(average, momentum)
    update = normalize_rows(orthogonalize(nesterov, dtype).float(), second, beta2)
    shrinks = update * weight > 0  # cautious weight decay: only where the update shrinks the weight
    weight.sub_(lr * (update + weight_decay * weight * shrinks))


def adamw_step(weight: Tensor, grad: Tensor, first: Tensor, second: Tensor, hyper: Hyper) -> None:
    """One step of one tensor (arXiv:1711.05101); `step` counts from 1, moments are in fp32."""
    lr, beta1, beta2, eps, weight_decay, step = hyper
    grad = grad.float()
    first.lerp_(grad, 1 - beta1)
    second.lerp_(grad.square(), 1 - beta2)
    update = first / ((second / (1 - beta2**step)).sqrt() + eps)
    weight.copy_(weight.float() * (1 - lr * weight_decay) - lr / (1 - beta1**step) * update)


@dataclass
class AdamWGroup:
    params: list[nn.Parameter]
    lr: float
    weight_decay: float = 0.0
    beta1: float = ADAM_BETA1
    beta2: float = ADAM_BETA2

    def __post_init__(self) -> None:
        self.first = [torch.zeros_like(p, dtype=torch.float32) for p in self.params]
        self.second = [torch.zeros_like(p, dtype=torch.float32) for p in self.params]


@dataclass
class MuonGroup:
    """Matrices of one shape; tall ones have a larger rate: lr · sqrt(max(1, rows / cols))."""

    params: list[nn.Parameter]
    lr: float
    beta2: float = MUON_BETA2

    def __post_init__(self) -> None:
        n, (rows, cols) = len(self.params), self.params[0].shape
        self.lr *= math.sqrt(max(1, rows / cols))
        self.average = self.params[0].new_zeros(n, rows, cols)
        self.second = self.params[0].new_zeros(n, *((rows, 1) if rows >= cols else (1, cols)))


class MuonAdamW:
    """Both optimizers. No torch.optim.Optimizer: its constructor imports the compiler, for 3 s."""

    def __init__(
        self, adamw: list[AdamWGroup], muon: list[MuonGroup], dtype: torch.dtype, *, compiled: bool
    ) -> None:
        self.adamw, self.muon, self.dtype, self.steps = adamw, muon, dtype, 0
        self.params = {p for a in adamw for p in a.params} | {p for m in muon for p in m.params}
        self._scalar: Callable[[float], Scalar] = torch.tensor if compiled else float
        self._adamw_step, self._muon_step = adamw_step, muon_step
        if compiled:
            self._adamw_step = torch.compile(adamw_step, dynamic=False, fullgraph=True)
            self._muon_step = torch.compile(muon_step, dynamic=False, fullgraph=True)

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    @torch.no_grad()
    def step(self, multiplier: float, momentum: float, weight_decay: float) -> None:
        """`multiplier` scales the rate of every group; the other two are Muon's for this step."""
        self.steps += 1
        for a in self.adamw:
            values = [a.lr * multiplier, a.beta1, a.beta2, ADAM_EPS, a.weight_decay, self.steps]
            hyper = [self._scalar(v) for v in values]
            for p, first, second in zip(a.params, a.first, a.second, strict=True):
                if p.grad is not None:
                    self._adamw_step(p, p.grad, first, second, hyper)
        for m in self.muon:
            hyper = [self._scalar(v) for v in (m.lr * multiplier, momentum, m.beta2, weight_decay)]
            weights = torch.stack([p.data for p in m.params])
            grads = torch.stack([p.grad for p in m.params if p.grad is not None])
            self._muon_step(weights, grads, m.average, m.second, hyper, self.dtype)
            torch._foreach_copy_([p.data for p in m.params], list(weights.unbind()))


def build_optimizer(model: GPT, *, compiled: bool) -> MuonAdamW:
    by_shape: dict[torch.Size, list[nn.Parameter]] = {}
    for matrix in model.blocks.parameters():
        by_shape.setdefault(matrix.shape, []).append(matrix)
    scale = (model.config.width / 768) ** -0.5
    adamw = [
        AdamWGroup([*model.token_embedding.parameters()], EMBEDDING_LR * scale, EMBEDDING_DECAY),
        AdamWGroup([*model.value_embeddings.parameters()], EMBEDDING_LR * scale, VALUE_DECAY),
        AdamWGroup([*model.ngrams.parameters()], NGRAM_LR * scale),
        AdamWGroup([*model.lm_head.parameters()], HEAD_LR * scale, HEAD_DECAY),
        AdamWGroup([model.resid_scale], RESID_LR),
        AdamWGroup([model.x0_scale], X0_LR, beta1=X0_BETA1),
    ]
    muon = [MuonGroup(matrices, MATRIX_LR) for matrices in by_shape.values()]
    optimizer = MuonAdamW(adamw, muon, model.config.dtype, compiled=compiled)
    if left_out := [name for name, p in model.named_parameters() if p not in optimizer.params]:
        raise ValueError(f"{', '.join(left_out)} would not be trained: add it to a group above")
    return optimizer


# Schedules ----------------------------------------------------------------------------------------
# `progress`, from 0 to 1, is that of the time.


def lr_multiplier(progress: float) -> float:
    """1 without warm-up, then a straight line down to FINAL_LR_FRACTION at progress 1."""
    left = min(1.0, (1 - progress) / WARMDOWN_FRACTION)
    return left + (1 - left) * FINAL_LR_FRACTION


def muon_momentum(step: int) -> float:
    ramp = min(1.0, step / MUON_MOMENTUM_STEPS)
    return MUON_MOMENTUM_START + ramp * (MUON_MOMENTUM_END - MUON_MOMENTUM_START)


def weight_decay_at(progress: float) -> float:
    return WEIGHT_DECAY * (1 - progress)


# The run ------------------------------------------------------------------------------------------


class TrainingDivergedError(Exception):
    """The loss is NaN or above MAX_LOSS; the rest of the budget would be wasted."""


def start_copy(loss: Tensor) -> Callable[[], float]:
    """Start to copy a loss to the host. The result waits for the device and returns the number."""
    if not loss.is_cuda:
        return loss.item
    on_host = torch.empty_like(loss, device="cpu", pin_memory=True).copy_(loss, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def read() -> float:
        copied.synchronize()
        return on_host.item()

    return read


def train(
    model: Callable[[Tensor, Tensor], Tensor],
    optimizer: MuonAdamW,
    batches: Iterator[tuple[Tensor, Tensor, int]],
    micro_batches: int,
    budget: float,
    peak_rate: float,
) -> tuple[int, float, float]:
    """Train until `budget` seconds are counted, or TrainingDivergedError. `peak_rate` is what the
    device can do, in tokens per second. Returns steps, counted seconds, and untimed seconds."""
    steps, seconds, untimed, smooth, print_at, progress = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    running: deque[tuple[Callable[[], float], float]] = deque()  # loss and multiplier of each step
    clock = time.perf_counter()
    x, y, epoch = next(batches)
    tokens, ahead = micro_batches * x.numel(), int(x.is_cuda)
    while progress < 1 or running:
        if progress < 1:
            losses, multiplier, step = [], lr_multiplier(progress), steps + len(running)
            for _ in range(micro_batches):
                loss = model(x, y)
                (loss / micro_batches).backward()  # type: ignore[no-untyped-call]
                losses.append(loss.detach())
                x, y, epoch = next(batches)
            optimizer.step(multiplier, muon_momentum(step), weight_decay_at(progress))
            optimizer.zero_grad()
            running.append((start_copy(torch.stack(losses).mean()), multiplier))
            if len(running) <= ahead:
                continue  # the GPU gets its next step before the host waits for this one

        read_loss, multiplier = running.popleft()
        value = read_loss()
        if not value <= MAX_LOSS:  # NaN too compares as false
            raise TrainingDivergedError(f"loss {value} at step {steps}")
        smooth += 0.1 * (value - smooth)
        steps += 1
        now = time.perf_counter()
        elapsed, clock = now - clock, now
        if steps <= UNTIMED_STEPS:
            untimed += elapsed
        else:
            seconds += elapsed
            progress = seconds / budget
        if now >= print_at or progress >= 1:
            # The worker parses this line. A terminal shows each in place, a log four a second.
            print_at = now + (0.0 if sys.stdout.isatty() else 0.25)
            line = (
                f"\rstep {steps - 1:05d} ({100 * min(1.0, progress):5.1f}%)"
                f" | loss: {smooth / (1 - 0.9**steps):.6f} | lrm: {multiplier:.2f}"
                f" | dt: {1000 * elapsed:.0f}ms | tok/sec: {tokens / elapsed:,.0f}"
                f" | mfu: {100 * tokens / elapsed / peak_rate:.1f}% | epoch: {epoch}"
                f" | remaining: {max(0.0, budget - seconds):.0f}s    "
            )
            print(line, end="", flush=True)
    print(flush=True)
    return steps, seconds, untimed


def run() -> None:
    imported = time.perf_counter()
    seed = int(os.environ.get("AUTORESEARCH_SEED", "42"))
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    share_compiled_code()
    device = pick_device()
    device_name = torch.cuda.get_device_name() if device.type == "cuda" else device.type

    micro_batches, rest = divmod(TOTAL_BATCH_SIZE, DEVICE_BATCH_SIZE * MAX_SEQ_LEN)
    if rest or not micro_batches:
        product = f"DEVICE_BATCH_SIZE {DEVICE_BATCH_SIZE} x context {MAX_SEQ_LEN}"
        raise ValueError(f"TOTAL_BATCH_SIZE {TOTAL_BATCH_SIZE} is no multiple of {product}")
    tokenizer = Tokenizer.load()
    batches = make_dataloader(tokenizer, DEVICE_BATCH_SIZE, MAX_SEQ_LEN, "train", device)
    config = build_config(DEPTH, MAX_SEQ_LEN, tokenizer.vocab_size, compute_dtype(device))
    with device:
        model = GPT(config)
    optimizer = build_optimizer(model, compiled=COMPILE)
    if COMPILE:
        model.hidden = torch.compile(model.hidden, dynamic=False)  # type: ignore[method-assign]
        HeadLoss.cross_entropy = staticmethod(torch.compile(cross_entropy, dynamic=False))
        if device.type == "cuda":
            choose_kernels(MAX_SEQ_LEN, config.windows, config.dtype, device)
    print(f"{config} on {device_name}: {model.num_params():,} parameters", flush=True)
    peak_rate = peak_flops(device_name) / model.flops_per_token() or math.inf
    built = time.perf_counter()
    steps, seconds, untimed = train(
        model, optimizer, batches, micro_batches, TIME_BUDGET, peak_rate
    )
    trained = time.perf_counter()
    val_bpb = evaluate_bpb(model.eval(), tokenizer, DEVICE_BATCH_SIZE)
    if not math.isfinite(val_bpb):
        raise TrainingDivergedError(f"val_bpb {val_bpb}")
    finished = time.perf_counter()
    path = os.environ.get("AUTORESEARCH_CHECKPOINT")
    if path and val_bpb < float(os.environ.get("AUTORESEARCH_CHECKPOINT_BELOW", "inf")):
        save_model(model, path)

    print(
        f"seconds outside training: imports {imported - PROCESS_START:.1f}, "
        f"set-up {built - imported:.1f}, first {UNTIMED_STEPS} steps {untimed:.1f}, "
        f"evaluation {finished - trained:.1f}"
    )
    rate = TOTAL_BATCH_SIZE * (steps - UNTIMED_STEPS) / seconds
    peaks = {"cuda": torch.cuda.max_memory_allocated, "mps": torch.mps.driver_allocated_memory}
    memory = peaks.get(device.type, int)() / 2**20
    print(f"---\nval_bpb: {val_bpb:.6f}")
    print(f"training_seconds: {seconds:.1f}\ntotal_seconds: {finished - PROCESS_START:.1f}")
    print(f"peak_vram_mb: {memory:.1f}\nmfu_percent: {100 * rate / peak_rate:.2f}")
    print(f"total_tokens_M: {steps * TOTAL_BATCH_SIZE / 1e6:.3f}\nnum_steps: {steps}")
    print(f"epoch: {batches.epoch}\nnum_params_M: {model.num_params() / 1e6:.1f}")
    print(f"depth: {config.depth}\nprofile: {PROFILE.name}\ndevice: {device_name}")
    print(f"torch_version: {torch.__version__}\nseed: {seed}", flush=True)


def save_model(model: GPT, path: str) -> None:
    from safetensors.torch import save_file  # runs by hand do without it

    save_file(model.state_dict(), path)


def load_model(path: str, device: torch.device) -> GPT:
    """What `save_model` has saved. The worker measures its `logits` once more."""
    from safetensors.torch import load_file

    config = build_config(DEPTH, MAX_SEQ_LEN, Tokenizer.load().vocab_size, compute_dtype(device))
    with device:
        model = GPT(config)
    model.load_state_dict(load_file(path, device=str(device)))
    return model.eval()


def main() -> int:
    try:
        run()
    except (TrainingDivergedError, PrepareError) as error:
        print(f"\nFAIL: {error}")
    except RuntimeError as error:  # torch has a class for this, which Apple's GPUs do not use
        if "out of memory" not in str(error):
            raise
        print(f"\nFAIL: out of GPU memory, halve DEVICE_BATCH_SIZE ({DEVICE_BATCH_SIZE}). {error}")
    else:
        return 0
    return 1


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    os._exit(exit_code)  # the interpreter would take 3 s to tear everything down
