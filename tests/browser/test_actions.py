"""The Actions page: each action with its effect, its reason, and its line in the ledger."""

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.axe import serious_violations
from tests.browser.conftest import PHONE, OpenPage, screenshots
from tests.browser.test_overview import steer
from tests.conftest import Api
from tests.e2e.conftest import System, eventually, stub

pytestmark = pytest.mark.browser


def ledger(page: Page) -> Locator:
    """The newest line."""
    return page.get_by_role("region", name="Ledger").locator("tbody tr").first


def refuse(page: Page, address: str, detail: str) -> None:
    """From now on the service answers so."""
    page.route(address, lambda route: route.fulfill(status=503, json={"detail": detail}))


def entries(live: System) -> list[Any]:
    return [entry["action"] for entry in live.get("/api/steer/ledger")["entries"]]


def test_a_tag_is_paused_and_goes_on(live: System, open_page: OpenPage) -> None:
    """The dialog says the effect first; a run that is submitted meanwhile waits."""
    page = open_page(f"{live.url}/actions?tag=t")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("dialog")).to_contain_text("No further run of it starts")
    steer(page, "Pause", "lunch")
    expect(page.get_by_text("Paused", exact=True)).to_be_visible()
    expect(ledger(page)).to_contain_text("lunch")
    run = live.submit(stub(0.98), hypothesis="waits")
    expect(page.get_by_role("row", name="waits")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    steer(page, "Resume", "back")
    live.wait(run)
    expect(page.get_by_text("Goes on", exact=True)).to_be_visible()
    expect(page.get_by_text("Nothing runs and nothing waits.")).to_be_visible()


def test_the_mode_is_pinned_and_released(live: System, open_page: OpenPage) -> None:
    page = open_page(f"{live.url}/actions?tag=t")
    page.get_by_role("button", name="Set and pin").click()
    page.get_by_role("dialog").get_by_label("Mode").select_option("combine")
    steer(page, "Set and pin", "two near misses")
    expect(page.get_by_text("Mode: combine")).to_be_visible()
    assert live.get("/api/search/strategy", tag="t")["pinned"] is True
    page.get_by_role("button", name="Release").click()
    steer(page, "Release", "enough")
    expect(page.get_by_text("adapts by itself")).to_be_visible()
    assert live.get("/api/search/strategy", tag="t")["pinned"] is False
    assert entries(live)[:2] == ["set-strategy", "set-strategy"]


def test_a_note_reaches_the_agents_and_is_dropped(live: System, open_page: OpenPage) -> None:
    page = open_page(f"{live.url}/actions?tag=t")
    page.get_by_role("button", name="Leave a note").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Note").fill("Leave the tokenizer alone.\nThe <b>data</b> is fixed.")
    dialog.get_by_label("By").fill("ada")
    dialog.get_by_role("button", name="Leave the note").click()
    note = page.locator(".notes li")
    expect(note).to_contain_text("The <b>data</b> is fixed.")
    expect(note).to_contain_text("ada")
    told = live.get("/api/search/suggest", tag="t")["notes"]
    assert told[0]["text"].startswith("Leave the tokenizer")
    note.get_by_role("button").click()
    page.get_by_role("dialog").get_by_role("button", name="Drop the note").click()
    expect(note).to_have_count(0)
    assert live.get("/api/search/suggest", tag="t")["notes"] == []
    expect(ledger(page)).to_contain_text("ada")  # who acted last is who acts now


def test_runs_are_steered_where_they_are_listed(live: System, open_page: OpenPage) -> None:
    """Priority and cancel of a queued one, requeue and stop of a running one."""
    running = live.submit(stub(0.98, seconds=60), hypothesis="long")
    live.training(running)
    live.submit(stub(0.97), hypothesis="second")
    page = open_page(f"{live.url}/actions?tag=t")
    page.get_by_role("button", name="Priority: second").click()
    page.get_by_role("dialog").get_by_label("Priority").fill("7")
    steer(page, "Change it", "urgent")
    expect(ledger(page)).to_contain_text("urgent")
    page.get_by_role("button", name="Cancel: second").click()
    steer(page, "Take it out", "not urgent")
    expect(page.get_by_role("row", name="second")).to_have_count(0)
    page.get_by_role("button", name="Requeue: long").click()
    steer(page, "Give it back", "again")
    eventually(lambda: len(live.get(f"/api/experiment/{running}")["attempts"]) == 2)
    page.get_by_role("button", name="Stop: long").click()
    steer(page, "Stop the run", "enough")
    expect(page.get_by_text("Nothing runs and nothing waits.")).to_be_visible()
    assert entries(live)[:4] == ["cancel", "requeue", "cancel", "priority"]


def test_the_best_is_run_once_more(live: System, open_page: OpenPage) -> None:
    live.wait(live.submit(stub(0.98)))
    page = open_page(f"{live.url}/actions?tag=t")
    page.get_by_role("button", name="Run the best once more").click()
    steer(page, "Run it once more", "noise")
    eventually(lambda: live.get("/api/experiment/history", tag="t")["total"] == 2)
    expect(ledger(page)).to_contain_text("noise")


def test_a_gpu_is_drained_and_taken_back(live: System, open_page: OpenPage) -> None:
    """The ledger of all tags has the actions on the pool."""
    page = open_page(f"{live.url}/actions?tag=t")
    page.get_by_role("button", name="Drain cpu-0").click()
    steer(page, "Drain", "new fan")
    expect(page.get_by_role("button", name="Undrain cpu-0")).to_be_visible()
    page.get_by_label("all tags and GPUs").check()
    expect(ledger(page)).to_contain_text("new fan")
    page.get_by_role("button", name="Undrain cpu-0").click()
    steer(page, "Undrain", "done")
    expect(ledger(page)).to_contain_text("undrain")


def test_a_refusal_is_shown_where_it_was_asked(live: System, open_page: OpenPage) -> None:
    """The run ended while the dialog was open: what the service says stays to be read."""
    run = live.submit(stub(0.98, seconds=60), hypothesis="long")
    live.training(run)
    page = open_page(f"{live.url}/actions?tag=t", errors_allowed=True)
    page.get_by_role("button", name="Requeue: long").click()
    problem = '{"detail": "It is over."}'
    page.route("**/requeue", lambda route: route.fulfill(status=409, body=problem))
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("again")
    dialog.get_by_role("button", name="Give it back").click()
    expect(dialog.get_by_role("alert")).to_have_text("It is over.")
    dialog.get_by_role("button", name="Leave it").click()
    expect(dialog).to_have_count(0)


def test_a_priority_is_asked_for_as_it_is_now(api: Api, open_page: OpenPage) -> None:
    """Neither as the list has it nor as it was when the page was loaded."""
    api.tag("t")
    run = api.submit("a = 1", "t", hypothesis="second")
    page = open_page(f"{api.url}/actions?tag=t", errors_allowed=True)
    for address, before, after in (
        ("/actions?tag=t", "0", "7"), ("/actions?tag=t", "7", "5"),
        (f"/e/{run}", "5", "3"), (f"/e/{run}", "3", "1"),
    ):  # fmt: skip
        if not page.url.endswith(address):
            page.goto(api.url + address)
        button = page.get_by_role("button", name="Priority")
        button.evaluate("button => (button.click(), button.click())")  # one dialog all the same
        field = page.get_by_role("dialog").get_by_label("Priority")
        expect(field).to_have_value(before)
        field.fill(after)
        steer(page, "Change it", "urgent")
    refuse(page, f"**/api/experiment/{run}", "Redis is away.")
    page.get_by_role("button", name="Priority").click()
    expect(page.locator(".toast", has_text="Redis is away.")).to_be_visible()


def test_a_ledger_that_cannot_be_read_says_so(api: Api, open_page: OpenPage) -> None:
    api.tag("t")
    for number in range(51):
        api.post(f"/api/steer/{'resume' if number % 2 else 'pause'}", tag="t", reason="r")
    page = open_page(f"{api.url}/actions?tag=t", errors_allowed=True)
    expect(ledger(page)).to_be_visible()
    refuse(page, "**/api/steer/ledger?*", "Redis is away.")
    page.get_by_role("button", name="Older").click()
    expect(page.locator(".toast", has_text="Redis is away.")).to_be_visible()
    refuse(page, "**/api/steer/ledger?*", "Still away.")
    page.get_by_label("all tags and GPUs").check()
    expect(page.locator(".toast", has_text="Still away.")).to_be_visible()


def test_after_a_dialog_the_focus_is_where_it_was(api: Api, open_page: OpenPage) -> None:
    """On the button that has taken the opener's place, and not on one of another row."""
    api.tag("t")
    api.gpu("gpu-0", 0)
    api.gpu("gpu-1", 1)
    page = open_page(f"{api.url}/actions?tag=t")

    def ask(name: str) -> Locator:
        page.get_by_role("button", name=name).press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        return page.get_by_role("button", name=name)

    pause = ask("Pause")
    api.submit("a = 1", "t")
    expect(page.locator(".actions-grid")).to_contain_text("0 running, 1 queued.")
    page.keyboard.press("Escape")
    expect(pause).to_be_focused()
    drain = ask("Drain gpu-1")
    api.claim("gpu-1")
    expect(page.locator(".gpu-rows")).to_contain_text("training")
    page.keyboard.press("Escape")
    expect(drain).to_be_focused()


def test_an_unknown_tag_is_not_another_one(api: Api, open_page: OpenPage) -> None:
    """Nothing of the first tag is offered in its place; the choice of tags is."""
    api.tag("t")
    page = open_page(f"{api.url}/actions?tag=nosuch")
    expect(page.get_by_text("There is no tag nosuch")).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    page.get_by_label("Tag", exact=True).select_option("t")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(page.get_by_text("There is no tag")).to_have_count(0)
    assert page.url.endswith("/actions?tag=t")


def test_nothing_to_steer_says_how_to_begin(system: System, open_page: OpenPage) -> None:
    system.serve()
    page = open_page(f"{system.url}/actions")
    expect(page.get_by_text("No search to steer yet")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(live: System, open_page: OpenPage, scheme: str) -> None:
    """The page and its dialog."""
    live.post("/api/steer/note", tag="t", text="a note")
    live.submit(stub(0.98, seconds=60), hypothesis="long")
    page = open_page(f"{live.url}/actions?tag=t", color_scheme=scheme)
    expect(page.get_by_role("row", name="long")).to_be_visible()
    assert serious_violations(page) == []
    if folder := screenshots():
        page.screenshot(path=folder / f"actions-{scheme}.png")
    page.get_by_role("button", name="Stop: long").click()
    assert serious_violations(page) == []
    page.get_by_role("button", name="Leave it").click()
    page.set_viewport_size(PHONE)
    eventually(lambda: page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
    assert serious_violations(page) == []
