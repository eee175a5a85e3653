"""A table of variants of train.py, each trained with the same seeds: which one is better, and by
how much more than chance.

    uv run python -m bench.trials trials.toml
    python3 -m bench.trials trials.toml           # on a host without uv's environment

The TOML file says what to train; the first variant is the one that the others are compared with:

    budget = 25                        # seconds of training in each run
    seeds = [42, 43, 44]
    repeats = 3                        # of the first variant's first seed; 1 where it is left out

    [today]
    [rate]
    MATRIX_LR = 0.05                   # constants of train.py that this variant changes
    [wide]
    ASPECT_RATIO = 80
    seeds = [42, 43]                   # of this variant only
    [plain]
    from = "4acca52"                   # a git revision, or a folder, with train.py and prepare.py

One run at a time on each GPU, or on the CPU. Each finished run is a line of the log beside the
TOML file, with its loss curve, and is not made again: a table may be cut and go on. Training data
must be there (uv run prepare.py).
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from statistics import mean, stdev, variance
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_STEP = re.compile(r"\(\s*([0-9.]+)%\) \| loss: ([0-9.]+)")
_ENTRY = re.compile(r"(?m)^(\w+): +([0-9.]+)$")
_OUTSIDE = re.compile(r"(imports|set-up|steps|evaluation) ([0-9.]+)")


@dataclass(frozen=True)
class Run:
    variant: str
    seed: int
    budget: float
    repeat: int = 0


@dataclass
class Variant:
    name: str
    source: Path  # folder with train.py and prepare.py
    constants: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """This variant's train.py and prepare.py."""
        (folder / "prepare.py").write_bytes((self.source / "prepare.py").read_bytes())
        text = (self.source / "train.py").read_text("utf-8")
        for name, value in self.constants.items():
            text, count = re.subn(rf"(?m)^{name} = [^#\n]*", f"{name} = {value}  ", text)
            if count != 1:
                raise SystemExit(f"{self.name}: train.py has {count} lines that set {name}")
        (folder / "train.py").write_text(text, "utf-8")


def source_folder(origin: str | None, scratch: Path) -> Path:
    if origin is None:
        return ROOT
    if Path(origin).is_dir():
        return Path(origin)
    folder = scratch / origin
    folder.mkdir(exist_ok=True)
    for name in ("train.py", "prepare.py"):
        command = ["git", "show", f"{origin}:{name}"]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
        if done.returncode:
            raise SystemExit(f"{origin} is no folder, and no git revision with {name}")
        (folder / name).write_bytes(done.stdout)
    return folder


def read_plan(table: dict[str, Any], scratch: Path) -> tuple[dict[str, Variant], list[Run]]:
    """Variants by name, and the runs in their order: all variants of a seed, then the next seed."""
    seeds, budget = table.pop("seeds"), table.pop("budget")
    repeats = table.pop("repeats", 1)
    variants, runs = {}, []
    for name, keys in table.items():
        own_seeds, own_budget = keys.pop("seeds", seeds), keys.pop("budget", budget)
        source = source_folder(keys.pop("from", None), scratch)
        variants[name] = Variant(name, source, {key: repr(value) for key, value in keys.items()})
        runs += [Run(name, seed, own_budget) for seed in own_seeds]
    runs.sort(key=lambda run: run.seed)
    first = next(iter(variants))
    return variants, runs + [Run(first, seeds[0], budget, n) for n in range(1, repeats)]


def train(variant: Variant, run: Run, gpu: str | None) -> dict[str, Any]:
    """The run's entries after `---`, seconds outside training, and its curve [[progress, loss]]."""
    environment = os.environ | {
        "AUTORESEARCH_SEED": str(run.seed),
        "AUTORESEARCH_TIME_BUDGET": str(run.budget),
    }
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    with tempfile.TemporaryDirectory() as folder:
        variant.write(Path(folder))
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "train.py"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
    entries = {name: float(value) for name, value in _ENTRY.findall(done.stdout)}
    if done.returncode or "val_bpb" not in entries:
        return {"failed": f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"}
    outside = {name: float(value) for name, value in _OUTSIDE.findall(done.stdout)}
    curve = [[float(done) / 100, float(loss)] for done, loss in _STEP.findall(done.stdout)]
    return entries | {"outside": outside, "wall_seconds": round(seconds, 1), "curve": curve}


def shared(a: list[float], b: list[float]) -> float:
    """rho, the part of the variance between seeds that two sources have in common at one seed:
    their paired difference has the variance (1 - rho) (var a + var b)."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return 1 - variance(differences) / (variance(a) + variance(b))


def rows(results: dict[Run, dict[str, Any]]) -> Iterator[str]:
    """One line for each variant and budget, with its difference to the first one's by seeds."""
    groups: dict[tuple[str, float], dict[int, dict[str, Any]]] = {}
    for run, found in results.items():
        if run.repeat == 0 and "val_bpb" in found:
            groups.setdefault((run.variant, run.budget), {})[run.seed] = found
    head = (
        f"{'variant':20} {'budget':>6} {'runs':>4} {'val_bpb':>9} {'sigma':>8} {'difference':>11}"
    )
    yield f"{head} {'rho':>5} {'steps':>6} {'MFU':>5} {'GB':>5} {'outside':>7}"
    bases: dict[float, dict[int, dict[str, Any]]] = {}
    for (name, budget), by_seed in groups.items():
        base = bases.setdefault(budget, by_seed)
        values = [found["val_bpb"] for found in by_seed.values()]
        seeds = sorted(base.keys() & by_seed.keys())
        ours, theirs = ([g[s]["val_bpb"] for s in seeds] for g in (by_seed, base))
        sigma = f"{stdev(values):.6f}" if len(values) > 1 else ""
        compared = bool(seeds) and base is not by_seed
        gap = f"{mean(ours) - mean(theirs):+.6f}" if compared else ""
        rho = f"{shared(ours, theirs):+.2f}" if compared and len(seeds) > 1 else ""
        middle = {
            key: mean(found[key] for found in by_seed.values())
            for key in ("num_steps", "mfu_percent", "peak_vram_mb", "wall_seconds")
        }
        trained = mean(found["training_seconds"] for found in by_seed.values())
        yield (
            f"{name:20} {budget:6g} {len(values):4} {mean(values):9.6f} {sigma:>8} "
            f"{gap:>11} {rho:>5} {middle['num_steps']:6.0f} {middle['mfu_percent']:5.1f} "
            f"{middle['peak_vram_mb'] / 1024:5.1f} {middle['wall_seconds'] - trained:7.1f}"
        )
    again: dict[tuple[str, int, float], list[float]] = {}
    for run, found in results.items():
        if "val_bpb" in found:
            again.setdefault((run.variant, run.seed, run.budget), []).append(found["val_bpb"])
    for (name, seed, budget), values in again.items():
        if len(values) > 1:
            which = f"{name}, seed {seed}, {budget:g} s"
            yield f"{which}: sigma within {len(values)} runs {stdev(values):.6f}"


def gpus() -> list[str | None]:
    """Those that CUDA_VISIBLE_DEVICES names, or all; [None] where there are none."""
    if named := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return list(named.split(","))
    import torch

    return [str(index) for index in range(torch.cuda.device_count())] or [None]


def main() -> None:
    import tomllib

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("table", type=Path, help="the TOML file")
    path = parser.parse_args().table
    log = path.with_suffix(".jsonl")
    results: dict[Run, dict[str, Any]] = {}
    if log.exists():
        for line in log.read_text("utf-8").splitlines():
            found = json.loads(line)
            results[Run(**found.pop("run"))] = found
    free: SimpleQueue[str | None] = SimpleQueue()
    found_gpus = gpus()
    for gpu in found_gpus:
        free.put(gpu)

    with tempfile.TemporaryDirectory() as scratch:
        variants, runs = read_plan(tomllib.loads(path.read_text("utf-8")), Path(scratch))

        def execute(run: Run) -> None:
            gpu = free.get()
            try:
                found = train(variants[run.variant], run, gpu)
            finally:
                free.put(gpu)
            results[run] = found
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"run": asdict(run)} | found) + "\n")
            shown = found.get("failed") or f"{found['val_bpb']:.6f}"
            print(f"{run.variant}, seed {run.seed}, {run.budget:g} s: {shown}", flush=True)

        with ThreadPoolExecutor(len(found_gpus)) as pool:
            list(pool.map(execute, [run for run in runs if run not in results]))
    print(*rows(results), sep="\n")


if __name__ == "__main__":
    main()
