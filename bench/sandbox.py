"""What the walls cost: the checkout's train.py inside `strict` and outside, in turn.

    uv run python -m bench.sandbox --budget 60 --rounds 3        # on GPU 0, or on the CPU

Each line has the result and the speed of one run; the last one the ratio of steps per second,
inside to outside. The first round also warms the compile caches, so it does not count where there
are others. Nothing else should use the GPU or the CPU meanwhile.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from gpu_worker import isolation, seccomp
from gpu_worker.devices import open_gpu
from gpu_worker.settings import WorkerSettings
from gpu_worker.workspace import base_environment

_FIGURES = ("val_bpb", "num_steps", "training_seconds", "total_seconds")


def run(sandbox: isolation.Sandbox, folder: Path, env: dict[str, str]) -> dict[str, float]:
    """One training; its figures, and `wall_seconds`."""
    workspace, compiled = folder / "workspace", folder / f"compiled-{sandbox.level}"
    shutil.rmtree(workspace, ignore_errors=True)
    for path in (workspace, compiled):
        path.mkdir(exist_ok=True)
    for name in ("train.py", "prepare.py"):
        shutil.copy(name, workspace)
    filter_fd = seccomp.open_program()
    argv = sandbox.wrap(
        [*sandbox.command([sys.executable]), "train.py"],
        workspace,
        compiled=compiled,
        read_only=(workspace / "prepare.py",),
        seccomp_fd=filter_fd,
    )
    started = time.monotonic()
    done = subprocess.run(
        argv,
        cwd=workspace,
        env=sandbox.environment(env),
        pass_fds=[filter_fd],
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(filter_fd)
    if done.returncode != 0:
        raise SystemExit(f"{sandbox.level}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    entries = dict(re.findall(r"(?m)^(\w+):\s+(\S+)", done.stdout))
    figures = {name: float(entries[name].replace(",", "")) for name in _FIGURES}
    return figures | {"wall_seconds": time.monotonic() - started}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.sandbox", description=__doc__)
    parser.add_argument("--budget", type=float, default=60, help="seconds of training in each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpu", default="auto", help="its index, auto, or cpu")
    arguments = parser.parse_args()
    settings = WorkerSettings(launcher=sys.executable)
    device = open_gpu(arguments.gpu).device
    walls = isolation.prepare_for(settings, device, "strict")
    env = base_environment(settings, device.uuid or "")
    env |= {"AUTORESEARCH_TIME_BUDGET": str(arguments.budget), "AUTORESEARCH_SEED": "42"}
    speeds: dict[str, list[float]] = {"strict": [], "none": []}
    with tempfile.TemporaryDirectory(prefix="bench-sandbox-") as folder:
        for number in range(arguments.rounds):
            for sandbox in (isolation.Sandbox("none"), walls):
                found = run(sandbox, Path(folder), env)
                shown = "  ".join(f"{name} {value:g}" for name, value in found.items())
                print(f"{number + 1} {sandbox.level:<7} {shown}", flush=True)
                if number or arguments.rounds == 1:
                    steps = found["num_steps"] / found["training_seconds"]
                    speeds[sandbox.level].append(steps)
    inside, outside = median(speeds["strict"]), median(speeds["none"])
    print(f"steps per second, inside to outside: {inside / outside:.4f}")


if __name__ == "__main__":
    main()
