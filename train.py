"""Train one language model for a fixed time and print how good it is. An agent edits this file.

Everything that may change lies here: model, optimizer, schedules, hyperparameters, loop. What makes
runs comparable lies in prepare.py and stays as it is: data, tokenizer, context, time budget, and
the metric (bits per byte on held-out text, lower is better).

    uv run train.py

Only training time counts against the budget; the first UNTIMED_STEPS steps, in which compilers and
caches warm up, are free; MAX_PASSES over the text end a run before its time. It closes with
`key: value` lines after `---`. One that fails prints FAIL and why instead, and exits with 1.
"""
# ruff: noqa: E402  (the clock and these settings come before torch is imported)

import gc
import os
import time

PROCESS_START = time.perf_counter()
if __name__ == "__main__":
    gc.disable()  # what imports and compilers build stays; scanning it again and again costs 2 s
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve a busy host's CPUs

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812  (the name that everybody knows it by)
from torch import Tensor, nn

from prepare import (
    MAX_SEQ_LEN,
    PROFILE,
    TIME_BUDGET,
    PrepareError,
    Tokenizer,
    attention,
    choose_kernels,
    evaluate_bpb,
    make_dataloader,
    peak_flops,
    pick_device,
    relu2_mlp,
    share_compiled_code,
)

# --------------------------------------------------------------------------------------------------
# Hyperparameters. The first four follow the machine (table in prepare.py), the rest are literals.

DEPTH = PROFILE.depth  # number of blocks
DEVICE_BATCH_SIZE = PROFILE.device_batch_size  # rows in one forward pass; lower it on out of memory
TOTAL_BATCH_SIZE = PROFILE.total_batch_size  # tokens in one optimizer step
COMPILE = PROFILE.compile  # whether torch.compile is used

ASPECT_RATIO = 64  # width per block of depth, rounded up to whole heads
HEAD_DIM = 128  # width of one attention head
WINDOW_PATTERN = "SSSL"  # per block, repeated: S sees a part of the context, L all; the last is L
SHORT_WINDOW = 0.125  # that part
MLP_RATIO = 4  # hidden width of the MLP over the model's width
ROTARY_BASE = 10_000.0  # longest wavelength of the rotary angles over 2 pi, in tokens
GATE_CHANNELS = 32  # channels of the block's input that the value gates read
LOGIT_SOFTCAP = 15.0  # logits lie within plus and minus this

MATRIX_LR = 0.04  # Muon, all matrices inside the blocks
EMBEDDING_LR = 0.6  # AdamW, token and value embeddings, at width 768
HEAD_LR = 0.004  # AdamW, lm_head, at width 768
RESID_LR = 0.005  # AdamW, scalars on the residual stream
X0_LR = 0.5  # AdamW, scalars on the embedding that each block sees again
ADAM_BETA1 = 0.8  # decay of AdamW's first moment
ADAM_BETA2 = 0.95  # decay of AdamW's second moment
X0_BETA1 = 0.96  # decay of the first moment of the x0 scalars
ADAM_EPS = 1e-10  # added to AdamW's denominator
MUON_MOMENTUM_START = 0.85  # Nesterov momentum at step 0
MUON_MOMENTUM_END = 0.95  # and once the ramp is over
MUON_MOMENTUM_STEPS = 300  # length of that ramp, in steps
MUON_BETA2 = 0.95  # decay of NorMuon's second moment
WEIGHT_DECAY = 0.2  # Muon's cautious decay at the start; falls linearly to 0

MAX_PASSES = 4.0  # over the training text, after which a run ends before its time
WARMDOWN_FRACTION = 0.75  # part of the run, at its end, in which the learning rate falls
FINAL_LR_FRACTION = 0.03  # what is left of the learning rate at the very end
LOSS_CHUNK_TOKENS = 32_768  # tokens whose logits exist at a time on a GPU; no effect on losses
CPU_LOSS_CHUNK_TOKENS = 512  # the same on a CPU: pieces that malloc can reuse halve a step's time

# Not for tuning: how a run is timed, the least it does, and when it is given up.
UNTIMED_STEPS = 11
MIN_STEPS = 100  # however little text there is
MAX_LOSS = 100.0


# --------------------------------------------------------------------------------------------------
# Model


def compute_dtype(device: torch.device) -> torch.dtype:
    """Type of activations, embeddings and Muon's iterations; the other weights are kept in fp32.

    fp16 is left out: it would need loss scaling, for the sake of cards older than Ampere.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a model. `windows` has one entry per block: how many tokens a token sees there."""

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
    """Window of each block in tokens; the last block always sees the whole context."""
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
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    positions = torch.arange(context, dtype=torch.float64)
    angles = torch.outer(positions, ROTARY_BASE**-exponents).unsqueeze(1)
    cos, sin = angles.cos().float(), angles.sin().float()
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + D/2) of x [B, T, H, D] by the angle of its position."""
    return (x * cos + x.roll(x.size(-1) // 2, -1) * sin).to(x.dtype)


class Linear(nn.Linear):
    """A matrix without bias, kept in fp32 and cast to the activations' type where it is used."""

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
        def heads(y: Tensor) -> Tensor:
            return y.view(*y.shape[:2], self.n_head, -1)

        q, k, v = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        if self.value_gate is not None and value_embedding is not None:
            gate = 2 * torch.sigmoid(self.value_gate(x[..., :GATE_CHANNELS]))
            v = v + gate.unsqueeze(-1) * heads(value_embedding)
        q, k = (rotate(rms_norm(a), *rotary) for a in (q, k))
        y: Tensor = self.out(attention(q, k, v, self.window).flatten(2))
        return y


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
    """Every second block has one, the last included (ResFormer, arXiv:2410.17897)."""
    return (depth - 1 - layer) % 2 == 0


def softcap(logits: Tensor) -> Tensor:
    return LOGIT_SOFTCAP * torch.tanh(logits.float() / LOGIT_SOFTCAP)


def cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Per row of logits [N, V]: the loss in nats, [N], and its gradient by the logits, [N, V].

    Capped logits need no maximum subtracted before exp: their sum fits fp32 up to a cap of 79.
    """
    capped = softcap(logits)
    odds = capped.exp()
    total = odds.sum(-1, keepdim=True)
    losses = total.log().squeeze(-1) - capped.gather(-1, targets[:, None]).squeeze(-1)
    gradient = odds.div_(total)  # in place, because on a CPU memory is what takes the time
    if logits.is_cuda:  # a comparison fuses with the rest, a scatter would not
        is_target = torch.arange(logits.size(-1), device=logits.device) == targets[:, None]
        gradient = gradient - is_target.to(gradient.dtype)
    else:
        gradient[torch.arange(len(logits)), targets] -= 1
    slope = capped.div_(LOGIT_SOFTCAP).square_().neg_().add_(1)
    return losses, gradient.mul_(slope).to(logits.dtype)


def mm_fp32(a: Tensor, b: Tensor) -> Tensor:
    """a · b in fp32, also for bf16 factors, whose product would be rounded otherwise."""
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else torch.mm(a, b).float()


class HeadLoss(torch.autograd.Function):
    """Cross-entropy in nats per token, [N], and its mean, of hidden [N, C], head [V, C], targets.

    Works on LOSS_CHUNK_TOKENS at a time, and on each chunk's gradients at once: the logits of the
    whole batch never exist, and none are made twice. Only the mean has a gradient.
    """

    cross_entropy = staticmethod(cross_entropy)  # run() puts the compiled one here

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, learns: bool
    ) -> tuple[Tensor, Tensor]:
        weight = head.to(hidden.dtype)
        d_hidden = torch.empty_like(hidden) if learns else hidden
        d_head = torch.zeros_like(head) if learns else head
        chunk = LOSS_CHUNK_TOKENS if hidden.is_cuda else CPU_LOSS_CHUNK_TOKENS
        losses = []
        for start in range(0, len(hidden), chunk):
            h, t = hidden[start : start + chunk], targets[start : start + chunk]
            logits = h @ weight.T
            if learns or COMPILE:  # compiled, it is the fastest even if only the loss is wanted
                loss, d_logits = HeadLoss.cross_entropy(logits, t)
            else:
                loss = F.cross_entropy(softcap(logits), t, reduction="none")
            losses.append(loss)
            if learns:
                torch.mm(d_logits, weight, out=d_hidden[start : start + chunk])
                d_head += mm_fp32(d_logits.T, h)
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
    """Decoder with rotary attention, relu² MLPs, value embeddings and an untied head."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config, depth = config, config.depth

        def table() -> nn.Embedding:
            return nn.Embedding(config.vocab_size, config.width, dtype=config.dtype)

        self.token_embedding = table()
        with_values = [i for i in range(depth) if has_value_embedding(i, depth)]
        self.value_embeddings = nn.ModuleDict({str(i): table() for i in with_values})
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
        """Outputs start at zero, so a block starts as the identity; value gates start at 1."""
        bound = math.sqrt(3 / self.config.width)  # a uniform distribution with deviation width^-1/2
        nn.init.normal_(self.token_embedding.weight, std=1.0)
        nn.init.normal_(self.lm_head.weight, std=0.001)
        for embedding in self.value_embeddings.parameters():
            nn.init.uniform_(embedding, -bound, bound)
        for name, matrix in self.blocks.named_parameters():
            if name.endswith(("out.weight", "down.weight", "value_gate.weight")):
                nn.init.zeros_(matrix)
            else:
                nn.init.uniform_(matrix, -bound, bound)

    def hidden(self, tokens: Tensor) -> Tensor:
        """What lm_head reads, [B, T, C], from token ids [B, T]."""
        rotary = (self.cos[: tokens.size(1)], self.sin[: tokens.size(1)])
        x = x0 = rms_norm(self.token_embedding(tokens))
        for i, block in enumerate(self.blocks):
            x = self.resid_scale[i] * x + self.x0_scale[i] * x0
            has_own = str(i) in self.value_embeddings
            x = block(x, self.value_embeddings[str(i)](tokens) if has_own else None, rotary)
        return rms_norm(x)

    def logits(self, tokens: Tensor) -> Tensor:
        """[B, T, V] in fp32, for looking at or sampling from a model."""
        return softcap(self.lm_head(self.hidden(tokens)))

    def forward(
        self, tokens: Tensor, targets: Tensor, reduction: Literal["mean", "none"] = "mean"
    ) -> Tensor:
        """Loss in nats: its mean over all tokens, or with reduction="none" each token's, [B, T]."""
        learns = torch.is_grad_enabled()
        with torch.set_grad_enabled(learns or COMPILE):  # evaluation runs what training compiled
            hidden = self.hidden(tokens).flatten(0, 1)
        hidden = hidden if learns else hidden.detach()  # lets go of what backward would have needed
        result = HeadLoss.apply(hidden, self.lm_head.weight, targets.flatten(), learns)
        mean, losses = cast("tuple[Tensor, Tensor]", result)
        return mean if reduction == "mean" else losses.view_as(targets)

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        """Forward and backward, counted as autoresearch counts, so that MFU figures compare.

        6 per weight of a matrix product, and 12 · width · window per block for attention, as if
        every token saw a full window (with the causal mask about half of it is needed).
        """
        matrices = sum(p.numel() for p in self.blocks.parameters()) + self.lm_head.weight.numel()
        return 6 * matrices + 12 * self.config.width * sum(self.config.windows)


# --------------------------------------------------------------------------------------------------
# Optimizer: Muon for the matrices inside the blocks, AdamW for the rest

# Coefficients (a, b, c) of X <- aX + (bA + cA²)X (The Polar Express, arXiv:2505.16932).
POLAR_EXPRESS = (
    (8.15655, -22.48329, 15.87877),
    (4.04293, -2.80892, 0.50002),
    (3.89167, -2.77248, 0.50606),
    (3.28575, -2.36813, 0.46449),
    (2.34654, -1.70978, 0.42324),
)

Scalar = float | Tensor  # compiled steps take 0-d tensors: a float's new value would recompile them
Hyper = Sequence[Scalar]


def frobenius_norm(x: Tensor) -> Tensor:
    return x.square().sum((-2, -1), keepdim=True).sqrt()


def orthogonalize(g: Tensor, dtype: torch.dtype) -> Tensor:
    """About U Vᵀ of each matrix U S Vᵀ in g [N, rows, cols]: all singular values near 1."""
    x = (g / (1.02 * frobenius_norm(g) + 1e-6)).to(dtype)
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x  # the products below are cheapest on the short side
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


def equalize(update: Tensor, second: Tensor, beta2: Scalar) -> Tensor:
    """Divide rows (columns of a wide matrix) by their running size, keeping each matrix's norm.

    `second` [N, rows, 1] or [N, 1, cols] is updated in place (NorMuon, arXiv:2510.05491).
    """
    across = -1 if second.size(-1) == 1 else -2
    second.lerp_(update.square().mean(across, keepdim=True), 1 - beta2)
    scaled = update * second.clamp_min(1e-10).rsqrt()
    return scaled * (frobenius_norm(update) / frobenius_norm(scaled).clamp_min(1e-10))


def muon_step(
    weight: Tensor, grad: Tensor, average: Tensor, second: Tensor, hyper: Hyper, dtype: torch.dtype
) -> None:
    """One step of equally shaped matrices [N, rows, cols]; changes all tensors but `grad`."""
    lr, momentum, beta2, weight_decay = hyper
    average.lerp_(grad, 1 - momentum)
    nesterov = grad.lerp(average, momentum)
    update = equalize(orthogonalize(nesterov, dtype).float(), second, beta2)
    agrees = update * weight > 0  # cautious: decay only what the update shrinks as well
    weight.sub_(lr * (update + weight_decay * weight * agrees))


def adamw_step(weight: Tensor, grad: Tensor, first: Tensor, second: Tensor, hyper: Hyper) -> None:
    """One step of one tensor, the `step`-th from 1; moments in fp32 whatever the weight's type."""
    lr, beta1, beta2, eps, weight_decay, step = hyper
    grad = grad.float()
    first.lerp_(grad, 1 - beta1)
    second.lerp_(grad.square(), 1 - beta2)
    scale = lr / (1 - beta1**step)
    update = first / ((second / (1 - beta2**step)).sqrt() + eps)
    weight.copy_(weight.float() * (1 - lr * weight_decay) - scale * update)


@dataclass
class AdamWGroup:
    params: list[nn.Parameter]
    lr: float
    beta1: float = ADAM_BETA1
    beta2: float = ADAM_BETA2
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        moments = [torch.zeros_like(p, dtype=torch.float32) for p in (*self.params, *self.params)]
        self.first, self.second = moments[: len(self.params)], moments[len(self.params) :]


@dataclass
class MuonGroup:
    """Matrices of one shape; tall ones step further: lr · sqrt(max(1, rows / cols))."""

    params: list[nn.Parameter]
    lr: float
    beta2: float = MUON_BETA2

    def __post_init__(self) -> None:
        n, (rows, cols) = len(self.params), self.params[0].shape
        self.lr *= math.sqrt(max(1, rows / cols))
        self.average = self.params[0].new_zeros(n, rows, cols)
        self.second = self.params[0].new_zeros(n, *((rows, 1) if rows >= cols else (1, cols)))


class MuonAdamW:
    """Both optimizers behind one `step`.

    No torch.optim.Optimizer on purpose: its constructor imports the compiler, 3 s of a CPU run.
    """

    def __init__(
        self, adamw: list[AdamWGroup], muon: list[MuonGroup], dtype: torch.dtype, *, compiled: bool
    ) -> None:
        self.adamw, self.muon, self.dtype, self.steps = adamw, muon, dtype, 0
        self._params = [p for a in adamw for p in a.params] + [p for m in muon for p in m.params]
        self._scalar: Callable[[float], Scalar] = torch.tensor if compiled else float
        self._adamw_step, self._muon_step = adamw_step, muon_step
        if compiled:
            self._adamw_step = torch.compile(adamw_step, dynamic=False, fullgraph=True)
            self._muon_step = torch.compile(muon_step, dynamic=False, fullgraph=True)

    def zero_grad(self) -> None:
        for p in self._params:
            p.grad = None

    @torch.no_grad()
    def step(self, multiplier: float, momentum: float, weight_decay: float) -> None:
        """`multiplier` scales every group's rate; the other two are Muon's at this moment."""
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
    embeddings = [*model.token_embedding.parameters(), *model.value_embeddings.parameters()]
    adamw = [
        AdamWGroup(embeddings, EMBEDDING_LR * scale),
        AdamWGroup(list(model.lm_head.parameters()), HEAD_LR * scale),
        AdamWGroup([model.resid_scale], RESID_LR),
        AdamWGroup([model.x0_scale], X0_LR, beta1=X0_BETA1),
    ]
    muon = [MuonGroup(matrices, MATRIX_LR) for matrices in by_shape.values()]
    return MuonAdamW(adamw, muon, model.config.dtype, compiled=compiled)


# --------------------------------------------------------------------------------------------------
# Schedules. `progress`, 0 to 1: of the time or of the tokens, whichever is nearer to its end


def lr_multiplier(progress: float) -> float:
    """No warm-up; 1, then a straight line down to FINAL_LR_FRACTION at progress 1."""
    left = min(1.0, (1 - progress) / WARMDOWN_FRACTION)
    return left + (1 - left) * FINAL_LR_FRACTION


def muon_momentum(step: int) -> float:
    ramp = min(1.0, step / MUON_MOMENTUM_STEPS)
    return MUON_MOMENTUM_START + ramp * (MUON_MOMENTUM_END - MUON_MOMENTUM_START)


def weight_decay_at(progress: float) -> float:
    return WEIGHT_DECAY * (1 - progress)


# --------------------------------------------------------------------------------------------------
# The run


class TrainingDivergedError(Exception):
    """The loss is NaN or far too high: going on would only waste the rest of the budget."""


class PendingStep:
    """A step that the device may still be at: its loss, on its way to the host, and its rate."""

    def __init__(self, loss: Tensor, multiplier: float) -> None:
        self.multiplier = multiplier
        self._done: torch.cuda.Event | None = None
        self._loss = loss
        if loss.is_cuda:
            self._loss = torch.empty_like(loss, device="cpu", pin_memory=True)
            self._loss.copy_(loss, non_blocking=True)
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()

    def loss(self) -> float:
        """Waits until the device has finished the step, so that times are true."""
        if self._done is not None:
            self._done.synchronize()
        return self._loss.item()


def train(
    model: Callable[[Tensor, Tensor], Tensor],
    optimizer: MuonAdamW,
    batches: Iterator[tuple[Tensor, Tensor, int]],
    micro_batches: int,
    budget: float,
    peak_rate: float,
    max_tokens: float = math.inf,
) -> tuple[int, float, float]:
    """Step until `budget` seconds have been counted or `max_tokens` read, or TrainingDivergedError.

    `peak_rate` is in tokens per second what the device can do at most. Answers with the number of
    steps, the seconds that counted, and those of the untimed steps.
    """
    steps, seconds, untimed, smooth, show_at, progress = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    under_way: deque[PendingStep] = deque()
    clock = time.perf_counter()
    x, y, epoch = next(batches)
    tokens, ahead = micro_batches * x.numel(), int(x.is_cuda)
    while progress < 1 or under_way:
        if progress < 1:
            losses, multiplier = [], lr_multiplier(progress)
            for _ in range(micro_batches):
                loss = model(x, y)
                (loss / micro_batches).backward()  # type: ignore[no-untyped-call]
                losses.append(loss.detach())
                x, y, epoch = next(batches)
            begun = steps + len(under_way)
            optimizer.step(multiplier, muon_momentum(begun), weight_decay_at(progress))
            optimizer.zero_grad()
            under_way.append(PendingStep(torch.stack(losses).mean(), multiplier))
            progress = max(progress, (begun + 1) * tokens / max_tokens)
            if len(under_way) <= ahead:
                continue  # the device always has a step before it while the host waits for one

        step = under_way.popleft()
        value = step.loss()
        if not value <= MAX_LOSS:  # false for NaN as well
            raise TrainingDivergedError(f"loss {value} at step {steps}")
        smooth += 0.1 * (value - smooth)
        steps += 1
        now = time.perf_counter()
        elapsed, clock = now - clock, now
        if steps <= UNTIMED_STEPS:
            untimed += elapsed
        else:
            seconds += elapsed
            progress = max(progress, seconds / budget)
        if now >= show_at or progress >= 1:
            # The worker parses this line. A terminal shows each in place, a log four a second.
            show_at = now + (0.0 if sys.stdout.isatty() else 0.25)
            left = min(budget - seconds, (max_tokens / tokens - steps) * elapsed)
            print(
                f"\rstep {steps - 1:05d} ({100 * min(1.0, progress):5.1f}%)"
                f" | loss: {smooth / (1 - 0.9**steps):.6f} | lrm: {step.multiplier:.2f}"
                f" | dt: {1000 * elapsed:.0f}ms | tok/sec: {tokens / elapsed:,.0f}"
                f" | mfu: {100 * tokens / elapsed / peak_rate:.1f}% | epoch: {epoch}"
                f" | remaining: {max(0.0, left):.0f}s    ",
                end="",
                flush=True,
            )
    print(flush=True)
    return steps, seconds, untimed


def run() -> None:
    imported = time.perf_counter()
    seed = int(os.environ.get("AUTORESEARCH_SEED", "42"))
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    share_compiled_code()
    device = pick_device()
    on_gpu = device.type == "cuda"
    device_name = torch.cuda.get_device_name(device) if on_gpu else device.type

    micro_batches, rest = divmod(TOTAL_BATCH_SIZE, DEVICE_BATCH_SIZE * MAX_SEQ_LEN)
    if rest or not micro_batches:
        product = f"DEVICE_BATCH_SIZE {DEVICE_BATCH_SIZE} x context {MAX_SEQ_LEN}"
        raise ValueError(f"TOTAL_BATCH_SIZE {TOTAL_BATCH_SIZE} is no multiple of {product}")
    tokenizer = Tokenizer.load()
    batches = make_dataloader(tokenizer, DEVICE_BATCH_SIZE, MAX_SEQ_LEN, "train", device)
    one_pass = batches.tokens_per_pass()
    config = build_config(DEPTH, MAX_SEQ_LEN, tokenizer.vocab_size, compute_dtype(device))
    with device:
        model = GPT(config)
    optimizer = build_optimizer(model, compiled=COMPILE)
    if COMPILE:
        model.hidden = torch.compile(model.hidden, dynamic=False)  # type: ignore[method-assign]
        HeadLoss.cross_entropy = staticmethod(torch.compile(cross_entropy, dynamic=False))
        if on_gpu:
            choose_kernels(MAX_SEQ_LEN, config.windows, config.dtype, device)
    print(f"{config} on {device_name}: {model.num_params():,} parameters", flush=True)
    peak_rate = peak_flops(device_name) / model.flops_per_token() or math.inf
    max_tokens = max(MAX_PASSES * one_pass, MIN_STEPS * TOTAL_BATCH_SIZE)
    built = time.perf_counter()
    steps, seconds, untimed = train(
        model, optimizer, batches, micro_batches, TIME_BUDGET, peak_rate, max_tokens
    )
    trained = time.perf_counter()
    if seconds < TIME_BUDGET:
        passes = steps * TOTAL_BATCH_SIZE / one_pass
        print(f"ended before its time, after {passes:.1f} passes over the training text")
    val_bpb = evaluate_bpb(model.eval(), tokenizer, DEVICE_BATCH_SIZE)
    if not math.isfinite(val_bpb):
        raise TrainingDivergedError(f"val_bpb {val_bpb}")
    finished = time.perf_counter()

    print(
        f"seconds outside training: imports {imported - PROCESS_START:.1f}, "
        f"set-up {built - imported:.1f}, first {UNTIMED_STEPS} steps {untimed:.1f}, "
        f"evaluation {finished - trained:.1f}"
    )
    rate = TOTAL_BATCH_SIZE * (steps - UNTIMED_STEPS) / seconds
    memory = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0.0
    print("---")
    print(f"val_bpb: {val_bpb:.6f}")
    print(f"training_seconds: {seconds:.1f}")
    print(f"total_seconds: {finished - PROCESS_START:.1f}")
    print(f"peak_vram_mb: {memory:.1f}")
    print(f"mfu_percent: {100 * rate / peak_rate:.2f}")
    print(f"total_tokens_M: {steps * TOTAL_BATCH_SIZE / 1e6:.1f}")
    print(f"num_steps: {steps}")
    print(f"num_params_M: {model.num_params() / 1e6:.1f}")
    print(f"depth: {config.depth}")
    print(f"profile: {PROFILE.name}")
    print(f"device: {device_name}")
    print(f"torch_version: {torch.__version__}")
    print(f"seed: {seed}", flush=True)


def main() -> int:
    try:
        run()
    except (TrainingDivergedError, PrepareError) as error:
        print(f"\nFAIL: {error}", flush=True)
        return 1
    except torch.OutOfMemoryError as error:
        advice = f"halve DEVICE_BATCH_SIZE (now {DEVICE_BATCH_SIZE})"
        print(f"\nFAIL: out of GPU memory, {advice}. {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
