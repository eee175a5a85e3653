"""The model of train.py against slow references in float64.

Covers the network, its initial weights and its loss. Optimizer and schedules are in
test_train_optimizer.py, the loop and what it prints in test_train_run.py.
"""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (the conventional name)
from torch import Tensor

import prepare
import train


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors are tiny here; threads would only wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_config(windows: tuple[int, ...] = (8, 4, 16), n_head: int = 2) -> train.GPTConfig:
    return train.GPTConfig(
        context=16, vocab_size=50, n_head=n_head, width=32 * n_head, windows=windows
    )


def scrambled(config: train.GPTConfig) -> train.GPT:
    """A model in which no weight is zero or one, so that every part of it shows in the output."""
    torch.manual_seed(1)
    model = train.GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def tokens(config: train.GPTConfig, rows: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (rows, config.context), generator=generator)


def slow_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """[B, T, H, D] in float64, one query at a time."""
    q, k, v = q.double(), k.double(), v.double()
    rows = []
    for t in range(q.size(1)):
        first = max(0, t - window + 1)
        keys, values = k[:, first : t + 1], v[:, first : t + 1]
        scores = torch.einsum("bhd,bshd->bhs", q[:, t], keys) / math.sqrt(q.size(-1))
        rows.append(torch.einsum("bhs,bshd->bhd", scores.softmax(-1), values))
    return torch.stack(rows, dim=1)


def slow_norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()


def slow_rotate(x: Tensor) -> Tensor:
    """The pairs (i, i + D/2) as complex numbers, turned by t · base^(-2i/D)."""
    half = x.size(-1) // 2
    turned = torch.complex(x[..., :half], x[..., half:])
    for t in range(x.size(1)):
        for i in range(half):
            angle = torch.tensor(t * 100_000.0 ** (-2 * i / x.size(-1)), dtype=torch.float64)
            turned[:, t, :, i] *= torch.polar(torch.ones_like(angle), angle)
    return torch.cat((turned.real, turned.imag), dim=-1)


def slow_model(model: train.GPT, ids: Tensor) -> Tensor:
    """Logits [B, T, V] in float64, written down from the description of the model."""
    p = {name: value.detach().double() for name, value in model.named_parameters()}
    config, depth = model.config, model.config.depth

    def heads(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], config.n_head, -1)

    x0 = slow_norm(p["token_embedding.weight"][ids])
    x = x0
    for i in range(depth):
        x = p["resid_scale"][i] * x + p["x0_scale"][i] * x0
        a, at = slow_norm(x), f"blocks.{i}.attention."
        q, k, v = (heads(a @ p[f"{at}{name}.weight"].T) for name in ("query", "key", "value"))
        if (depth - 1 - i) % 2 == 0:
            gate = 2 / (1 + torch.exp(-(a[..., :32] @ p[f"{at}value_gate.weight"].T)))
            own = p[f"value_embeddings.{i}.weight"][ids]
            if f"ngrams.{i}.0.weight" in p:
                rows = train.hash_ngrams(ids, i)
                own = own + torch.cat([p[f"ngrams.{i}.{n}.weight"][rows[n]] for n in (0, 1)], -1)
            v = v + gate[..., None] * heads(own)
        q, k = slow_rotate(1.2 * slow_norm(q)), slow_rotate(slow_norm(k))
        y = slow_attention(q, k, v, config.windows[i])
        x = x + y.flatten(2) @ p[f"{at}out.weight"].T
        hidden = (slow_norm(x) @ p[f"blocks.{i}.up.weight"].T).clamp_min(0) ** 2
        x = x + hidden @ p[f"blocks.{i}.down.weight"].T
    return 15 * torch.tanh(slow_norm(x) @ p["lm_head.weight"].T / 15)


@pytest.mark.parametrize("rows", [0, 64])
def test_the_whole_model_equals_a_slow_reference(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows, value embeddings, tables, gates, scalars, norms, relu² and softcap, all at once."""
    monkeypatch.setattr(train, "NGRAM_ROWS", rows)
    model = scrambled(tiny_config())
    ids = tokens(model.config)
    torch.testing.assert_close(
        model.logits(ids).double(), slow_model(model, ids), atol=2e-4, rtol=1e-4
    )


@pytest.mark.parametrize("window", [1, 2, 5, 11, 12])
def test_a_token_sees_exactly_the_last_window_tokens(window: int) -> None:
    """Token t sees s when 0 <= t - s < window: itself and window - 1 before it."""
    mask = prepare.window_mask(12, window, torch.device("cpu"))
    for t in range(12):
        seen = [s for s in range(12) if mask[t, s]]
        assert seen == list(range(max(0, t - window + 1), t + 1))


def test_s_is_a_part_of_the_context_and_the_last_block_sees_all_of_it() -> None:
    """SSSL is repeated over the blocks, but the last window is always the context."""
    s, full = round(2048 * train.SHORT_WINDOW), 2048
    assert train.layer_windows("SSSL", 8, 2048) == (s, s, s, full, s, s, s, full)
    assert train.layer_windows("SSSL", 6, 2048) == (s, s, s, full, s, full)
    assert train.layer_windows("S", 1, 2048) == (full,)


def test_an_unknown_letter_in_the_window_pattern_is_an_error() -> None:
    """A typing error must not silently become a full window."""
    with pytest.raises(KeyError, match="X"):
        train.layer_windows("SX", 4, 256)


@pytest.mark.parametrize("window", [1, 3, 8, 16, 99])
def test_attention_and_its_gradients_equal_a_reference(window: int) -> None:
    """Windows go through a mask, full attention through is_causal; both give the same as a loop."""
    torch.manual_seed(window)
    fast = [torch.randn(2, 16, 3, 8, requires_grad=True) for _ in range(3)]
    slow = [a.detach().double().requires_grad_() for a in fast]
    weight = torch.randn(2, 16, 3, 8)
    y, expected = train.attention(*fast, window), slow_attention(*slow, window)
    torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=1e-5)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    for a, b in zip(fast, slow, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad.double(), b.grad, atol=1e-5, rtol=1e-4)


def test_rotation_keeps_the_norm() -> None:
    """Each pair is turned, not stretched."""
    x = torch.randn(2, 16, 3, 8)
    turned = train.rotate(x, *train.rotary_tables(16, 8))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[:, 0], x[:, 0])


def test_rotation_equals_complex_multiplication() -> None:
    """Pairs (i, i + D/2) turn at base^(-2i/D) per token."""
    x = torch.randn(1, 16, 2, 8)
    turned = train.rotate(x, *train.rotary_tables(16, 8))
    torch.testing.assert_close(turned.double(), slow_rotate(x.double()), atol=1e-5, rtol=1e-5)


def test_rotated_products_depend_on_the_distance_only() -> None:
    """The same query and key at any two positions t and t - 5 have the same product."""
    query, key = torch.randn(2, 1, 1, 1, 16).expand(2, 1, 64, 1, 16)
    tables = train.rotary_tables(64, 16)
    q, k = train.rotate(query, *tables)[0, :, 0], train.rotate(key, *tables)[0, :, 0]
    products = (q[5:] * k[:-5]).sum(-1)
    torch.testing.assert_close(products, products[:1].expand_as(products), atol=1e-5, rtol=1e-5)


def captured_attention(
    model: train.GPT, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What each block hands to attention()."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    real = train.attention

    def spy(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        seen.append((q, k, v))
        return real(q, k, v, window)

    monkeypatch.setattr(train, "attention", spy)
    model.logits(ids)
    return seen


def ngrams(ids: list[int], layer: int = 3) -> list[tuple[int, int]]:
    """The rows of each token of a text in the tables of one block."""
    pairs, triples = train.hash_ngrams(torch.tensor([ids]), layer)
    return list(zip(pairs[0].tolist(), triples[0].tolist(), strict=True))


def test_equal_ngrams_have_one_row_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pairs, the last two tokens count; of triples the last three; and none that follows."""
    monkeypatch.setattr(train, "NGRAM_ROWS", 2**20)
    one, other = ngrams([5, 6, 7, 8, 9]), ngrams([1, 2, 5, 6, 7, 3])
    assert one[2] == other[4]
    assert one[1][0] == other[3][0]
    assert one[1][1] != other[3][1], "what is before a text differs from 2"
    assert ngrams([5]) == one[:1]
    assert ngrams([5, 6]) == one[:2]
    assert ngrams([6, 5])[1] != one[1], "the order counts"
    assert ngrams([5, 6], layer=1)[1] != one[1], "each block has hashes of its own"


def test_ngrams_are_spread_over_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as chance would use, though low tokens are frequent, so pairs are alike."""
    monkeypatch.setattr(train, "NGRAM_ROWS", 2**18)
    generator = torch.Generator().manual_seed(0)
    ids = (8192 ** torch.rand(2**20, 2, generator=generator)).long() - 1  # by Zipf's law
    ids = ids.unique(dim=0)
    due = 2**18 * (1 - math.exp(-len(ids) / 2**18))
    for rows in train.hash_ngrams(ids, 1):
        used = rows[:, 1].unique()
        assert used.min() >= 0
        assert used.max() < 2**18
        assert len(used) > 0.96 * due


def test_tables_start_without_effect_and_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    plain = train.GPT(tiny_config())
    ids = tokens(plain.config)
    before = plain.logits(ids)
    monkeypatch.setattr(train, "NGRAM_ROWS", 64)
    model = train.GPT(tiny_config())
    assert not any(table.any() for table in model.ngrams.parameters())
    model.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(model.logits(ids), before)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.out.weight.normal_()
        model.lm_head.weight.normal_()
    model(ids, ids.roll(-1, 1)).backward()
    grads = [table.grad for table in model.ngrams.parameters()]
    assert len(grads) == 4
    assert all(grad is not None and grad.any() for grad in grads)


def test_queries_and_keys_have_a_fixed_mean_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the matrices grow, logits of attention stay within 1.2 · sqrt(D)."""
    model = scrambled(tiny_config())
    with torch.no_grad():
        model.blocks[0].attention.query.weight.mul_(50)
    for q, k, _ in captured_attention(model, tokens(model.config), monkeypatch):
        for a, scale in ((q, 1.2), (k, 1.0)):
            root = a.square().mean(-1).sqrt()
            torch.testing.assert_close(root, torch.full_like(root, scale), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("depth", "layers"), [(1, [0]), (2, [1]), (3, [0, 2]), (8, [1, 3, 5, 7])])
def test_every_second_block_has_a_value_embedding_the_last_included(
    depth: int, layers: list[int]
) -> None:
    """Blocks without one have no gate either."""
    with torch.device("meta"):
        model = train.GPT(tiny_config(windows=(16,) * depth))
    assert [int(i) for i in model.value_embeddings] == layers
    gated = [i for i, b in enumerate(model.blocks) if b.attention.value_gate is not None]
    assert gated == layers


def test_a_value_gate_starts_at_exactly_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 · sigmoid(0) = 1: v is the projection plus the whole value embedding."""
    model = train.GPT(tiny_config(windows=(16,)))
    ids = tokens(model.config)
    [(_, _, v)] = captured_attention(model, ids, monkeypatch)
    # At the start x is 1.1 · x0, and a norm forgets the factor.
    x = train.rms_norm(train.rms_norm(model.token_embedding(ids)) * 1.1)
    projected = model.blocks[0].attention.value(x)
    expected = projected + model.value_embeddings["0"](ids)
    torch.testing.assert_close(v.flatten(2), expected, atol=1e-6, rtol=1e-5)


def test_a_value_gate_lies_between_0_and_2_and_reads_the_first_32_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen on v when the projection is zero and the value embedding is one."""
    model = train.GPT(tiny_config(windows=(16,)))
    attention = model.blocks[0].attention
    assert attention.value_gate is not None
    assert attention.value_gate.weight.shape == (2, 32)
    with torch.no_grad():
        attention.value.weight.zero_()
        attention.value_gate.weight.normal_(std=9)
        model.value_embeddings["0"].weight.fill_(1)
    [(_, _, v)] = captured_attention(model, tokens(model.config), monkeypatch)
    assert 0 <= v.min() < 0.1
    assert 1.9 < v.max() <= 2
    torch.testing.assert_close(v, v[..., :1].expand_as(v))  # one gate per head and token


def test_the_softcap_bounds_logits_and_leaves_small_ones_alone() -> None:
    """15 · tanh(x / 15): odd, slope one at zero, never beyond 15."""
    x = torch.linspace(-200, 200, 4001, dtype=torch.float32)
    y = train.softcap(x)
    torch.testing.assert_close(y.double(), 15 * torch.tanh(x.double() / 15), atol=1e-5, rtol=1e-5)
    assert y.abs().max() <= 15
    small = torch.tensor([-0.01, 0.01])
    torch.testing.assert_close(train.softcap(small), small, rtol=1e-5, atol=0)
    assert train.softcap(small.bfloat16()).dtype == torch.float32


def test_residual_scalars_mix_the_stream_with_the_embedding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before block i: x = resid[i] · x + x0[i] · x0. Seen with blocks that add a constant."""
    model = train.GPT(tiny_config(windows=(16, 16)))
    assert model.resid_scale.tolist() == [1.0, 1.0]
    assert model.x0_scale.tolist() == pytest.approx([0.1, 0.1])
    with torch.no_grad():
        model.resid_scale.copy_(torch.tensor([2.0, 3.0]))
        model.x0_scale.copy_(torch.tensor([0.5, 0.25]))
    constants = torch.randn(2, model.config.width)
    for block, constant in zip(model.blocks, constants, strict=True):
        monkeypatch.setattr(block, "forward", lambda x, *_, c=constant: x + c)
    ids = tokens(model.config)
    x0 = train.rms_norm(model.token_embedding(ids))
    x = 2.0 * x0 + 0.5 * x0 + constants[0]
    x = 3.0 * x + 0.25 * x0 + constants[1]
    torch.testing.assert_close(model.hidden(ids), train.rms_norm(x))


def test_initial_weights_have_the_stated_distributions() -> None:
    """Normal embeddings and head, uniform matrices of deviation width^-1/2, zero outputs."""
    torch.manual_seed(0)
    model = train.GPT(train.GPTConfig(32, 2000, 2, 128, (16, 32)))
    bound = math.sqrt(3 / 128)
    assert model.token_embedding.weight.std().item() == pytest.approx(1, rel=0.02)
    assert model.lm_head.weight.std().item() == pytest.approx(0.001, rel=0.02)
    for block in model.blocks:
        a = block.attention
        for matrix in (a.query, a.key, a.value, block.up):
            assert matrix.weight.std().item() == pytest.approx(128**-0.5, rel=0.03)
            assert 0.98 * bound < matrix.weight.abs().max().item() <= bound
        assert not a.out.weight.any()
        assert not block.down.weight.any()
    embedding = model.value_embeddings["1"].weight
    assert embedding.std().item() == pytest.approx(128**-0.5, rel=0.02)
    assert embedding.abs().max().item() <= bound


def test_a_new_model_knows_nothing() -> None:
    """Its loss is that of a uniform guess, ln of the vocabulary, and its blocks pass x through."""
    torch.manual_seed(0)
    model = train.GPT(train.GPTConfig(32, 8192, 1, 128, (16, 32)))
    ids = tokens(model.config)
    assert model(ids, ids.roll(-1, 1)).item() == pytest.approx(math.log(8192), abs=0.01)
    x = torch.randn(1, 32, 128)
    block = model.blocks[0]
    torch.testing.assert_close(block(x, None, (model.cos, model.sin)), x, atol=0, rtol=0)


def test_embeddings_take_the_compute_type_and_matrices_stay_in_fp32() -> None:
    """In bf16 the activations follow the embeddings; the loss is fp32 all the same."""
    model = train.GPT(train.GPTConfig(16, 50, 2, 64, (8, 16), torch.bfloat16))
    types = {name: p.dtype for name, p in model.named_parameters()}
    embeddings = {name for name, dtype in types.items() if dtype == torch.bfloat16}
    assert embeddings == {"token_embedding.weight", "value_embeddings.1.weight"}
    ids = tokens(model.config)
    assert model.hidden(ids).dtype == torch.bfloat16
    assert model(ids, ids).dtype == torch.float32


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_compute_type_follows_the_device(
    monkeypatch: pytest.MonkeyPatch, supported: bool, dtype: torch.dtype
) -> None:
    """bf16 on CUDA cards that have it, fp32 on those that only imitate it and on CPU."""

    def answer(including_emulation: bool = True) -> bool:
        return supported or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", answer)
    assert train.compute_dtype(torch.device("cuda")) == dtype
    assert train.compute_dtype(torch.device("cpu")) == torch.float32


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_the_loss_in_chunks_equals_the_whole_with_gradients(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients that are made chunk by chunk, ahead of the backward pass, are the right ones."""
    monkeypatch.setattr(train, "CPU_LOSS_CHUNK_TOKENS", chunk)
    torch.manual_seed(0)
    hidden = torch.randn(64, 24, requires_grad=True)
    head = torch.randn(50, 24, requires_grad=True)
    targets = torch.randint(50, (64,))
    hidden64, head64 = (a.detach().double().requires_grad_() for a in (hidden, head))
    logits = 15 * torch.tanh(hidden64 @ head64.T / 15)
    expected = logits.logsumexp(1) - logits[torch.arange(64), targets]
    mean, losses = train.HeadLoss.apply(hidden, head, targets, True)  # noqa: FBT003
    torch.testing.assert_close(losses.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mean.double(), expected.mean(), atol=1e-5, rtol=1e-5)

    (3 * mean).backward()  # as a loss that is divided among micro-batches has another scale
    (3 * expected.mean()).backward()
    for a, b in ((hidden, hidden64), (head, head64)):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad.double(), b.grad, atol=1e-6, rtol=1e-4)


def test_the_loss_of_extreme_logits_is_finite() -> None:
    """No maximum is subtracted before exp, since the softcap bounds what goes in."""
    logits = torch.tensor([[1e6, -1e6, 0.0], [-1e6, -1e6, -1e6]])
    losses, gradient = train.cross_entropy(logits, torch.tensor([1, 2]))
    assert losses.tolist() == pytest.approx([30 + math.log1p(math.exp(-15)), math.log(3)], abs=1e-4)
    assert gradient.isfinite().all()


def test_reduction_none_gives_each_tokens_loss() -> None:
    """Shape [B, T], in order; its mean is the training loss."""
    model = scrambled(tiny_config())
    x, y = tokens(model.config), tokens(model.config, seed=1)
    losses = model(x, y, reduction="none")
    assert losses.shape == y.shape
    expected = F.cross_entropy(slow_model(model, x).transpose(1, 2), y, reduction="none")
    torch.testing.assert_close(losses.double(), expected, atol=3e-4, rtol=1e-4)
    torch.testing.assert_close(model(x, y), losses.mean())
    with torch.no_grad():  # the way without gradients, which evaluation takes
        torch.testing.assert_close(model(x, y, reduction="none"), losses)


def test_evaluation_of_a_compiled_model_gives_the_same_losses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes those that training makes together with their gradients."""
    model = scrambled(tiny_config())
    x, y = tokens(model.config), tokens(model.config, seed=1)
    with torch.no_grad():
        plain = model(x, y, reduction="none")
        monkeypatch.setattr(train, "COMPILE", True)
        losses = model(x, y, reduction="none")
    torch.testing.assert_close(losses, plain)


@pytest.mark.parametrize("rows", [0, 64])
def test_a_later_token_changes_nothing_before_it(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Causality: the logits up to t - 1 are the same for any token at t."""
    monkeypatch.setattr(train, "NGRAM_ROWS", rows)
    model = scrambled(tiny_config())
    ids = tokens(model.config)
    for t in (1, 7, 15):
        changed = ids.clone()
        changed[:, t] = (ids[:, t] + 1) % model.config.vocab_size
        before, after = model.logits(ids), model.logits(changed)
        torch.testing.assert_close(before[:, :t], after[:, :t], atol=1e-6, rtol=1e-6)
        assert (before[:, t] - after[:, t]).abs().max() > 1e-3


def test_a_token_outside_the_window_changes_nothing() -> None:
    """With one block and a window of 4, token 3 reaches tokens 3 to 6 and no other."""
    model = scrambled(tiny_config(windows=(4,)))
    ids = tokens(model.config)
    changed = ids.clone()
    changed[:, 3] = (ids[:, 3] + 1) % model.config.vocab_size
    difference = (model.logits(ids) - model.logits(changed)).abs().amax(dim=(0, 2))
    reached = [t for t in range(16) if difference[t] > 1e-6]
    assert reached == [3, 4, 5, 6]


def test_every_parameter_gets_a_gradient() -> None:
    """Nothing is built that training would not reach."""
    model = scrambled(tiny_config())
    ids = tokens(model.config)
    model(ids, ids.roll(-1, 1)).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_original_shape_has_the_published_size_and_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Depth 8 at context 2048, windows of half: 50.3 M parameters, 125 TFLOP for 2^19 tokens."""
    monkeypatch.setattr(train, "SHORT_WINDOW", 0.5)
    config = train.build_config(8, 2048, 8192, torch.bfloat16)
    assert (config.width, config.n_head) == (512, 4)
    with torch.device("meta"):
        model = train.GPT(config)
    assert model.num_params() / 1e6 == pytest.approx(50.3, abs=0.05)
    assert model.flops_per_token() * 2**19 / 1e12 == pytest.approx(125, abs=0.5)


@pytest.mark.parametrize(("depth", "width"), [(1, 128), (2, 128), (3, 256), (4, 256), (12, 768)])
def test_the_width_is_rounded_up_to_whole_heads(depth: int, width: int) -> None:
    """64 channels per block of depth, in heads of 128."""
    assert train.build_config(depth, 256, 8192, torch.float32).width == width
