"""The loop of train.py: what counts, when it gives up, and what it prints for the worker."""

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import train
from tests.training import REPO, run_python

pytestmark = pytest.mark.timeout(400)  # longer than the trainings below may take

PROGRESS = re.compile(
    r"\rstep (\d{5}) \( *(\d+\.\d)%\) \| loss: (\d+\.\d{6}) \| lrm: (\d\.\d\d) \| dt: (\d+)ms"
    r" \| tok/sec: ([\d,]+) \| mfu: (\d+\.\d)% \| epoch: (\d+) \| remaining: (\d+)s {4}"
)
KEYS = [
    "val_bpb",
    "training_seconds",
    "total_seconds",
    "peak_vram_mb",
    "mfu_percent",
    "total_tokens_M",
    "num_steps",
    "epoch",
    "num_params_M",
    "depth",
    "profile",
    "device",
    "torch_version",
    "seed",
]


@dataclass
class Clock:
    """Stands in for the time module; a fake model moves it."""

    now: float = 100.0

    def perf_counter(self) -> float:
        return self.now


@dataclass
class FakeModel:
    """One weight; each call takes `seconds` on the clock and gives the same loss."""

    clock: Clock
    seconds: float
    loss: float = 2.0
    weight: Tensor = field(default_factory=lambda: torch.zeros((), requires_grad=True))

    def __call__(self, *_: Tensor) -> Tensor:
        self.clock.now += self.seconds
        return self.weight + self.loss


class FakeOptimizer(train.MuonAdamW):
    """Writes down what each step was called with, and the gradient at that time."""

    def __init__(self, params: list[nn.Parameter] | None = None) -> None:
        super().__init__([train.AdamWGroup(params or [], 0.0)], [], torch.float32, compiled=False)
        self.calls: list[tuple[float, float, float]] = []
        self.gradients: list[list[Tensor | None]] = []

    def step(self, multiplier: float, momentum: float, weight_decay: float) -> None:
        self.calls.append((multiplier, momentum, weight_decay))
        self.gradients.append([p.grad for a in self.adamw for p in a.params])


def batches(
    rows: int = 2, context: int = 8, vocab: int = 50
) -> Iterator[tuple[Tensor, Tensor, int]]:
    generator = torch.Generator().manual_seed(0)
    while True:
        row = torch.randint(vocab, (rows, context + 1), generator=generator)
        yield row[:, :-1], row[:, 1:], 1


def tiny_model() -> train.GPT:
    torch.manual_seed(0)
    return train.GPT(train.GPTConfig(16, 50, 2, 64, (8, 16)))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors are tiny here; threads would only wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


PEAK_RATE = 50.0  # tokens per second


def test_the_first_three_steps_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one second a step and a budget of five, three free steps come before five counted."""
    clock = Clock()
    monkeypatch.setattr(train, "time", clock)
    result = train.train(FakeModel(clock, 1.0), FakeOptimizer(), batches(), 1, 5.0, PEAK_RATE)
    assert result == (8, 5.0, 3.0)


def test_schedules_follow_counted_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress stays at 0 in the free steps, and rises with the budget after them."""
    clock = Clock()
    monkeypatch.setattr(train, "time", clock)
    optimizer = FakeOptimizer()
    train.train(FakeModel(clock, 1.0), optimizer, batches(), 1, 4.0, PEAK_RATE)
    multipliers, momenta, decays = zip(*optimizer.calls, strict=True)
    assert multipliers == pytest.approx(
        [train.lr_multiplier(p) for p in [0] * 3 + [0, 0.25, 0.5, 0.75]]
    )
    assert decays == pytest.approx([*[0.2] * 3, 0.2, 0.15, 0.1, 0.05])
    assert momenta == pytest.approx([0.85 + 0.1 * step / 300 for step in range(7)])


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 100.5])
def test_a_loss_that_is_nan_or_above_100_ends_the_run(
    loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: the rest of the budget would be lost on it."""
    clock = Clock()
    monkeypatch.setattr(train, "time", clock)
    optimizer = FakeOptimizer()
    with pytest.raises(train.TrainingDivergedError, match="at step 0"):
        train.train(FakeModel(clock, 1.0, loss), optimizer, batches(), 1, 5.0, PEAK_RATE)
    assert len(optimizer.calls) == 1


def test_a_poisoned_weight_ends_the_run() -> None:
    """One NaN in a matrix of a real model reaches the loss, and the loss ends the run."""
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight[3, 3] = float("nan")
    optimizer = train.build_optimizer(model, compiled=False)
    with pytest.raises(train.TrainingDivergedError, match="loss nan"):
        train.train(model, optimizer, batches(), 1, 60.0, PEAK_RATE)


def test_micro_batches_add_up_to_the_gradient_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two halves give the same gradient as both at once."""
    monkeypatch.setattr(train, "UNTIMED_STEPS", 0)
    [(x, y, _)] = [next(batches(rows=4, context=16))]
    gradients = []
    for rows in (4, 2):
        model = tiny_model()
        parts = zip(x.split(rows), y.split(rows), [1] * (4 // rows), strict=True)
        stream = [*parts, (x[:rows], y[:rows], 1)]  # the loop fetches one batch ahead
        optimizer = FakeOptimizer(list(model.parameters()))
        train.train(model, optimizer, iter(stream), 4 // rows, 1e-9, PEAK_RATE)
        gradients.append(optimizer.gradients[0])
    for whole, halves in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, halves, atol=1e-6, rtol=1e-4)


def test_a_tiny_model_learns_a_few_lines_by_heart() -> None:
    """Model, optimizer and loss together: from ln 128 to nearly nothing in 40 steps."""
    text = (
        "The rain it raineth on the just. And also on the unjust fella. But chiefly on the just, "
        "because the unjust hath the just's umbrella."
    )
    ids = torch.tensor([list(text.encode())])
    x, y = ids[:, :-1], ids[:, 1:]
    torch.manual_seed(0)
    model = train.GPT(train.GPTConfig(x.size(1), 128, 2, 64, (x.size(1) // 2, x.size(1))))
    optimizer = train.build_optimizer(model, compiled=False)
    first = model(x, y).item()
    for step in range(40):
        model(x, y).backward()
        optimizer.step(train.lr_multiplier(step / 40), 0.9, 0.0)
        optimizer.zero_grad()
    assert first == pytest.approx(4.85, abs=0.05)
    assert model(x, y).item() < 0.1


def test_progress_is_one_line_in_the_workers_format(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line starts with a carriage return; only the last one ends with a newline."""
    clock = Clock()
    monkeypatch.setattr(train, "time", clock)
    train.train(FakeModel(clock, 1.0), FakeOptimizer(), batches(), 1, 4.0, PEAK_RATE)
    out = capsys.readouterr().out
    assert out.endswith("    \n")
    assert out.count("\n") == 1
    lines = PROGRESS.findall(out)
    assert "".join(m.group(0) for m in PROGRESS.finditer(out)) == out.rstrip("\n")
    # 2 rows of 8 tokens in one second are 16 tokens/s, 32 % of the peak.
    assert lines[0] == ("00000", "0.0", "2.000000", "1.00", "1000", "16", "32.0", "1", "4")
    assert lines[-1] == ("00006", "100.0", "2.000000", "0.35", "1000", "16", "32.0", "1", "0")


def test_a_log_gets_at_most_four_progress_lines_a_second(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of many short steps leaves a small log, and its last line says 100 %."""
    clock = Clock()
    monkeypatch.setattr(train, "time", clock)
    steps, seconds, untimed = train.train(
        FakeModel(clock, 0.01), FakeOptimizer(), batches(), 1, 5.0, PEAK_RATE
    )
    lines = PROGRESS.findall(capsys.readouterr().out)
    assert steps > 500
    assert 10 < len(lines) <= 4 * (seconds + untimed) + 2
    assert lines[-1][1] == "100.0"


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.0),
        ("NVIDIA H200", 989.5),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L40", 181.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 3090", 71.0),
        ("NVIDIA Imaginary 9000", 0.0),
        ("cpu", 0.0),
    ],
)
def test_the_peak_is_that_of_the_actual_device(name: str, tflops: float) -> None:
    """An unknown device has no peak, rather than another card's."""
    assert train.peak_flops(name) == pytest.approx(tflops * 1e12)


def test_a_batch_that_cannot_be_divided_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than a batch that is silently smaller than TOTAL_BATCH_SIZE says."""
    monkeypatch.setattr(train, "TOTAL_BATCH_SIZE", 1000)
    with pytest.raises(ValueError, match="TOTAL_BATCH_SIZE 1000 is no multiple of DEVICE_BATCH"):
        train.run()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (train.TrainingDivergedError("loss nan at step 3"), "FAIL: loss nan at step 3"),
        (torch.OutOfMemoryError("CUDA out of memory"), "halve DEVICE_BATCH_SIZE"),
        (RuntimeError("MPS backend out of memory"), "halve DEVICE_BATCH_SIZE"),
        (train.PrepareError("no tokenizer"), "FAIL: no tokenizer"),
    ],
)
def test_a_failed_run_says_so_and_prints_no_result(
    error: Exception,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 1, a line that starts with FAIL, no block after ---."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(train, "run", fail)
    assert train.main() == 1
    out = capsys.readouterr().out
    assert message in out
    assert out.splitlines()[-1].startswith("FAIL: ")
    assert "---" not in out


def test_every_hyperparameter_but_five_is_a_literal() -> None:
    """A program can propose `NAME = value`; only what the machine decides comes from prepare.py."""
    source = (REPO / "train.py").read_text()
    from_profile, literals = [], {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and node.lineno < source[: source.index("# Model")].count(
            "\n"
        ):
            [target] = node.targets
            assert isinstance(target, ast.Name)
            if ast.unparse(node.value).startswith(("PROFILE.", "ngram_rows()")):
                from_profile.append(target.id)
            elif target.id != "PROCESS_START":
                literals[target.id] = ast.literal_eval(node.value)
    sizes = ["DEPTH", "DEVICE_BATCH_SIZE", "TOTAL_BATCH_SIZE", "NGRAM_ROWS"]
    assert from_profile == [*sizes, "COMPILE"]
    assert len(literals) > 20
    assert all(isinstance(value, int | float | str) for value in literals.values())


def test_importing_train_starts_nothing(tmp_path: Path) -> None:
    """No output, no CUDA context, no compiler, and no need for prepared data."""
    code = (
        "import sys, torch, train;"
        "assert not torch.cuda.is_initialized();"
        "assert 'torch._dynamo' not in sys.modules, 'the compiler costs seconds'"
    )
    done = run_python(tmp_path, "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_run_ends_with_the_block_that_the_worker_reads(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly these keys in this order after ---, numbers that fit together, and nothing after. It
    is no better than what is asked for, so its model is not saved."""
    monkeypatch.setenv("AUTORESEARCH_CHECKPOINT", str(tmp_path / "model"))
    monkeypatch.setenv("AUTORESEARCH_CHECKPOINT_BELOW", "0.1")
    done = run_python(small_cache, "train.py")
    assert not (tmp_path / "model").exists()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    before, block = done.stdout.split("\n---\n")
    pairs = [line.split(": ", 1) for line in block.splitlines()]
    assert [key for key, _ in pairs] == KEYS
    result = dict(pairs)
    assert re.fullmatch(r"\d\.\d{6}", result["val_bpb"])
    assert 1 < float(result["val_bpb"]) < 4
    assert 1 <= float(result["training_seconds"]) < float(result["total_seconds"])
    assert int(result["num_steps"]) > 3
    assert (result["peak_vram_mb"], result["mfu_percent"]) == ("0.0", "0.00")
    assert (result["profile"], result["device"], result["seed"]) == ("cpu", "cpu", "7")
    lines = PROGRESS.findall(before)
    assert int(lines[-1][0]) == int(result["num_steps"]) - 1
    assert lines[-1][1] == "100.0"


@pytest.mark.slow
def test_a_workspace_needs_train_py_and_prepare_py_alone(small_cache: Path, tmp_path: Path) -> None:
    """A tag pins prepare.py alone, so neither a check nor a run may import corpus or download."""
    for name in ("prepare.py", "train.py"):
        shutil.copy(REPO / name, tmp_path)
    check = run_python(small_cache, "prepare.py", "--check", folder=tmp_path)
    assert (check.returncode, json.loads(check.stdout)["ok"]) == (0, True), check.stderr
    done = run_python(small_cache, "train.py", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def edited_run(
    small_cache: Path, folder: Path, pattern: str, replacement: str, seconds: float = 1
) -> subprocess.CompletedProcess[str]:
    """train.py with the one line that matches `pattern` replaced."""
    source, count = re.subn(f"(?m)^{pattern}", replacement, (REPO / "train.py").read_text())
    assert count == 1
    (folder / "train.py").write_text(source)
    return run_python(small_cache, folder / "train.py", seconds=seconds)


def test_a_diverging_experiment_fails_quickly(small_cache: Path, tmp_path: Path) -> None:
    """What an agent's bad edit does: FAIL, exit code 1, no block."""
    done = edited_run(small_cache, tmp_path, r"EMBEDDING_LR = \S+", 'EMBEDDING_LR = float("nan")')
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("FAIL: loss nan at step 1")
    assert "---" not in done.stdout


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    """An unprepared machine says what to do instead of showing a traceback."""
    done = run_python(tmp_path, "train.py")
    assert done.returncode == 1
    assert done.stderr == ""
    assert "prepare.py" in done.stdout.splitlines()[-1]
