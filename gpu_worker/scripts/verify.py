"""Executed in a sandbox of its own after a run that may be the best: measures its model once more.

`verify.py CHECKPOINT` has the run's train.py, the tag's prepare.py and the weights that the run
saved. train.py's `load_model(path, device)` gives the model, whose `logits(tokens)` [B, T] are
[B, T, vocabulary]. How train.py computes its losses does not matter: here they come from the
logits, and no token's logits may depend on the tokens after it. evaluate_bpb reports the measure in
the usual way. Exit code 3 says that the model is not what it should be, and the last line why.
"""
# ruff: noqa: INP001  (its packages are those of runs, which ours must not import)

import sys
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

REFUTED = 3  # as in measures.py, which cannot be imported here
_NUMBERS = 2**27  # of logits that exist at a time: half a GiB in fp32
_NOISE = 0.05  # how far equal logits may lie apart, in nats

Logits = Callable[[Tensor], Tensor]


def refute(why: str) -> NoReturn:
    sys.stdout.write(f"{why}\n")
    sys.exit(REFUTED)


def looks_ahead(logits: Logits, tokens: Tensor) -> bool:
    """True if logits of the first half of `tokens` [B, T] change with the second half."""
    half = tokens.size(1) // 2
    changed = tokens.clone()
    changed[:, half:] = tokens[:, half:].flip(1)
    one, other = (logits(t)[:, :half].float().log_softmax(-1) for t in (tokens, changed))
    return bool((one - other).abs().max() > _NOISE)


@torch.no_grad()
def verify(checkpoint: str, prepare: Any, train: Any) -> None:
    device = prepare.pick_device()
    tokenizer = prepare.Tokenizer.load()
    model = train.load_model(checkpoint, device)
    row = torch.from_numpy(prepare.validation_rows(tokenizer)[:1, :-1].astype("int64")).to(device)
    expected = [*row.shape, tokenizer.vocab_size]
    if (found := list(model.logits(row).shape)) != expected:
        refute(f"the model's logits have the shape {found}, not {expected}")
    if looks_ahead(model.logits, row):
        refute("the model's logits of a token depend on the tokens after it")

    def losses(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        logits = model.logits(x).float().flatten(0, 1)
        return cross_entropy(logits, y.flatten(), reduction=reduction)

    prepare.evaluate_bpb(losses, tokenizer, max(1, _NUMBERS // (row.numel() * expected[-1])))


if __name__ == "__main__":
    import prepare
    import train

    verify(sys.argv[1], prepare, train)
