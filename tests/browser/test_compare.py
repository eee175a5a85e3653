"""Two to eight runs beside each other."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.axe import serious_violations
from tests.browser.conftest import PHONE, OpenPage, screenshots
from tests.e2e.conftest import System, eventually, stub

pytestmark = pytest.mark.browser


def three(live: System) -> list[str]:
    """Three finished runs; the third differs from the first in its source's first line alone."""
    runs = [
        live.submit("# one\n" + stub(0.98), hypothesis="baseline"),
        live.submit("# two\n" + stub(0.97, seconds=0.4), hypothesis="wider"),
        live.submit("# three\n" + stub(0.99), hypothesis="deeper", category="architecture"),
    ]
    for run in runs:
        live.wait(run)
    return runs


def test_what_differs_stands_first_and_against_the_base(live: System, open_page: OpenPage) -> None:
    a, b, c = three(live)
    page = open_page(f"{live.url}/compare?ids={a},{b},{c}")
    rows = page.locator("table.compared tbody tr")
    expect(rows.first).to_contain_text("0.980000")
    expect(rows.first).to_contain_text("−0.010000")
    expect(rows.first).to_contain_text("+0.010000")
    expect(page.get_by_role("row", name="depth")).to_be_hidden()
    page.get_by_role("button", name="alike in all").click()
    expect(page.get_by_role("row", name="depth")).to_be_visible()
    page.get_by_role("listitem").filter(has_text="deeper").get_by_role("radio").check()
    expect(page).to_have_url(re.compile(f"base={c}"))
    expect(rows.first).to_contain_text("−0.020000")


def test_a_hand_run_is_compared_without_its_source(live: System, open_page: OpenPage) -> None:
    """The numbers stand beside each other; in the place of the diff it says why there is none."""
    queued = live.submit(stub(0.98), hypothesis="baseline")
    live.wait(queued)
    by_hand = live.post(
        "/api/experiment/register", tag="t", hypothesis="wider", description="wider",
        category="architecture", commit_sha="abcdef0", diff_summary="width 640",
    )["experiment_id"]  # fmt: skip
    live.post("/api/experiment/complete", experiment_id=by_hand, val_bpb=0.97)
    page = open_page(f"{live.url}/compare?ids={queued},{by_hand}")
    expect(page.locator("table.compared tbody tr").first).to_contain_text("0.970000")
    expect(
        page.get_by_text("B was trained by hand: its train.py was not sent here.")
    ).to_be_visible()


def test_runs_are_taken_out_and_added(live: System, open_page: OpenPage) -> None:
    """The header counts them; fewer than two ask for more; an unknown one is refused."""
    a, b, c = three(live)
    page = open_page(f"{live.url}/compare?ids={a},{b}", errors_allowed=True)
    expect(page.get_by_role("link", name="Compare (2)")).to_be_visible()
    page.get_by_role("button", name="Take out B").click()
    expect(page.get_by_text("One more run is needed")).to_be_visible()
    field = page.get_by_label("Add a run")
    field.fill("nonsense")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("begins with exp-")).to_be_visible()
    field.fill("exp-00000000000000-t")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("exp-00000000000000-t: ")).to_be_visible()
    field.fill(f"{live.url}/e/{c}?tab=log")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("list", name="Compared runs").get_by_role("listitem")).to_have_count(2)
    expect(page.locator("table.compared")).to_contain_text("0.990000")


def test_picked_runs_come_from_their_own_pages(live: System, open_page: OpenPage) -> None:
    a, b, _ = three(live)
    page = open_page(f"{live.url}/e/{a}")
    page.get_by_role("button", name="Compare").click()
    page.goto(f"{live.url}/e/{b}")
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("link", name="Compare (2)").click()
    expect(page.locator("table.compared")).to_contain_text("0.970000")


def test_one_crosshair_reads_all_curves(live: System, open_page: OpenPage) -> None:
    """By arrow keys too: the slider says where it is and what each curve has there."""
    a, b, _ = three(live)
    page = open_page(f"{live.url}/compare?ids={a},{b}")
    slider = page.get_by_role("slider", name=re.compile("Learning curves"))
    slider.focus()
    page.keyboard.press("Home")
    page.keyboard.press("PageUp")
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"^10 % .*baseline .*wider "))
    expect(page.locator(".curve-legend")).to_contain_text("10 % of the run")


def test_the_sources_of_any_pair_are_compared(live: System, open_page: OpenPage) -> None:
    a, b, c = three(live)
    page = open_page(f"{live.url}/compare?ids={a},{b},{c}")
    code = page.get_by_role("region", name="Source diff")
    expect(code.locator("tr.removed").first).to_contain_text("# one")
    page.get_by_label("Diff from").select_option(c)
    expect(code.locator("tr.removed").first).to_contain_text("# three")
    page.get_by_label("Diff to").select_option(c)
    expect(page.get_by_text("Choose two different runs")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(live: System, open_page: OpenPage, scheme: str) -> None:
    page = open_page(f"{live.url}/compare", color_scheme=scheme)
    expect(page.get_by_text("Nothing is picked yet")).to_be_visible()
    assert serious_violations(page) == []
    page.goto(f"{live.url}/compare?ids={','.join(three(live))}")
    expect(page.get_by_role("region", name="Source diff")).to_be_visible()
    assert serious_violations(page) == []
    if folder := screenshots():
        page.screenshot(path=folder / f"compare-{scheme}.png")
    page.set_viewport_size(PHONE)
    eventually(lambda: page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
    assert serious_violations(page) == []
