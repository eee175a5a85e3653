"""A real Chromium before a real system. Tests here are marked `browser`, and skip without one.

A page that logs an error, or breaks the content security policy, fails its test.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

from tests.e2e.conftest import System, eventually, system as system  # noqa: PLC0414 - the fixture, handed on

CHROMIUM_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}

OpenPage = Callable[..., Page]

# How long what is expected may take on a busy machine; nothing waits longer than it needs.
expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium: its path is given, so that nothing is downloaded."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Open an address in a browser of its own (options as Playwright's `new_context` has them);
    `errors_allowed` for a test whose page is meant to meet one."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def log(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    def make(url: str, *, errors_allowed: bool = False, **options: object) -> Page:
        context = chromium.new_context(**({"viewport": DESKTOP} | options))  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()
        if not errors_allowed:
            page.on("console", log)
            page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield make
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture
def live(system: System) -> System:
    """An orchestrator and one worker that runs stubs; `live.submit(stub(0.98, seconds=1))`."""
    system.serve()
    system.worker()
    system.post("/api/experiment/setup", tag="t", time_budget_seconds=20)
    return system


def marks(page: Page, last: str) -> dict[str, float]:
    """The page's performance marks, in ms from navigation, once there is one named `last`. Polled
    from here, because the page's security policy refuses what Playwright would run in it."""
    text = "performance.getEntriesByType('mark').map(mark => [mark.name, mark.startTime])"

    def found() -> dict[str, float]:
        all_marks = dict(page.evaluate(text))
        return all_marks if last in all_marks else {}

    return dict(eventually(found, 60, f"the mark {last}"))


def screenshots() -> Path | None:
    """The folder for pictures that a person wants to see, SCREENSHOTS, or None."""
    folder = os.environ.get("SCREENSHOTS")
    return Path(folder) if folder else None
