"""How much chance there is in val_bpb: between seeds, within one seed, and shared by two sources.

Trains variants of this checkout's train.py with the same seeds, in turn, and prints each run and
then a table. A variant is a name and constants of train.py that it changes.

    uv run python -m bench.noise --budget 25 --seeds 6 rate:MATRIX_LR=0.05 shape:ASPECT_RATIO=80
    python3 -m bench.noise --repeats 3          # on a host without uv's environment

Training data must be there (uv run prepare.py). Each finished run is a line of --log, and runs that
are in it already are not made again, so a measurement may be cut into several calls.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASE = "base"
Constants = dict[str, str]
Run = tuple[str, int, int]  # variant, seed, number of the repeat


def parse_variant(text: str) -> tuple[str, Constants]:
    name, _, changes = text.partition(":")
    return name, dict(change.split("=", 1) for change in changes.split(","))


def changed(source: str, constants: Constants) -> str:
    for name, value in constants.items():
        source, count = re.subn(rf"(?m)^{name} = [^#\n]*", f"{name} = {value}  ", source)
        if count != 1:
            raise SystemExit(f"train.py has {count} lines that set {name}")
    return source


def train(source: str, seed: int, budget: float) -> float:
    """val_bpb of one run."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "prepare.py", folder)
        (Path(folder) / "train.py").write_text(source, "utf-8")
        done = subprocess.run(
            [sys.executable, "train.py"],
            cwd=folder,
            env=os.environ
            | {"AUTORESEARCH_SEED": str(seed), "AUTORESEARCH_TIME_BUDGET": str(budget)},
            capture_output=True,
            text=True,
            check=False,
        )
    found = re.findall(r"(?m)^val_bpb:\s+([0-9.]+)", done.stdout)
    if done.returncode or not found:
        raise SystemExit(f"the run failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return float(found[-1])


def variance(values: list[float]) -> float:
    return statistics.variance(values) if len(values) > 1 else float("nan")


def shared(a: list[float], b: list[float]) -> float:
    """rho, the part of the variance between seeds that two sources have in common: their paired
    difference has the variance (1 - rho) (var a + var b)."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return 1 - variance(differences) / (variance(a) + variance(b))


def show(results: dict[Run, float]) -> None:
    first: dict[str, dict[int, float]] = {}
    repeats: dict[tuple[str, int], list[float]] = {}
    for (name, seed, number), value in sorted(results.items()):
        repeats.setdefault((name, seed), []).append(value)
        if number == 0:
            first.setdefault(name, {})[seed] = value
    for name, by_seed in first.items():
        values = list(by_seed.values())
        mean, sigma = statistics.mean(values), variance(values) ** 0.5
        print(f"{name}: mean {mean:.6f}, sigma between {len(values)} seeds {sigma:.6f}")
    for (name, seed), values in repeats.items():
        if len(values) > 1:
            sigma = variance(values) ** 0.5
            print(f"{name}, seed {seed}: sigma within {len(values)} repeats {sigma:.6f}")
    for a, b in itertools.combinations(first, 2):
        seeds = sorted(first[a].keys() & first[b].keys())
        if len(seeds) > 1:
            x, y = [first[a][s] for s in seeds], [first[b][s] for s in seeds]
            gap = statistics.mean(x) - statistics.mean(y)
            print(f"{a} - {b}: {gap:+.6f}, rho {shared(x, y):+.2f} over {len(seeds)} seeds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("variants", nargs="*", metavar="NAME:CONSTANT=VALUE,…")
    parser.add_argument("--budget", type=float, default=25, help="seconds of training in each run")
    parser.add_argument("--seeds", type=int, default=6, help="42, 43, …")
    parser.add_argument("--repeats", type=int, default=1, help="of the base with seed 42")
    parser.add_argument("--log", type=Path, default=Path("bench-noise.jsonl"))
    options = parser.parse_args()

    variants: dict[str, Constants] = {BASE: {}} | dict(map(parse_variant, options.variants))
    results: dict[Run, float] = {}
    if options.log.exists():
        for line in options.log.read_text("utf-8").splitlines():
            *run, value = json.loads(line)
            results[run[0], run[1], run[2]] = value
    seeds = range(42, 42 + options.seeds)
    wanted: list[Run] = [(name, seed, 0) for seed in seeds for name in variants]
    wanted += [(BASE, 42, number) for number in range(1, options.repeats)]
    source = (ROOT / "train.py").read_text("utf-8")
    for run in wanted:
        if run not in results:
            results[run] = train(changed(source, variants[run[0]]), run[1], options.budget)
            with options.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps([*run, results[run]]) + "\n")
            print(*run, f"{results[run]:.6f}", flush=True)
    show(results)


if __name__ == "__main__":
    main()
