"""The chart and the page of the README, from a real search: `uv run python -m bench.pictures`.

Everything is real but the training: a system is started, the built-in agent searches, a worker runs
each source, `autoresearch chart` draws. A stub computes val_bpb from the constants that the agent
changes, with a little noise, and fails where they would need too much memory. The page is
photographed in Chromium, which must be installed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from playwright.sync_api import sync_playwright

from orchestrator.cli.client import Client
from orchestrator.cli.run.demo_search import Search
from orchestrator.demo.agent import Agent
from orchestrator.schemas import SetupRequest

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
TAG = "nov24"
SUBTITLE = "A search by the built-in agent; a stub stands in for the training"
STUB = """
import hashlib, math, random
from autoresearch_run import measured
DEPTH = 8
ASPECT_RATIO = 64
MLP_RATIO = 4
HEAD_DIM = 128
WINDOW_PATTERN = "SSSL"
ROTARY_BASE = 10_000.0
LOGIT_SOFTCAP = 15.0
MATRIX_LR = 0.04
EMBEDDING_LR = 0.6
HEAD_LR = 0.004
MUON_MOMENTUM_END = 0.95
WEIGHT_DECAY = 0.2
WARMDOWN_FRACTION = 0.75
FINAL_LR_FRACTION = 0.03
if DEPTH * ASPECT_RATIO * MLP_RATIO > 2600:
    raise MemoryError("CUDA out of memory. Tried to allocate 2.25 GiB.")

def off(value, best, weight):
    return weight * math.log(value / best) ** 2

bpb = 0.9753
bpb += off(DEPTH, 9, 0.09) + off(ASPECT_RATIO, 58, 0.02) + off(MLP_RATIO, 4, 0.015)
bpb += 0.002 * (HEAD_DIM != 128) + 0.003 * (WINDOW_PATTERN != "SSL")
bpb += off(ROTARY_BASE, 90_000, 0.001) + off(LOGIT_SOFTCAP, 19, 0.01)
bpb += off(MATRIX_LR, 0.05, 0.02) + off(EMBEDDING_LR, 0.9, 0.008) + off(HEAD_LR, 0.0066, 0.009)
bpb += off(1 - MUON_MOMENTUM_END, 0.035, 0.006) + off(WEIGHT_DECAY, 0.14, 0.006)
bpb += 0.05 * (WARMDOWN_FRACTION - 0.9) ** 2 + 0.8 * (FINAL_LR_FRACTION - 0.05) ** 2
seed = int(hashlib.sha256(open(__file__, "rb").read()).hexdigest()[:8], 16)
bpb += random.Random(seed).gauss(0, 0.0004)
for percent in range(0, 100, 10):
    print(f"step {percent:05d} ({percent:5.1f}%) | loss: {bpb * 3 + 5 / (1 + percent):.6f} |")
measured(bpb)
print("---")
print(f"val_bpb: {bpb:.6f}")
print("training_seconds: 300.0")
print(f"peak_vram_mb: {20_000 + 9 * DEPTH * ASPECT_RATIO * MLP_RATIO:.1f}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=90)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {n: v for n, v in os.environ.items() if not n.startswith("AUTORESEARCH_")}
        environment |= {
            "AUTORESEARCH_HOME": folder, "AUTORESEARCH_PORT": "0", "AUTORESEARCH_CHECK": "false",
            "AUTORESEARCH_LAUNCHER": f"{sys.executable} -I -S",
            "AUTORESEARCH_LOCK_DIR": f"{folder}/locks",
        }  # fmt: skip
        command = [sys.executable, "-m", "orchestrator.cli"]
        up = subprocess.Popen(
            [*command, "up", "--cpu", "--json"], env=environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert up.stdout is not None
            url = json.loads(up.stdout.readline())["url"]
            search(url, options.runs, options.seed)
            PICTURES.mkdir(exist_ok=True)
            for theme, flags in (("light", []), ("dark", ["--dark"])):
                file = str(PICTURES / f"progress-{theme}.svg")
                chart = ["chart", TAG, "-o", file, "--subtitle", SUBTITLE, *flags]
                chart += ["--orchestrator", url]
                subprocess.run([*command, *chart], env=environment, check=True)
                photograph(f"{url}/t/{TAG}", theme, PICTURES / f"page-{theme}.png")
        finally:
            up.terminate()
            up.wait(60)


def photograph(url: str, theme: Literal["light", "dark"], file: Path) -> None:
    """The page at `url` after it has loaded."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=theme)
        page.goto(url)
        page.get_by_role("row").nth(10).wait_for()
        page.wait_for_timeout(1000)
        page.screenshot(path=file)
        browser.close()


def search(url: str, runs: int, seed: int) -> None:
    """Let the built-in agent try `runs` sources."""
    with Client(url) as client:
        client.setup(SetupRequest(tag=TAG))
        going = Search(client, TAG, runs, Agent(STUB, seed))
        began = time.monotonic()
        for _ in going.run():
            pass
        print(f"{len(going.decided)} runs in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
