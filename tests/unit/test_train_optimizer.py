"""Muon, AdamW and the schedules of train.py against slow references in float64."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import train

SHAPES = [(24, 24), (64, 16), (16, 64), (1, 32)]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors are tiny here; threads would only wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def parameters(shape: tuple[int, ...], n: int, seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for _ in range(n)]


def optimizer_of(adamw: list[train.AdamWGroup], muon: list[train.MuonGroup]) -> train.MuonAdamW:
    return train.MuonAdamW(adamw, muon, torch.float32, compiled=False)


def give_gradients(params: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def slow_polar(g: Tensor) -> Tensor:
    """The five iterations on one matrix, written for rows <= cols."""
    if g.size(0) > g.size(1):
        return slow_polar(g.T).T
    x = g / (1.02 * g.square().sum().sqrt() + 1e-6)
    for a, b, c in [
        (8.15655, -22.48329, 15.87877),
        (4.04293, -2.80892, 0.50002),
        (3.89167, -2.77248, 0.50606),
        (3.28575, -2.36813, 0.46449),
        (2.34654, -1.70978, 0.42324),
    ]:
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


class SlowMuon:
    """One matrix in float64, step by step as the rule is described."""

    def __init__(self, weight: Tensor, lr: float) -> None:
        self.weight = weight.detach().double().clone()
        rows, cols = weight.shape
        self.lr = lr * math.sqrt(max(1, rows / cols))
        self.momentum = torch.zeros_like(self.weight)
        self.sizes = [0.0] * max(rows, cols)

    def step(self, grad: Tensor, multiplier: float, momentum: float, decay: float) -> None:
        g, lr = grad.double(), self.lr * multiplier
        self.momentum = momentum * self.momentum + (1 - momentum) * g
        u = slow_polar((1 - momentum) * g + momentum * self.momentum)
        by_row = u.size(0) >= u.size(1)
        lines = u if by_row else u.T
        for i, line in enumerate(lines):
            self.sizes[i] = 0.95 * self.sizes[i] + 0.05 * line.square().mean().item()
        scaled = torch.stack([a / math.sqrt(s) for a, s in zip(lines, self.sizes, strict=True)])
        scaled = scaled * (u.norm() / scaled.norm())
        u = scaled if by_row else scaled.T
        for i in range(u.size(0)):
            for j in range(u.size(1)):
                w = self.weight[i, j].item()
                kept = w - lr * decay * w if u[i, j].item() * w > 0 else w
                self.weight[i, j] = kept - lr * u[i, j]


@pytest.mark.parametrize("shape", SHAPES)
def test_muon_equals_a_slow_reference(shape: tuple[int, int]) -> None:
    """Momentum, Polar Express, NorMuon, cautious decay and the shape's factor over five steps."""
    params = parameters(shape, 3)
    slow = [SlowMuon(p, 0.04) for p in params]
    optimizer = optimizer_of([], [train.MuonGroup(params, 0.04)])
    for i in range(5):
        give_gradients(params, seed=i + 1)
        for p, reference in zip(params, slow, strict=True):
            assert p.grad is not None
            reference.step(p.grad, 1 - 0.1 * i, 0.85 + 0.01 * i, 0.2)
        optimizer.step(1 - 0.1 * i, 0.85 + 0.01 * i, 0.2)
    for p, reference in zip(params, slow, strict=True):
        torch.testing.assert_close(p.detach().double(), reference.weight, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_muon_is_the_same_one_by_one_and_stacked(shape: tuple[int, int]) -> None:
    """Matrices in one batched update do not feel each other."""
    together, alone = parameters(shape, 4), parameters(shape, 4)
    stacked = optimizer_of([], [train.MuonGroup(together, 0.04)])
    single = optimizer_of([], [train.MuonGroup([p], 0.04) for p in alone])
    for i in range(3):
        for params, optimizer in ((together, stacked), (alone, single)):
            give_gradients(params, seed=i + 1)
            optimizer.step(1.0, 0.9, 0.2)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 64), (128, 32), (32, 128)])
def test_orthogonalize_brings_all_singular_values_near_one(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    """Within 0.8 and 1.2, wherever they are at least 0.002 of the matrix's norm."""
    generator = torch.Generator().manual_seed(3)
    u, _, vt = torch.linalg.svd(torch.randn(2, *shape, generator=generator), full_matrices=False)
    spread = torch.logspace(-2, 0, min(shape))
    assert (spread.min() / spread.norm()).item() > 0.002
    result = train.orthogonalize(u * spread @ vt, dtype).float()
    values = torch.linalg.svdvals(result)
    assert values.min().item() > 0.8
    assert values.max().item() < 1.2
    cosine = (result * (u @ vt)).sum((1, 2)) / (result.norm(dim=(1, 2)) * math.sqrt(min(shape)))
    assert cosine.min().item() > 0.98


def test_orthogonalize_forgets_the_scale_and_commutes_with_transposition() -> None:
    """A gradient a million times larger gives the same update, and so does working on gᵀ."""
    g = torch.randn(2, 16, 48, generator=torch.Generator().manual_seed(0))
    update = train.orthogonalize(g, torch.float32)
    torch.testing.assert_close(
        train.orthogonalize(1e6 * g, torch.float32), update, rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(train.orthogonalize(g.mT, torch.float32).mT, update)


def test_a_zero_gradient_gives_a_zero_update() -> None:
    """The output matrices' inputs get no gradient at the start; nothing may become NaN there."""
    params = parameters((8, 8), 2)
    before = [p.detach().clone() for p in params]
    optimizer = optimizer_of([], [train.MuonGroup(params, 0.04)])
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step(1.0, 0.9, 0.2)
    for p, old in zip(params, before, strict=True):
        torch.testing.assert_close(p.detach(), old, atol=0, rtol=0)


@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 48)])
def test_normuon_keeps_the_norm_and_evens_out_the_longer_side(shape: tuple[int, int]) -> None:
    """Rows of a tall or square matrix, columns of a wide one, get equal size on the first step."""
    group = train.MuonGroup(parameters(shape, 3), 0.04)
    rows, cols = shape
    assert group.second.shape == ((3, rows, 1) if rows >= cols else (3, 1, cols))
    update = torch.randn(3, *shape) * torch.linspace(0.1, 3, cols)
    even = train.normalize_rows(update, group.second, 0.95)
    torch.testing.assert_close(even.norm(dim=(1, 2)), update.norm(dim=(1, 2)))
    sizes = even.norm(dim=2 if rows >= cols else 1)
    torch.testing.assert_close(sizes, sizes[:, :1].expand_as(sizes))


def test_decay_is_cautious() -> None:
    """Only weights that the update shrinks as well are decayed, by lr · decay · weight."""
    lr, decay = 0.04, 0.2
    weight = torch.randn(1, 12, 12, generator=torch.Generator().manual_seed(0))
    grad = torch.randn(1, 12, 12, generator=torch.Generator().manual_seed(1))

    def stepped(weight_decay: float) -> Tensor:
        w, momentum, second = weight.clone(), torch.zeros_like(weight), torch.zeros(1, 12, 1)
        train.muon_step(w, grad, momentum, second, (lr, 0.9, 0.95, weight_decay), torch.float32)
        return w

    plain, decayed = stepped(0.0), stepped(decay)
    update = (weight - plain) / lr
    agree = update.sign() == weight.sign()
    assert 0.3 < agree.float().mean().item() < 0.7
    torch.testing.assert_close(decayed, plain - lr * decay * weight * agree)


@pytest.mark.parametrize(
    ("shape", "factor"), [((8, 8), 1.0), ((32, 8), 2.0), ((8, 32), 1.0), ((2, 32), 1.0)]
)
def test_tall_matrices_step_further(shape: tuple[int, int], factor: float) -> None:
    """lr · sqrt(max(1, rows / cols))."""
    assert train.MuonGroup(parameters(shape, 1), 0.04).lr == pytest.approx(0.04 * factor)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_equals_torch(decay: float) -> None:
    """The same weights as torch.optim.AdamW after ten steps with a falling learning rate."""
    ours, theirs = parameters((17, 5), 3), parameters((17, 5), 3)
    group = train.AdamWGroup(ours, 0.01, decay, 0.8, 0.95)
    optimizer = optimizer_of([group], [])
    reference = torch.optim.AdamW(
        theirs, lr=0.01, betas=(0.8, 0.95), eps=1e-10, weight_decay=decay, foreach=False
    )
    for i in range(10):
        for params in (ours, theirs):
            give_gradients(params, seed=i + 1)
        reference.param_groups[0]["lr"] = 0.01 * (1 - i / 10)
        reference.step()
        optimizer.step(1 - i / 10, 0.9, 0.0)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_adamw_keeps_moments_of_bf16_weights_in_fp32() -> None:
    """Moments of eight bits would forget small gradients; the step is rounded only once."""
    exact, rounded = parameters((9, 7), 1), parameters((9, 7), 1)
    rounded = [nn.Parameter(p.detach().bfloat16()) for p in rounded]
    exact = [nn.Parameter(p.detach().float()) for p in rounded]
    groups = [train.AdamWGroup(params, 0.1) for params in (exact, rounded)]
    for params in (exact, rounded):
        give_gradients(params, seed=1)
    assert exact[0].grad is not None
    assert rounded[0].grad is not None
    exact[0].grad.copy_(rounded[0].grad)
    optimizer_of(groups, []).step(1.0, 0.9, 0.0)
    assert all(m.dtype == torch.float32 for g in groups for m in (*g.first, *g.second))
    torch.testing.assert_close(rounded[0], exact[0].bfloat16(), atol=0, rtol=0)


def test_a_learning_rate_of_zero_changes_nothing() -> None:
    """The multiplier scales every group, decay included."""
    matrices, others = parameters((8, 8), 2), parameters((5,), 2)
    before = [p.detach().clone() for p in (*matrices, *others)]
    give_gradients([*matrices, *others], seed=1)
    adamw = train.AdamWGroup(others, 0.1, weight_decay=0.1)
    optimizer_of([adamw], [train.MuonGroup(matrices, 0.04)]).step(0.0, 0.9, 0.2)
    for p, old in zip((*matrices, *others), before, strict=True):
        torch.testing.assert_close(p.detach(), old, atol=0, rtol=0)


def test_adamw_leaves_a_parameter_without_gradient_alone() -> None:
    """An embedding that an agent has not wired up yet does no harm."""
    used, unused = parameters((4,), 2)
    used.grad = torch.ones(4)
    before = unused.detach().clone()
    optimizer = optimizer_of([train.AdamWGroup([used, unused], 0.1)], [])
    optimizer.step(1.0, 0.9, 0.0)
    torch.testing.assert_close(unused.detach(), before, atol=0, rtol=0)
    optimizer.zero_grad()
    assert used.grad is None


def test_the_optimizer_holds_every_parameter_once_at_its_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Matrices of the blocks go to Muon by shape; embeddings and head scale with the width."""
    monkeypatch.setattr(train, "NGRAM_ROWS", 16)
    model = train.GPT(train.build_config(4, 32, 100, torch.float32))
    optimizer = train.build_optimizer(model, compiled=False)
    held = [p for g in (*optimizer.adamw, *optimizer.muon) for p in g.params]
    assert len(held) == len({id(p) for p in held})
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}

    muon = {tuple(g.params[0].shape): (len(g.params), g.lr) for g in optimizer.muon}
    up, down, square, gate = (1024, 256), (256, 1024), (256, 256), (2, 32)
    assert muon == {square: (16, 0.04), up: (4, 0.08), down: (4, 0.04), gate: (2, 0.04)}

    rates = {
        id(p): (g.lr, g.beta1, g.beta2, g.weight_decay) for g in optimizer.adamw for p in g.params
    }
    scale = (256 / 768) ** -0.5
    assert rates[id(model.token_embedding.weight)] == (pytest.approx(0.8 * scale), 0.8, 0.95, 1e-3)
    for embedding in model.value_embeddings.parameters():
        assert rates[id(embedding)] == (pytest.approx(0.8 * scale), 0.8, 0.95, 0.01)
    for table in model.ngrams.parameters():
        assert rates[id(table)] == (pytest.approx(0.6 * scale), 0.8, 0.95, 0.0)
    assert rates[id(model.lm_head.weight)] == (pytest.approx(0.006 * scale), 0.8, 0.95, 0.01)
    assert rates[id(model.resid_scale)] == (0.005, 0.8, 0.95, 0.0)
    assert rates[id(model.x0_scale)] == (0.5, 0.96, 0.95, 0.0)


def test_the_learning_rate_has_no_warmup_and_falls_over_the_last_three_quarters() -> None:
    """1 from the first step, then a straight line that ends at 0.03 with the budget."""
    assert [train.lr_multiplier(p) for p in (0.0, 0.1, 0.25)] == [1.0, 1.0, 1.0]
    assert train.lr_multiplier(0.625) == pytest.approx(0.515)
    assert train.lr_multiplier(1.0) == pytest.approx(0.03)


def test_the_learning_rate_can_end_above_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """FINAL_LR_FRACTION and WARMDOWN_FRACTION are the line's end and length."""
    monkeypatch.setattr(train, "FINAL_LR_FRACTION", 0.1)
    monkeypatch.setattr(train, "WARMDOWN_FRACTION", 0.8)
    assert train.lr_multiplier(0.2) == 1.0
    assert train.lr_multiplier(0.6) == pytest.approx(0.55)
    assert train.lr_multiplier(1.0) == pytest.approx(0.1)


def test_momentum_rises_over_300_steps() -> None:
    """0.85 to 0.95 in a straight line, then constant."""
    momenta = [train.muon_momentum(step) for step in (0, 150, 300, 10_000)]
    assert momenta == pytest.approx([0.85, 0.9, 0.95, 0.95])


def test_weight_decay_falls_with_the_budget() -> None:
    """0.2 · (1 - progress)."""
    assert [train.weight_decay_at(p) for p in (0, 0.5, 1)] == pytest.approx([0.2, 0.1, 0])


def test_a_parameter_that_no_group_trains_is_named() -> None:
    """It would stay as it was, and the idea that added it would seem to do nothing."""
    model = train.GPT(train.build_config(2, 32, 100, torch.float32))
    model.skip = nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match="skip would not be trained"):
        train.build_optimizer(model, compiled=False)
