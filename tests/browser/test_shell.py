"""What every page has: connection, theme, keys, addresses, errors."""

import httpx
import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import OpenPage
from tests.conftest import Api, MakeApi
from tests.e2e.conftest import System

pytestmark = pytest.mark.browser


def test_a_page_says_that_it_is_live(live: System, open_page: OpenPage) -> None:
    page = open_page(f"{live.url}/t/t")
    expect(page.locator(".connection")).to_have_text("Live")


def test_a_chosen_theme_outlives_a_reload_and_can_be_given_back(
    live: System, open_page: OpenPage
) -> None:
    """The system's, then light, then dark, then the system's again."""
    page = open_page(f"{live.url}/t/t", color_scheme="dark")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    assert page.evaluate(background) == "rgb(15, 19, 24)"
    page.locator("button.theme").click()
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.reload()
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.locator("button.theme").click()
    page.locator("button.theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") is None


def test_the_question_mark_lists_the_keys_and_switches_them_off(
    live: System, open_page: OpenPage
) -> None:
    page = open_page(f"{live.url}/t/t")
    expect(page.locator(".connection")).to_have_text("Live")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("This help")
    page.get_by_label("Switch single keys off").check()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.evaluate("localStorage.getItem('keys-off')") == "1"


def test_an_unknown_address_and_an_unknown_tag_say_so(live: System, open_page: OpenPage) -> None:
    page = open_page(f"{live.url}/t/none", errors_allowed=True)
    expect(page.get_by_role("alert")).to_contain_text("none")


def test_a_page_that_is_left_while_it_loads_does_not_come_up_later(
    live: System, open_page: OpenPage
) -> None:
    """Neither it nor its loading bars: back shows the page before."""
    page = open_page(f"{live.url}/t/t")
    expect(page.locator(".tag-page")).to_be_visible()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/static/compare/page.js", hold)
    page.keyboard.press("c")
    page.evaluate("history.back()")
    expect(page).to_have_url(f"{live.url}/t/t")
    expect(page.locator(".tag-page")).to_be_visible()
    page.wait_for_timeout(500)  # bars appear after 200 ms
    expect(page.locator(".tag-page")).to_be_visible()
    with page.expect_response("**/static/compare/table.js"):  # one that the page imports
        held[0].continue_()
    page.wait_for_timeout(300)
    expect(page.locator(".tag-page")).to_be_visible()


def test_a_page_says_that_the_orchestrator_is_gone(live: System, open_page: OpenPage) -> None:
    """Amber after 15 s of silence, with the time of the data that is shown."""
    page = open_page(f"{live.url}/t/t", errors_allowed=True)
    expect(page.locator(".connection")).to_have_text("Live")
    for process in live.processes:
        if "serve" in process.args:
            process.terminate()
            process.wait()
    assert not live.ready()
    page.clock.install()  # now: for a moment of it the time is 0, which a heartbeat would keep
    page.clock.fast_forward(16_000)
    expect(page.locator(".connection")).to_contain_text("Stale, data as of")
    page.clock.fast_forward(50_000)
    expect(page.locator(".connection")).to_contain_text("Disconnected, data as of")


def test_a_page_asks_for_the_token_once(system: System, open_page: OpenPage) -> None:
    """Without it there is nothing to see; with it everything is as if there were none."""
    system.environment["AUTORESEARCH_TOKEN"] = "s3cret"
    system.serve()
    headers = {"authorization": "Bearer s3cret"}
    httpx.post(f"{system.url}/api/experiment/setup", json={"tag": "t"}, headers=headers)
    page = open_page(f"{system.url}/t/t", errors_allowed=True)
    page.get_by_role("textbox", name="Token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("dialog")).to_contain_text("That is not the token.")
    page.get_by_role("textbox", name="Token").fill("s3cret")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".connection")).to_have_text("Live")
    page.reload()
    expect(page.get_by_role("heading", name="t", exact=True)).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_token_dialog_that_is_left_leaves_a_way_to_try_again(
    make_api: MakeApi, open_page: OpenPage
) -> None:
    page = open_page(make_api(token="s3cret").url, errors_allowed=True)
    expect(page.get_by_role("textbox", name="Token")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")  # a browser lets a page refuse the first alone
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("textbox", name="Token").fill("s3cret")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("autoresearch setup")).to_be_visible()


def test_words_of_an_address_that_mean_nothing_do_no_harm(api: Api, open_page: OpenPage) -> None:
    """A % without its code; a tab and an order that are names in every JavaScript object."""
    api.tag("t")
    run = api.submit("a = 1", "t")
    page = open_page(f"{api.url}/t/%E0%A4%A")
    expect(page.get_by_role("alert")).to_contain_text("There is no page at /t/%E0%A4%A")
    page.goto(f"{api.url}/e/{run}?tab=constructor")
    expect(page.get_by_role("tab", name="Diff")).to_have_attribute("aria-selected", "true")
    page.goto(f"{api.url}/t/t?sort=constructor")
    expect(page.locator("table.runs tbody tr")).to_have_count(1)
    expect(page.locator(".runs-panel .problem")).to_be_empty()
