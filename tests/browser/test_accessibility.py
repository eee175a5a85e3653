"""axe-core finds no serious violation (npm fetches it when the tests run; it is not kept here), and
live updates do not move the focus."""

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


GOES_ON = """
import time
for step in range(2000):
    done, loss = step / 20, 9 - step / 500
    print(f"\\rstep {step:05d} ({done:5.1f}%) | loss: {loss:.4f} | ", end="", flush=True)
    time.sleep(0.05)
"""


def test_news_leave_the_focus_where_it_is(live: System, open_page: OpenPage) -> None:
    """Rendered again or not: the keyboard stays where it is on the page."""
    live.post("/api/experiment/setup", tag="slow", time_budget_seconds=300)
    done = [live.submit(stub(0.98 - n / 100, note=str(n)), hypothesis=f"run {n}") for n in range(2)]
    for run in done:
        live.wait(run)
    running = live.submit(GOES_ON, hypothesis="goes on", tag="slow")
    live.training(running)

    def hand_run() -> None:
        run = live.post(
            "/api/experiment/register", tag="t", hypothesis="by hand", description="by hand",
            category="other", commit_sha="abcdef0", diff_summary="none",
        )["experiment_id"]  # fmt: skip
        live.post("/api/experiment/complete", experiment_id=run, val_bpb=0.99)

    compared = f"/compare?ids={done[0]},{done[1]},{running}"
    for address, role, name, by_itself in [
        ("/", "link", "0.970000", False),
        ("/t/t", "button", "val_bpb", False),
        (f"/e/{done[1]}", "link", "Earlier verdict", False),
        (f"/e/{running}", "slider", "progress under the crosshair", True),
        (compared, "slider", "progress under the crosshair", True),
        (compared, "button", "are alike in all", True),
    ]:
        page = open_page(live.url + address)
        element = page.locator("main").get_by_role(role, name=name).first  # type: ignore[arg-type]
        element.focus()
        expect(element).to_be_focused()
        before = page.locator("main").inner_text()
        if not by_itself:  # a running run's figures change without an event
            hand_run()
        expect(page.locator("main")).not_to_have_text(before, use_inner_text=True, timeout=15_000)
        page.wait_for_timeout(500)
        expect(element).to_be_focused()
        page.close()
