"""What one training step costs on this machine, and the seconds of a run outside training.

- Runs train.py for some seconds as a worker runs it, then a few steps under torch's profiler, and
  prints one table: time and rate of a step, its split by kernels, memory, seconds outside training.
- With --compare runs another train.py too: a file, beside its prepare.py, or a git revision.
- With --cold runs each file once before, with empty compile caches.
- With --set changes constants of this checkout's train.py, to measure another shape.
- Leaves out learning: val_bpb after a few seconds means nothing.

    uv run python -m bench.train
    uv run python -m bench.train --compare main --cold
    uv run python -m bench.train --set TOTAL_BATCH_SIZE=524288 --set SHORT_WINDOW=0.5
    python3 -m bench.train --seconds 20        # on a host without uv's environment

Training data must be there (uv run prepare.py); AUTORESEARCH_CACHE says where.
"""

import argparse
import gc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
H100_PEAK = 989.5e12
MARK = "bench-result: "
PROFILED_SECONDS = 0.5
# Kernels by parts of their names; the first match counts, what matches nothing is elementwise.
KINDS = (
    ("logits, loss", ("softmax", "nll_loss", "tanh", "logsumexp")),
    ("attention", ("flash", "flex_attention", "sdpa", "fmha", "cudnn")),
    ("matmul", ("nvjet", "gemm", "cutlass", "splitK", "relu2_kernel", "_mm_")),
)
Constants = Sequence[tuple[str, int | float]]
PARTS = ("attention", "matmul", "elementwise", "logits, loss", "optimizer")


def kind_of(kernel: str) -> str:
    return next((kind for kind, marks in KINDS if any(m in kernel for m in marks)), "elementwise")


# --------------------------------------------------------------------------------------------------
# In a subprocess: one run of one train.py, measured from inside


def measure(path: Path, profiled: bool, constants: Constants) -> dict[str, Any]:
    """Import and run the train.py at `path`, which prints to stdout; times are in seconds."""
    started = time.perf_counter()
    gc.disable()  # train.py does so only when it is the program
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("train", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train"] = module
    spec.loader.exec_module(module)
    for name, value in constants:
        if not hasattr(module, name):
            raise SystemExit(f"{path} has no {name}")
        setattr(module, name, value)
    found: dict[str, Any] = {"import": time.perf_counter() - started}
    waits: list[float] = []
    real_train, real_evaluate = module.train, module.evaluate_bpb

    def train(
        model: Any, optimizer: Any, batches: Any, micro: int, budget: float, peak: Any, *_: float
    ) -> tuple[int, float, float]:
        found["build"] = time.perf_counter() - started - found["import"]
        moment = time.perf_counter()
        first = next(batches)
        found["first batch"] = time.perf_counter() - moment
        stream = timed(first, batches, waits)
        steps, seconds, untimed = real_train(model, optimizer, stream, micro, budget, peak)
        counted = steps - module.UNTIMED_STEPS
        found.update({
            "step_ms": 1000 * seconds / counted,
            "tokens_per_second": module.TOTAL_BATCH_SIZE * counted / seconds,
            "first steps": untimed,
            "compile": untimed - module.UNTIMED_STEPS * seconds / counted,
            # Of the counted steps only.
            "loader wait": 1000 * sum(waits[-counted * micro :]) / counted,
            "flops_per_token": getattr(model, "_orig_mod", model).flops_per_token(),
        })  # fmt: skip
        moment = time.perf_counter()
        if profiled:
            found["split"] = split(
                lambda: real_train(model, optimizer, stream, micro, PROFILED_SECONDS, peak),
                module, optimizer,
            )  # fmt: skip
        found["profiling"] = time.perf_counter() - moment
        return steps, seconds, untimed

    def evaluate(*arguments: Any) -> float:
        moment = time.perf_counter()
        result: float = real_evaluate(*arguments)
        found["evaluation"] = time.perf_counter() - moment
        return result

    module.train, module.evaluate_bpb = train, evaluate
    if module.main() != 0:
        raise SystemExit(1)
    found["total"] = time.perf_counter() - started
    return found


def timed(first: Any, batches: Iterator[Any], waits: list[float]) -> Iterator[Any]:
    """Pass the batches on; add the seconds that the host waited for each to `waits`."""
    yield first
    while True:
        moment = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - moment)
        yield batch


def split(run: Callable[[], tuple[int, float, float]], module: Any, optimizer: Any) -> Any:
    """Device time in ms a step, by kind and by kernel; empty on a CPU."""
    import torch
    from torch.profiler import ProfilerActivity, profile, record_function

    if not torch.cuda.is_available():
        return {}

    def in_range(name: str, function: Any) -> Any:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            with record_function(name):
                return function(*arguments, **keywords)

        return wrapped

    optimizer.step = in_range("optimizer", optimizer.step)
    if hasattr(module, "HeadLoss"):
        module.HeadLoss.apply = in_range("logits, loss", module.HeadLoss.apply)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        steps, _, _ = run()
        torch.cuda.synchronize()
    times: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    kernels: dict[str, list[float]] = {}
    ranges = ("optimizer", "logits, loss")
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA and event.name not in ranges:
            milliseconds = event.device_time / 1000 / steps
            times[kind_of(event.name)] += milliseconds
            entry = kernels.setdefault(event.name, [0.0, 0.0])
            entry[0] += milliseconds
            entry[1] += 1 / steps
        elif event.name in ranges:
            for name, microseconds in launched(event):
                times[event.name] += microseconds / 1000 / steps
                times[kind_of(name)] -= microseconds / 1000 / steps
    return {"times": times, "kernels": kernels}


def launched(event: Any) -> Iterator[tuple[str, float]]:
    """Name and duration (µs) of every kernel that a range of host code has launched."""
    for kernel in event.kernels:
        yield kernel.name, kernel.duration
    for child in event.cpu_children:
        yield from launched(child)


# --------------------------------------------------------------------------------------------------
# The table


def sources(reference: str | None, folder: Path) -> dict[str, Path]:
    """train.py of this checkout, and the one to compare with; a revision's goes to `folder`."""
    found = {"train.py": ROOT / "train.py"}
    if reference is not None:
        from bench.trials import source_folder  # the measured child does not find bench

        path = Path(reference)
        if not path.is_file():
            path = source_folder(reference, folder) / "train.py"
        found[reference] = path.resolve()
    return found


def run_child(
    path: Path, seconds: float, log: Path, constants: Constants, *, profiled: bool
) -> dict[str, Any]:
    environment = os.environ | {"AUTORESEARCH_TIME_BUDGET": str(seconds)}
    command = [sys.executable, __file__, "--measure", str(path), *(["--profile"] * profiled)]
    command += [f"--set={name}={value}" for name, value in constants]
    moment = time.perf_counter()
    with log.open("ab") as file:
        done = subprocess.run(
            command,
            cwd=path.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=file,
            check=False,
        )
        file.write(done.stdout)
    wall = time.perf_counter() - moment
    output = done.stdout.decode()
    if done.returncode or MARK not in output:
        raise SystemExit(f"{path} failed; its output is in {log}:\n{log.read_text()[-1000:]}")
    result: dict[str, Any] = json.loads(output.rpartition(MARK)[2])
    block = dict(line.split(": ", 1) for line in output.rpartition("---\n")[2].splitlines()[:12])
    return result | {"process": wall, "block": block}


def rows(r: dict[str, Any]) -> dict[str, str]:
    """The table's lines for one result, in order."""
    block = r["block"]
    of_h100 = 100 * r["flops_per_token"] * r["tokens_per_second"] / H100_PEAK
    lines = {
        "device": block["device"],
        "torch": block["torch_version"],
        "ms a step": f"{r['step_ms']:.1f}",
        "tokens a second": f"{r['tokens_per_second']:,.0f}",
        "MFU, device's peak, %": block["mfu_percent"],
        "MFU, H100's peak, %": f"{of_h100:.2f}",
        "peak VRAM, MB": block["peak_vram_mb"],
        "loader wait, ms a step": f"{r['loader wait']:.3f}",
    }
    times = r.get("split", {}).get("times", {})
    lines |= {f"  {part}, ms a step": f"{times[part]:.1f}" for part in PARTS if part in times}
    for name in ("import", "build", "first batch", "compile", "evaluation"):
        lines[f"seconds: {name}"] = f"{r[name]:.1f}"
    outside = float(block["total_seconds"]) - float(block["training_seconds"]) - r["profiling"]
    return lines | {"seconds outside training": f"{outside:.1f}"}


def table(results: dict[str, dict[str, str]]) -> str:
    names = list(results)
    lines = [f"{'':26}" + "".join(f"{name[-24:]:>26}" for name in names)]
    keys = dict.fromkeys(key for name in names for key in results[name])
    return "\n".join(
        [
            *lines,
            *(f"{k:26}" + "".join(f"{results[n].get(k, '-'):>26}" for n in names) for k in keys),
        ]
    )


def assignment(text: str) -> tuple[str, int | float]:
    name, _, value = text.partition("=")
    number: int | float
    try:
        number = int(value)
    except ValueError:
        number = float(value)  # its ValueError is what argparse reports
    return name, number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10, help="of counted training, per file")
    parser.add_argument("--compare", metavar="REF", help="another train.py, or a git revision")
    parser.add_argument("--cold", action="store_true", help="run with empty compile caches first")
    parser.add_argument(
        "--set", action="append", default=[], type=assignment, metavar="NAME=NUMBER",
        help="a constant of this checkout's train.py for these runs",
    )  # fmt: skip
    parser.add_argument("--log", type=Path, default=Path("bench-train.log"))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--profile", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        found = measure(arguments.measure, arguments.profile, arguments.set)
        print("\n" + MARK + json.dumps(found))
        return

    with tempfile.TemporaryDirectory() as folder:
        if arguments.cold:
            for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
                os.environ[name] = str(Path(folder) / "compiled" / name)
            os.environ["FLASH_ATTENTION_CUTE_DSL_CACHE_DIR"] = str(Path(folder) / "compiled" / "fa")
        results = {}
        log = arguments.log.resolve()
        for name, path in sources(arguments.compare, Path(folder)).items():
            constants = arguments.set if name == "train.py" else []
            cold = run_child(path, 1.0, log, constants, profiled=False) if arguments.cold else None
            result = run_child(path, arguments.seconds, log, constants, profiled=True)
            results[name] = rows(result)
            if cold is not None:
                results[name]["seconds: compile, cold"] = f"{cold['compile']:.1f}"
                results[name]["seconds: process, cold"] = f"{cold['process'] - 1:.1f}"
            with log.open("a") as file:
                file.write(json.dumps(result, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
