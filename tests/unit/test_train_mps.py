"""The profile of Apple's GPUs, on machines without one.

Fake tensors have the device, the shape and the type of real ones, and no numbers. So these tests
find what mixes devices or needs float64, which Apple's GPUs lack; not what such a GPU computes, nor
how fast it is.
"""

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import prepare
import train
from prepare import select_profile

MPS = select_profile("mps", None)


class NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.uniform_.default:  # what a fake tensor of this device cannot do
            return args[0]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.device.type == "mps":
            assert result.dtype != torch.float64, f"{func} makes float64 on an Apple GPU"
        return result


# Methods that ask the device itself, in words that do not.
OTHERWISE = {
    Tensor.contiguous: Tensor.clone,
    Tensor.copy_: Tensor.add,
    Tensor.long: partial(Tensor.to, dtype=torch.int64),
    Tensor.float: partial(Tensor.to, dtype=torch.float32),
    Tensor.double: partial(Tensor.to, dtype=torch.float64),
    F.scaled_dot_product_attention: lambda q, k, v, **_: q + k + v,
}


class ByOperatorsAlone(TorchFunctionMode):
    """`x[...]` and OTHERWISE without a look at the device, which is not there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__getitem__:
            return OTHERWISE.get(func, func)(*args, **(kwargs or {}))
        x, index = args
        index = index if isinstance(index, tuple) else (index,)
        if ... in index:
            at = index.index(...)
            index = (*index[:at], *[slice(None)] * (x.dim() + 1 - len(index)), *index[at + 1 :])
        dim = 0
        for one in index:
            if isinstance(one, int):
                x, dim = x.select(dim, one), dim - 1
            elif isinstance(one, slice):
                x = torch.ops.aten.slice(x, dim, one.start, one.stop)
            elif one is None:
                x = x.unsqueeze(dim)
            else:
                x = torch.ops.aten.index(x, [None] * dim + [one])
            dim += 1
        return x


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """An Apple GPU whose tensors are fake."""
    gpu = torch.device("mps", 0)
    monkeypatch.setattr(prepare, "pick_device", lambda: gpu)
    monkeypatch.setattr(train, "COMPILE", MPS.compile)
    with (
        FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True),
        NoFloat64(),
        ByOperatorsAlone(),
    ):
        yield gpu


def tiny(device: torch.device) -> train.GPT:
    with device:
        return train.GPT(train.build_config(2, 64, 300, train.compute_dtype(device)))


def test_it_is_taken_where_there_is_such_a_gpu_and_no_other(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.delenv("AUTORESEARCH_PROFILE", raising=False)
    assert prepare.active_profile() == MPS
    monkeypatch.setattr(prepare, "PROFILE", MPS)
    assert prepare.pick_device() == torch.device("mps")
    monkeypatch.setenv("AUTORESEARCH_PROFILE", "cpu")
    assert prepare.active_profile().name == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert prepare.pick_device() == torch.device("cpu"), "by name, on a machine without one"


@torch.no_grad()  # a backward pass needs the device; HeadLoss has its gradients without one
def test_the_loss_and_the_optimizer_stay_on_the_gpu(device):
    model = tiny(device)
    optimizer = train.build_optimizer(model, compiled=MPS.compile)
    tokens = torch.zeros(2, 65, dtype=torch.int32, device=device)
    hidden = model.hidden(tokens[:, :-1].long()).flatten(0, 1)
    context = SimpleNamespace(save_for_backward=Mock(), mark_non_differentiable=Mock())
    targets = tokens[:, 1:].long().flatten()
    train.HeadLoss.forward(context, hidden, model.lm_head.weight, targets, learns=True)
    _, model.lm_head.weight.grad = context.save_for_backward.call_args.args
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step(1.0, 0.9, 0.1)
    assert {p.device for p in model.parameters()} == {model.cos.device} == {device}


def test_the_metric_adds_up_on_the_host(device, monkeypatch):
    monkeypatch.setattr(prepare, "validation_rows", lambda _: np.zeros((6, 65), np.uint16))
    tokenizer = SimpleNamespace(token_bytes=torch.ones(300, dtype=torch.int64))
    val_bpb = prepare.evaluate_bpb(tiny(device).eval(), tokenizer, 4)
    assert isinstance(val_bpb, torch.SymFloat), "a number that real tensors would give"


def test_an_error_about_anything_but_memory_is_not_taken_for_it(monkeypatch):
    monkeypatch.setattr(train, "run", Mock(side_effect=RuntimeError("no such operator")))
    with pytest.raises(RuntimeError, match="no such operator"):
        train.main()
