"""A run that may be the best has its saved model measured once more, in a sandbox of its own."""

import hashlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import train
from gpu_worker.measures import REFUTED, VERIFY
from tests.training import REPO
from tests.worker.conftest import Host, works
from tests.worker.stub import Json, Stub

VOCABULARY, CONTEXT = 50, 16


def load_verify() -> Any:
    spec = importlib.util.spec_from_file_location("verify", VERIFY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


verify = load_verify()


class Prepare:
    """The parts of prepare.py that verify.py needs, on random text. `losses` are those it saw."""

    MAX_SEQ_LEN = CONTEXT

    def __init__(self) -> None:
        self.rows = np.random.default_rng(0).integers(VOCABULARY, size=(6, CONTEXT + 1))
        self.losses = torch.empty(0)
        self.Tokenizer = SimpleNamespace(load=lambda: SimpleNamespace(vocab_size=VOCABULARY))

    def pick_device(self) -> torch.device:
        return torch.device("cpu")

    def validation_rows(self, _: object) -> "np.ndarray[Any, Any]":
        return self.rows.astype(np.uint16)

    def evaluate_bpb(self, model: Callable[..., Tensor], _: object, batch_size: int) -> float:
        assert batch_size > 6
        rows = torch.from_numpy(self.rows)
        self.losses = model(rows[:, :-1], rows[:, 1:], reduction="none")
        return 1.0


def verified(logits: Callable[[Tensor], Tensor]) -> Tensor:
    """The losses that a model with these logits gets."""
    prepare = Prepare()
    model = SimpleNamespace(logits=logits)
    verify.verify("path", prepare, SimpleNamespace(load_model=lambda *_: model))
    return prepare.losses


def tiny_model() -> train.GPT:
    torch.manual_seed(0)
    model = train.GPT(train.GPTConfig(CONTEXT, VOCABULARY, 2, 64, (8, CONTEXT)))
    with torch.no_grad():  # the output matrices start at 0, where nothing would matter
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_the_losses_are_those_of_the_logits_whatever_the_model_says_of_them() -> None:
    model = tiny_model()
    rows = torch.from_numpy(Prepare().rows)
    with torch.no_grad():
        own = model(rows[:, :-1], rows[:, 1:], reduction="none")
    assert torch.allclose(verified(model.logits), own.flatten(), atol=1e-4)


def test_logits_that_are_not_normalised_are(capsys: pytest.CaptureFixture[str]) -> None:
    """A model cannot win by probabilities that add up to more than 1."""
    model = tiny_model()
    more = verified(lambda tokens: model.logits(tokens) + 100)
    assert torch.allclose(more, verified(model.logits), atol=1e-4)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("distance", [1, 3, CONTEXT - 1])
def test_a_model_that_looks_ahead_is_refuted(
    distance: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even by one token, and even if it only looks at the last one."""

    def logits(tokens: Tensor) -> Tensor:
        ahead = tokens.roll(-distance, 1)
        return tiny_model().logits(tokens) + torch.nn.functional.one_hot(ahead, VOCABULARY)

    with pytest.raises(SystemExit) as end:
        verified(logits)
    assert end.value.code == REFUTED == verify.REFUTED
    assert "depend on the tokens after it" in capsys.readouterr().out


def test_logits_of_another_shape_are_refuted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        verified(lambda tokens: tiny_model().logits(tokens)[..., :-1])
    assert end.value.code == REFUTED
    assert "[1, 16, 49], not [1, 16, 50]" in capsys.readouterr().out


def test_a_saved_model_is_loaded_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = SimpleNamespace(vocab_size=VOCABULARY)
    monkeypatch.setattr(train, "Tokenizer", SimpleNamespace(load=lambda: tokenizer))
    for name, value in {"DEPTH": 2, "MAX_SEQ_LEN": CONTEXT}.items():
        monkeypatch.setattr(train, name, value)
    device = torch.device("cpu")
    model = train.GPT(train.build_config(2, CONTEXT, VOCABULARY, train.compute_dtype(device)))
    train.save_model(model, str(tmp_path / "model"))
    loaded = train.load_model(str(tmp_path / "model"), device)
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def train_for_real(host: Host, stub: Stub, small_cache: Path) -> Callable[..., Json]:
    """The report of a run of the real train.py, with edits, in `strict`."""
    if works("strict") is None:
        pytest.skip("no sandbox strict here")
    prepare = (REPO / "prepare.py").read_bytes()
    pinned = hashlib.sha256(prepare).hexdigest()
    stub.prepares[pinned] = prepare
    source = (REPO / "train.py").read_text()
    host.start(sandbox="strict", cache=small_cache, profile="cpu")

    def run(*edits: tuple[str, str], best: float | None = None) -> Json:
        edited = source
        for old, new in edits:
            edited, count = re.subn(re.escape(old), lambda _, new=new: new, edited)  # type: ignore[misc]
            assert count == 1, old
        run = stub.submit(edited, prepare_sha256=pinned, best_val_bpb=best, time_budget_seconds=1.0)
        return stub.report(run, seconds=180)

    return run


@pytest.mark.slow
def test_a_run_that_may_be_the_best_is_verified(train_for_real: Callable[..., Json]) -> None:
    """And none that is not: the second measurement takes time."""
    report = train_for_real()
    assert report["outcome"] == "completed", report["error"]
    assert report["verified_bpb"] == pytest.approx(report["metrics"]["val_bpb"], rel=5e-4)
    report = train_for_real(best=0.5)
    assert (report["outcome"], report.get("verified_bpb")) == ("completed", None)


@pytest.mark.slow
def test_losses_that_the_logits_do_not_bear_out_are_a_crash(
    train_for_real: Callable[..., Json],
) -> None:
    """What evaluate_bpb gets from train.py is halved, and the model saved as it is."""
    halved = ("else losses.view_as(targets)", "else losses.view_as(targets) / 2")
    report = train_for_real(halved)
    assert report["outcome"] == "crash"
    assert re.search(r"val_bpb is \d\.\d+, but the saved model measures \d\.\d+", report["error"])
