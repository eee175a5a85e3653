"""The fast kernels of prepare.py and train.py on a GPU against plain arithmetic in float64.

Their plain forms are tested on the CPU in test_train_model.py. Run these with `-m gpu`.
"""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (the conventional name)
from torch import Tensor

import prepare
import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),  # compilers warn, differently in each release
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def kernels() -> Iterator[prepare.Kernels]:
    """What choose_kernels() finds on this device for windows of 100 and 256 tokens."""
    plain = dict(vars(prepare.KERNELS))
    torch.manual_seed(0)
    prepare.choose_kernels(512, (100, 256, 512), train.compute_dtype(GPU), GPU)
    yield prepare.KERNELS
    vars(prepare.KERNELS).update(plain)


def config(windows: tuple[int, ...], dtype: torch.dtype | None = None) -> train.GPTConfig:
    dtype = dtype or train.compute_dtype(GPU)
    return train.GPTConfig(512, 8192, 2, 256, windows, dtype)


def random(*shape: int, scale: float = 1.0) -> Tensor:
    values = scale * torch.randn(*shape, device=GPU)
    return values.to(train.compute_dtype(GPU)).requires_grad_()


def relative(value: Tensor | None, expected: Tensor | None) -> float:
    """Norm of the error over the norm of what is expected."""
    assert value is not None
    assert expected is not None
    return ((value.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.parametrize("window", [100, 256, 512])
def test_attention_equals_a_reference(window: int) -> None:
    """The chosen kernel sees exactly the window; 2^-8 is one rounding to bf16."""
    qkv = [random(2, 512, 2, 128) for _ in range(3)]
    exact = [a.detach().double().transpose(1, 2).requires_grad_() for a in qkv]
    y = torch.compile(prepare.attention, dynamic=False)(*qkv, window)
    mask = prepare.window_mask(512, window, GPU)
    expected = F.scaled_dot_product_attention(*exact, attn_mask=mask).transpose(1, 2)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    assert relative(y, expected) < 4e-3
    for a, b in zip(qkv, exact, strict=True):
        assert b.grad is not None
        assert relative(a.grad, b.grad.transpose(1, 2)) < 1e-2


@pytest.mark.parametrize("rows", [512, 1000])
def test_the_fused_mlp_equals_a_reference(rows: int, kernels: prepare.Kernels) -> None:
    """Also where the rows are no multiple of a block, and compiled."""
    if not kernels.multiprocessors:
        pytest.skip("this GPU takes the plain form")
    x, up, down = random(1, rows, 256), random(1024, 256, scale=0.1), random(256, 1024, scale=0.1)
    exact = [a.detach().double().requires_grad_() for a in (x, up, down)]
    y = torch.compile(prepare.relu2_mlp, dynamic=False)(x, up, down)
    expected = F.linear(F.relu(F.linear(exact[0], exact[1])).square(), exact[2])
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    assert relative(y, expected) < 5e-3
    for a, b in zip((x, up, down), exact, strict=True):
        assert relative(a.grad, b.grad) < 1e-2


def test_the_loss_equals_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks, in bf16, compiled; its gradients as well."""
    monkeypatch.setattr(train, "LOSS_CHUNK_TOKENS", 256)
    compiled = torch.compile(train.cross_entropy, dynamic=False)
    monkeypatch.setattr(train.HeadLoss, "cross_entropy", staticmethod(compiled))
    hidden, head = random(1000, 256), torch.randn(8192, 256, device=GPU, requires_grad=True)
    targets = torch.randint(8192, (1000,), device=GPU)
    exact = [a.detach().double().requires_grad_() for a in (hidden, head)]
    mean, losses = train.HeadLoss.apply(hidden, head, targets, True)  # noqa: FBT003
    logits = 15 * torch.tanh(exact[0] @ exact[1].T / 15)
    expected = F.cross_entropy(logits, targets, reduction="none")
    mean.backward()
    expected.mean().backward()
    assert relative(losses, expected) < 4e-3
    assert relative(hidden.grad, exact[0].grad) < 1e-2
    assert relative(head.grad, exact[1].grad) < 1e-2


def test_compiled_hashes_are_those_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products that overflow wrap around everywhere, or a second measurement would read others."""
    monkeypatch.setattr(train, "NGRAM_ROWS", 2**20)
    tokens = torch.randint(8192, (4, 512))
    compiled = torch.compile(train.hash_ngrams, dynamic=False)
    for layer in (1, 7):
        plain = train.hash_ngrams(tokens, layer)
        for ours, expected in zip(compiled(tokens.to(GPU), layer), plain, strict=True):
            assert torch.equal(ours.cpu(), expected)


def test_the_compiled_model_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and every gradient of a model with windows, in bf16, against fp32 without kernels."""
    monkeypatch.setattr(train, "NGRAM_ROWS", 2**12)
    models = [train.GPT(config((100, 256, 512), t)).to(GPU) for t in (torch.float32, None)]
    with torch.no_grad():
        for parameter in models[0].parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    models[1].load_state_dict(models[0].state_dict())
    x, y = torch.randint(8192, (2, 4, 512), device=GPU)
    fast = models[1]
    fast.hidden = torch.compile(fast.hidden, dynamic=False)  # type: ignore[method-assign]
    loss = fast(x, y)
    loss.backward()
    vars(prepare.KERNELS).update(vars(prepare.Kernels()))
    expected = models[0](x, y)
    expected.backward()
    assert relative(loss, expected) < 1e-3
    for (name, a), b in zip(fast.named_parameters(), models[0].parameters(), strict=True):
        assert relative(a.grad, b.grad) < 0.05, name
