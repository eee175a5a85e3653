"""The Tag page at three, a thousand and a hundred thousand experiments.

Pictures of each are left in the folder that SCREENSHOTS names.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from bench.histories import write
from orchestrator.embedded import EmbeddedServer
from orchestrator.settings import HomePaths
from tests.browser.conftest import DESKTOP, PHONE, OpenPage, marks, screenshots
from tests.e2e.conftest import System

pytestmark = pytest.mark.browser

# Generous, since tests run beside other things; docs/page.md has what was measured.
LIMIT_MS = {3: 4000, 1000: 4000, 100_000: 8000}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for the module: writing a hundred thousand experiments takes a minute."""
    system = System(tmp_path_factory.mktemp("scale"))
    for name in list(system.environment):
        if name.startswith("AUTORESEARCH_TOKEN") or name == "REDIS_URL":
            del system.environment[name]
    system.serve()
    url = EmbeddedServer(HomePaths(Path(system.environment["AUTORESEARCH_HOME"]))).url()
    for runs in LIMIT_MS:
        history = write(url, f"t{runs}", runs, hours=min(runs / 84, 200))
        # In a thread of its own: Playwright leaves an event loop running in this one.
        with ThreadPoolExecutor(1) as executor:
            executor.submit(asyncio.run, history).result()
    yield system
    system.stop()


def complete(page: Page) -> dict[str, float]:
    return marks(page, "tag:complete")


@pytest.mark.parametrize("runs", LIMIT_MS)
def test_a_history_of_any_length_is_drawn_soon(
    loaded: System, open_page: OpenPage, runs: int
) -> None:
    page = open_page(f"{loaded.url}/t/t{runs}")
    assert complete(page)["tag:chart"] < LIMIT_MS[runs]
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
    page = open_page(f"{loaded.url}/t/t100000")
    complete(page)
    assert page.get_by_label("Axis of runs").get_by_role("radio", name="log").is_checked()
    expect(page.locator(".plot")).to_contain_text("#100,000")
    page.get_by_role("slider").focus()
    page.keyboard.press("End")
    expect(page.locator(".tip")).to_contain_text("#100,000")


def test_pages_of_a_long_history_follow_each_other(loaded: System, open_page: OpenPage) -> None:
    page = open_page(f"{loaded.url}/t/t100000?status=crash&sort=oldest")
    complete(page)
    rows = page.locator("table.runs tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("button", name="Show 50 more").click()
    expect(rows).to_have_count(100)
    ids = rows.evaluate_all("all => all.map(row => row.dataset.id)")
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("runs", LIMIT_MS)
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_pictures(loaded: System, open_page: OpenPage, runs: int, scheme: str, size: str) -> None:
    """For a person to look at; what a machine can see is that nothing runs over the side."""
    viewport = PHONE if size == "phone" else DESKTOP
    page = open_page(f"{loaded.url}/t/t{runs}", color_scheme=scheme, viewport=viewport)
    complete(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    folder = screenshots()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"tag-{runs}-{size}-{scheme}.png")
