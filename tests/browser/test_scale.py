"""The Tag page at three, a thousand and ten thousand experiments; how fast: `bench.page`.

Pictures of each are left in the folder that SCREENSHOTS names.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from bench.histories import write
from orchestrator.embedded import EmbeddedServer
from orchestrator.settings import HomePaths
from tests.browser.conftest import DESKTOP, PHONE, OpenPage, marks, screenshots
from tests.e2e.conftest import System

pytestmark = pytest.mark.browser

SIZES = (3, 1000, 10_000)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for the module: writing ten thousand experiments takes a while."""
    system = System(tmp_path_factory.mktemp("scale"))
    for name in list(system.environment):
        if name.startswith("AUTORESEARCH_TOKEN") or name == "REDIS_URL":
            del system.environment[name]
    system.serve()
    url = EmbeddedServer(HomePaths(Path(system.environment["AUTORESEARCH_HOME"]))).url()
    for runs in SIZES:
        history = write(url, f"t{runs}", runs, hours=min(runs / 84, 200))
        # In a thread of its own: Playwright leaves an event loop running in this one.
        with ThreadPoolExecutor(1) as executor:
            executor.submit(asyncio.run, history).result()
    yield system
    system.stop()


def complete(page: Page) -> dict[str, float]:
    return marks(page, "tag:complete")


@pytest.mark.parametrize("runs", SIZES)
def test_a_history_of_any_length_is_drawn(loaded: System, open_page: OpenPage, runs: int) -> None:
    page = open_page(f"{loaded.url}/t/t{runs}")
    complete(page)
    expect(page.locator(".verdict .runs .value")).to_contain_text(f"{runs:,}")
    expect(page.locator("table.runs tbody tr")).to_have_count(min(runs, 50))
    assert page.locator(".plot .keeps circle").count() > 0
    inked = """() => {
      const canvas = document.querySelector(".plot canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let n = 0;
      for (let i = 3; i < data.length; i += 4) n += data[i] > 0;
      return n;
    }"""
    assert page.evaluate(inked) > runs / 10  # dots were really drawn


def test_many_runs_are_drawn_by_logarithm_and_crashes_as_shares(
    loaded: System, open_page: OpenPage
) -> None:
    page = open_page(f"{loaded.url}/t/t10000")
    complete(page)
    assert page.get_by_label("Axis of runs").get_by_role("radio", name="log").is_checked()
    expect(page.locator(".plot")).to_contain_text("#10,000")
    page.get_by_role("slider").focus()
    page.keyboard.press("End")
    expect(page.locator(".tip")).to_contain_text("#10,000")


def test_pages_of_a_long_history_follow_each_other(loaded: System, open_page: OpenPage) -> None:
    page = open_page(f"{loaded.url}/t/t10000?status=crash&sort=oldest")
    complete(page)
    rows = page.locator("table.runs tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("button", name="Show 50 more").click()
    expect(rows).to_have_count(100)
    ids = rows.evaluate_all("all => all.map(row => row.dataset.id)")
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("runs", SIZES)
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_pictures(loaded: System, open_page: OpenPage, runs: int, size: str) -> None:
    """For a person to look at; what a machine can see is that nothing runs over the side."""
    viewport = PHONE if size == "phone" else DESKTOP
    page = open_page(f"{loaded.url}/t/t{runs}", viewport=viewport)
    complete(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    folder = screenshots()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=folder / f"tag-{runs}-{size}-{scheme}.png")
