"""axe-core finds no serious violation. npm fetches it when the tests run; it is not kept here."""

import pytest
from playwright.sync_api import expect

from tests.browser.axe import serious_violations
from tests.browser.conftest import PHONE, OpenPage
from tests.e2e.conftest import System, stub

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [None, PHONE])
def test_the_tag_page_has_no_serious_violation(
    live: System, open_page: OpenPage, scheme: str, size: dict[str, int] | None
) -> None:
    live.submit(stub(0.98, note="a"), hypothesis="baseline")
    live.submit(stub(0.97, note="b"), hypothesis="rope")
    live.submit("raise SystemExit(3)", hypothesis="crashes")
    live.wait(live.submit(stub(0.9705, note="c"), hypothesis="near", category="optimizer"))
    live.submit(stub(0.96, seconds=60, note="d"), hypothesis="still running")
    options = {} if size is None else {"viewport": size}
    page = open_page(f"{live.url}/t/t", color_scheme=scheme, **options)
    expect(page.locator("table.runs tbody tr")).to_have_count(5, timeout=30_000)
    assert serious_violations(page) == []
    page.get_by_role("slider").focus()
    page.get_by_role("button", name="Table", exact=True).click()
    assert serious_violations(page) == []
    page.locator("h2").first.click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert serious_violations(page) == []
