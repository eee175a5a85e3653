"""The overview: what happened, what is wrong, what runs, without a reload."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.axe import serious_violations
from tests.browser.conftest import PHONE, OpenPage, screenshots
from tests.e2e.conftest import System, eventually, stub

pytestmark = pytest.mark.browser


def steer(page: Page, button: str, reason: str) -> None:
    """Fill in the dialog that is open and press its button."""
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill(reason)
    dialog.get_by_role("button", name=button, exact=True).click()
    expect(dialog).to_have_count(0)


def test_a_run_goes_from_queue_to_best_before_ones_eyes(live: System, open_page: OpenPage) -> None:
    """The GPU's card names it while it trains; then the tag's row has its result."""
    page = open_page(live.url)
    card = page.locator(".gpu")
    expect(card).to_contain_text("waits for a run")
    page.evaluate("window.here = true")
    live.submit(stub(0.98, seconds=15), hypothesis="a wider MLP")
    expect(card).to_contain_text("a wider MLP", timeout=20_000)
    expect(card).to_contain_text("loss", timeout=20_000)
    row = page.locator("table.tags tbody tr")
    expect(row).to_contain_text("1 running")
    expect(row).to_contain_text("0.980000", timeout=40_000)
    expect(row).to_contain_text("the last run")
    expect(page.locator(".since-strip")).to_contain_text("0.980000")
    assert page.evaluate("window.here")


def test_since_is_chosen_and_stands_in_the_address(live: System, open_page: OpenPage) -> None:
    live.wait(live.submit(stub(0.98)))
    page = open_page(live.url)
    expect(page.locator("table.tags tbody tr")).to_contain_text("0.980000")
    page.get_by_label("1 h", exact=True).check()
    expect(page).to_have_url(f"{live.url}/?since=1h")
    expect(page.locator(".since-strip")).to_contain_text("1 h 00")
    page.reload()
    expect(page.get_by_label("1 h", exact=True)).to_be_checked()


def test_an_empty_system_tells_how_to_begin(system: System, open_page: OpenPage) -> None:
    system.serve()
    page = open_page(system.url)
    expect(page.get_by_text("No search yet")).to_be_visible()
    expect(page.locator(".command").first).to_contain_text("autoresearch setup")
    expect(page.get_by_text("autoresearch worker --gpu all")).to_be_visible()
    assert serious_violations(page) == []


def test_what_is_wrong_stands_on_top_and_leads_there(live: System, open_page: OpenPage) -> None:
    live.post("/api/pool/register", gpu_id="gpu-9", gpu_index=9, gpu_name="H100", vram_mb=80_000)
    live.post("/api/pool/heartbeat", gpu_id="gpu-9", quarantined=True, problem="Xid 79")
    page = open_page(live.url)
    alert = page.get_by_role("list", name="Alerts").get_by_role("listitem")
    expect(alert).to_have_text("Error: gpu-9quarantined: Xid 79")
    alert.get_by_role("link").click()
    expect(page.locator(".gpu:target")).to_contain_text("gpu-9")


def test_a_gpu_is_drained_and_taken_back_from_its_card(live: System, open_page: OpenPage) -> None:
    """With a reason, which the card then shows and the ledger keeps."""
    page = open_page(live.url)
    page.get_by_role("button", name="Drain cpu-0").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Drain", exact=True).click()
    expect(dialog).to_be_visible()  # a reason is wanted
    steer(page, "Drain", "new fan")
    expect(page.locator(".gpu")).to_contain_text("drained by human: new fan")
    assert live.get("/api/steer/ledger")["entries"][0]["reason"] == "new fan"
    waiting = live.submit(stub(0.98))
    page.get_by_role("button", name="Undrain cpu-0").click()
    steer(page, "Undrain", "the fan is in")
    live.wait(waiting)


def test_old_data_stays_while_the_service_cannot_answer(live: System, open_page: OpenPage) -> None:
    live.wait(live.submit(stub(0.98)))
    page = open_page(live.url, errors_allowed=True)
    row = page.locator("table.tags tbody tr")
    expect(row).to_contain_text("0.980000")
    problem = '{"detail": "Redis does not answer"}'
    page.route("**/api/report/overview*", lambda route: route.fulfill(status=503, body=problem))
    live.submit(stub(0.99))
    expect(page.get_by_text("Redis does not answer What you see is older.")).to_be_visible()
    expect(row).to_contain_text("0.980000")
    page.unroute("**/api/report/overview*")
    expect(page.get_by_text("What you see is older.")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(live: System, open_page: OpenPage, scheme: str) -> None:
    """No serious violation, wide and narrow; and nothing but tables scrolls sideways."""
    live.wait(live.submit(stub(0.98), hypothesis="baseline"))
    live.submit(stub(0.97, seconds=20), hypothesis="a long one")
    page = open_page(live.url, color_scheme=scheme)
    expect(page.locator(".gpu")).to_contain_text("a long one")
    assert serious_violations(page) == []
    if folder := screenshots():
        page.screenshot(path=folder / f"overview-{scheme}.png")
    page.set_viewport_size(PHONE)
    eventually(lambda: page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
    assert serious_violations(page) == []
    if folder := screenshots():
        page.screenshot(path=folder / f"overview-{scheme}-narrow.png", full_page=True)


def test_a_gpu_of_another_model_says_why_it_has_no_run(system: System, open_page: OpenPage) -> None:
    """On its card, on top of the page, and on the page of the run that waits."""
    system.serve()
    system.post("/api/experiment/setup", tag="mar11", gpu_model="NVIDIA H200")
    system.post(
        "/api/pool/register", gpu_id="small", gpu_index=0, gpu_name="NVIDIA L40S", vram_mb=48_000
    )
    body = {"tag": "mar11", "hypothesis": "h", "train_py": "x = 1\n"}
    waiting = system.post("/api/experiment/submit", **body)["experiment_id"]
    page = open_page(system.url)
    expect(page.locator(".gpu")).to_contain_text(
        "its model is NVIDIA L40S, and tag mar11 runs on NVIDIA H200"
    )
    why = "tag mar11 runs on NVIDIA H200; GPU small is of the model NVIDIA L40S"
    expect(page.get_by_role("list", name="Alerts")).to_contain_text(why)
    assert serious_violations(page) == []
    page = open_page(f"{system.url}/e/{waiting}")
    expect(page.get_by_role("main")).to_contain_text(f"waits at place 1 of the queue: {why}")
