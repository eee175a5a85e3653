"""The chart and the page of the README, from the backup of a real search.

    uv run python -m bench.pictures                          # of docs/pictures/search.tar.gz
    uv run python -m bench.pictures search/backup.tar.gz     # of one that bench.search left

The backup is restored into an empty home and served. `autoresearch chart` draws the chart, and the
page is photographed in Chromium, which must be installed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import sync_playwright

from bench.search import TAG

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("backup", type=Path, nargs="?", default=PICTURES / "search.tar.gz")
    backup = parser.parse_args().backup
    command = [sys.executable, "-m", "orchestrator.cli"]
    with tempfile.TemporaryDirectory() as home:
        environment = {n: v for n, v in os.environ.items() if not n.startswith("AUTORESEARCH_")}
        environment |= {"AUTORESEARCH_HOME": home, "AUTORESEARCH_PORT": "0"}
        subprocess.run([*command, "restore", str(backup)], env=environment, check=True)
        server = subprocess.Popen(
            [*command, "serve", "--json"], env=environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            for theme, flags in (("light", []), ("dark", ["--dark"])):
                chart = ["chart", TAG, "-o", str(PICTURES / f"progress-{theme}.svg"), *flags]
                subprocess.run([*command, *chart, "--orchestrator", url], check=True)
                photograph(f"{url}/t/{TAG}", theme, PICTURES / f"page-{theme}.png")
        finally:
            server.terminate()
            server.wait(60)


def photograph(url: str, theme: Literal["light", "dark"], file: Path) -> None:
    """The page at `url` after it has loaded."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=theme)
        page.goto(url)
        page.get_by_role("row").nth(1).wait_for()
        page.wait_for_timeout(1000)
        page.screenshot(path=file)
        browser.close()


if __name__ == "__main__":
    main()
