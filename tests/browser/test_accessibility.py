"""axe-core finds no serious violation. npm fetches it when the tests run; it is not kept here."""

import shutil
import subprocess

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, OpenPage
from tests.e2e.conftest import System, stub

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of axe-core; skips where npm cannot fetch it."""
    folder = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("no npm here")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), "axe-core@4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if done.returncode or not script.is_file():
        pytest.skip(f"npm could not fetch axe-core: {done.stderr[-200:]}")
    return script.read_text("utf-8")


def violations(page: Page, axe: str) -> list[str]:
    """Serious and critical ones, with the elements that they are about."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:4]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [None, PHONE])
def test_the_tag_page_has_no_serious_violation(
    live: System, open_page: OpenPage, axe: str, scheme: str, size: dict[str, int] | None
) -> None:
    live.submit(stub(0.98, note="a"), hypothesis="baseline")
    live.submit(stub(0.97, note="b"), hypothesis="rope")
    live.submit("raise SystemExit(3)", hypothesis="crashes")
    live.wait(live.submit(stub(0.9705, note="c"), hypothesis="near", category="optimizer"))
    live.submit(stub(0.96, seconds=60, note="d"), hypothesis="still running")
    options = {} if size is None else {"viewport": size}
    page = open_page(f"{live.url}/t/t", color_scheme=scheme, **options)
    expect(page.locator("table.runs tbody tr")).to_have_count(5, timeout=30_000)
    assert violations(page, axe) == []
    page.get_by_role("slider").focus()
    page.get_by_role("button", name="Table", exact=True).click()
    assert violations(page, axe) == []
    page.locator("h2").first.click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page, axe) == []
