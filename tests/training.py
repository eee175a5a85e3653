"""prepare.py and train.py as real processes."""

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[1]


def run_python(
    cache: Path, *arguments: str | Path, seconds: float = 1, folder: Path = REPO
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "AUTORESEARCH_CACHE": str(cache),
        "AUTORESEARCH_TIME_BUDGET": str(seconds),
        "AUTORESEARCH_PROFILE": "cpu",
        "AUTORESEARCH_SEED": "7",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=300,  # seconds on an idle machine, minutes on one with other work
        check=False,
    )
    # Decoded here, because text=True would turn each carriage return into a newline.
    out, err = done.stdout.decode(), done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)
