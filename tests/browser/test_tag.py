"""The Tag page before a live system: every part of it, by pointer, keyboard and screen reader."""

import re
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import PHONE, OpenPage
from tests.conftest import Api
from tests.e2e.conftest import System, stub

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202egpj.exe \x1b[31mred"


def rows(page: Page) -> Locator:
    # Rows may be there before the page is shown, and what is hidden takes no focus.
    return page.locator("table.runs tbody tr:visible")


@pytest.fixture
def searched(live: System) -> System:
    """A tag with a baseline, two keeps, a near miss, two discards and a crash, reported by hand."""
    runs = (
        ("baseline", "other", 1.0), ("rope base 100k", "attention", 0.99),
        ("no bias", "simplification", 1.3), ("Muon momentum", "optimizer", 0.9905),
        ("wider", "architecture", None), ("z-loss", "regularization", 0.985),
        ("dropout", "regularization", 0.999),
    )  # fmt: skip
    for description, category, val_bpb in runs:
        idea = {
            "hypothesis": description, "description": description, "category": category,
            "commit_sha": "abcdef0", "diff_summary": "s",
        }  # fmt: skip
        made = live.post("/api/experiment/register", tag="t", **idea)["experiment_id"]
        if val_bpb is None:
            error = "RuntimeError: out of memory"
            live.post("/api/experiment/crash", experiment_id=made, error=error)
        else:
            live.post("/api/experiment/complete", experiment_id=made, val_bpb=val_bpb)
    return live


def query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_a_job_goes_from_queued_to_its_verdict_on_screen(live: System, open_page: OpenPage) -> None:
    """Without a reload: the row stays where it is and says what becomes of its run."""
    page = open_page(f"{live.url}/t/t")
    expect(page.get_by_text("No run yet")).to_be_visible()
    expect(page.locator("pre.command")).to_contain_text("autoresearch submit train.py --tag t")
    expect(page.locator(".connection")).to_have_text("Live")
    page.evaluate("window.reloaded = false")
    first = live.submit(stub(0.98, seconds=4, note="a"), hypothesis="baseline")
    second = live.submit(stub(0.97, seconds=4, note="b"), hypothesis="rope")
    mine = page.locator(f'tr[data-id="{first}"]')
    expect(mine.locator(".status")).to_have_text("running", timeout=20_000)
    expect(page.locator(f'tr[data-id="{second}"] .status')).to_have_text("queued")
    expect(mine.locator(".status")).to_have_text("keep", timeout=30_000)
    expect(mine).to_contain_text("0.980000")
    expect(page.locator(f'tr[data-id="{second}"] .status')).to_have_text("keep", timeout=30_000)
    expect(page.locator(".verdict .best .big")).to_have_text("0.970000")
    expect(page.locator(".plot .keeps circle")).to_have_count(2)
    expect(page.locator(".summary")).to_contain_text("2 runs decided: 2 kept")
    assert page.evaluate("window.reloaded") is False


def test_a_source_that_ran_twice_draws_the_band_of_chance(
    live: System, open_page: OpenPage
) -> None:
    """Unknown before; from then on as wide as two runs of one source differ."""
    source = stub(0.98).replace("measured(BPB)", "BPB += time.time() % 0.001\nmeasured(BPB)")
    live.wait(live.submit(source))
    page = open_page(f"{live.url}/t/t")
    expect(page.locator(".legend")).to_contain_text("noise unknown")
    expect(page.locator(".plot rect.noise")).to_have_count(0)
    live.wait(live.submit(source, repeat=True))
    expect(page.locator(".legend")).to_contain_text(re.compile(r"noise ±0\.00\d{4}"))
    expect(page.locator(".plot rect.noise")).to_have_count(1)


def test_the_strip_answers_how_it_goes(searched: System, open_page: OpenPage) -> None:
    page = open_page(f"{searched.url}/t/t")
    strip = page.locator(".verdict")
    expect(strip).to_contain_text("0.985000")
    expect(strip).to_contain_text("−0.015000 vs baseline 1.000000")
    expect(strip).to_contain_text("#6")
    expect(strip).to_contain_text("1 run ago")
    expect(strip).to_contain_text("3 keep · 3 discard · 1 crash")
    expect(strip).to_contain_text("3 keep · 1 crash (14%)")
    expect(strip).to_contain_text("exploit")
    expect(strip).to_contain_text("3 of the last 7 were kept: go on in this direction")


def test_the_last_hour_goes_on_without_events(api: Api, open_page: OpenPage) -> None:
    """Nor does it need an answer: the orchestrator is gone."""
    api.complete(api.register(api.tag("t")), 1.0)
    page = open_page("about:blank", errors_allowed=True)
    page.clock.install(time=datetime.now(UTC))
    page.goto(f"{api.url}/t/t")
    hour = page.locator(".verdict > div", has_text="Last hour")
    expect(hour).to_contain_text("1 keep")
    expect(page.locator(".connection")).to_have_text("Live")
    api.stop()
    page.clock.fast_forward("01:01:00")
    expect(hour).to_contain_text("nothing was decided")


def test_the_chart_names_keeps_and_shows_what_lies_above_and_what_crashed(
    searched: System, open_page: OpenPage
) -> None:
    page = open_page(f"{searched.url}/t/t")
    names = page.locator(".plot .names text")
    expect(names.filter(has_text="baseline")).to_have_count(1)
    expect(names.filter(has_text="z-loss −0.005000")).to_have_count(1)
    expect(page.locator(".plot")).to_contain_text("▲ 1")
    assert page.locator(".plot .best-line").get_attribute("d")
    page.get_by_role("radio", name="All").check()
    expect(page.locator(".plot")).not_to_contain_text("▲")
    assert query(page) == {"fit": ["all"]}
    for axis in ("time", "log", "order"):
        page.get_by_role("radio", name=axis).check()
        expect(names.filter(has_text="baseline")).to_have_count(1)
    assert query(page)["x"] == ["order"]


def test_no_name_lies_on_another_or_on_a_dot(searched: System, open_page: OpenPage) -> None:
    for size in ({"width": 1440, "height": 900}, PHONE):
        page = open_page(f"{searched.url}/t/t", viewport=size)
        expect(page.locator(".plot .names text").first).to_be_visible()
        boxes = page.locator(".plot .names text").evaluate_all(
            "all => all.map(e => e.getBBox()).map(b => [b.x, b.y, b.x + b.width, b.y + b.height])"
        )
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] + 1 or b[3] <= a[1] + 1


def test_the_chart_is_a_slider_over_runs(searched: System, open_page: OpenPage) -> None:
    """Arrows step from run to run, with shift from keep to keep; Enter opens."""
    page = open_page(f"{searched.url}/t/t")
    chart = page.get_by_role("slider", name="Runs in the order of verdicts")
    chart.focus()
    expect(chart).to_have_attribute("aria-valuenow", "6")
    page.keyboard.press("ArrowLeft")
    expect(chart).to_have_attribute("aria-valuetext", "Run 5, crash, architecture")
    page.keyboard.press("Shift+ArrowLeft")
    text = "Run 2, keep, 0.990000, −0.010000 against the best then, attention"
    expect(chart).to_have_attribute("aria-valuetext", text)
    expect(page.locator(".tip")).to_contain_text("rope base 100k")
    page.keyboard.press("End")
    expect(page.locator(".tip")).to_contain_text("dropout")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/e/exp-"))


def test_the_pointer_finds_the_nearest_run_and_a_drag_zooms(
    searched: System, open_page: OpenPage
) -> None:
    page = open_page(f"{searched.url}/t/t")
    dots = page.locator(".plot .keeps circle")
    expect(dots).to_have_count(3)
    while not (dot_box := dots.nth(1).bounding_box()):  # none while the chart is drawn again
        page.wait_for_timeout(50)
    page.mouse.move(dot_box["x"] + 4, dot_box["y"] + 6)
    expect(page.locator(".tip")).to_contain_text("0.990000")
    plot = page.locator(".plot").bounding_box()
    assert plot
    middle = plot["y"] + 150
    page.mouse.move(plot["x"] + plot["width"] * 0.6, middle)
    page.mouse.down()
    page.mouse.move(plot["x"] + plot["width"] * 0.97, middle, steps=4)
    page.mouse.up()
    expect(page.locator(".plot .keeps circle")).to_have_count(1)
    searched.submit(stub(0.9, note="after"), hypothesis="comes while zoomed")
    expect(page.locator(".verdict .best .big")).to_have_text("0.900000", timeout=30_000)
    expect(page.get_by_role("button", name="Reset zoom")).to_be_visible()
    page.get_by_role("button", name="Reset zoom").click()
    expect(page.locator(".plot .keeps circle")).to_have_count(4)


def test_the_chart_has_a_table_and_words(searched: System, open_page: OpenPage) -> None:
    page = open_page(f"{searched.url}/t/t")
    expect(page.locator(".summary")).to_have_text(
        "7 runs decided: 3 kept, 3 discarded, 1 crashed. Best 0.985000, −0.015000 against the "
        "baseline 1.000000, reached by run 6, 1 run ago. Keep rule greedy."
    )
    page.get_by_role("button", name="Table", exact=True).click()
    expect(page.locator(".keeps-table tbody tr")).to_have_count(3)
    expect(page.locator(".plot")).to_be_hidden()
    page.get_by_role("button", name="Table", exact=True).click()
    expect(page.locator(".plot .keeps circle")).to_have_count(3)


def test_filters_search_and_order_are_in_the_address(searched: System, open_page: OpenPage) -> None:
    """Filters replace the history's entry; what is in the address is what is shown."""
    page = open_page(f"{searched.url}/t/t")
    expect(rows(page)).to_have_count(7)
    page.get_by_role("button", name="keep 3").click()
    expect(rows(page)).to_have_count(3)
    page.get_by_role("button", name="val_bpb").click()
    expect(rows(page).first).to_contain_text("0.985000")
    assert query(page) == {"status": ["keep"], "sort": ["val_bpb"]}
    page.get_by_role("button", name="val_bpb").click()
    expect(rows(page).first).to_contain_text("1.000000")
    page.get_by_role("searchbox").fill("ROPE")
    expect(rows(page)).to_have_count(1)
    expect(page.locator(".runs-panel header")).to_contain_text("1 found in 3 of 3")
    page.reload()
    expect(rows(page)).to_have_count(1)
    expect(page.get_by_role("searchbox")).to_have_value("ROPE")
    page.get_by_role("button", name="Clear").click()
    expect(rows(page)).to_have_count(6)  # in order of val_bpb a crash has no place
    page.get_by_label("Category", exact=True).select_option("regularization")
    expect(rows(page)).to_have_count(2)
    expect(page.locator(".runs-panel header")).to_contain_text("2 of 7 match")
    page.get_by_role("searchbox").fill("nowhere")
    expect(page.get_by_text("Nothing among 2 runs mentions “nowhere”.")).to_be_visible()


def test_what_is_under_way_is_counted_by_its_own_number(api: Api, open_page: OpenPage) -> None:
    """It is none of the decided runs."""
    api.tag("t")
    api.gpu("gpu-0")
    for value in (1.0, 1.1):
        api.complete(api.register("t"), value)
    for number in range(3):
        api.submit(f"a = {number}", "t")
    api.claim("gpu-0")
    page = open_page(f"{api.url}/t/t")
    for address, shown, words in (
        ("?status=queued", 2, "2 of 2 queued"),
        ("?status=queued,running", 3, "3 of 3 running or queued"),
        ("?status=keep,queued", 3, "1 of 2 match, 2 of 2 queued"),
        ("?status=queued&sort=val_bpb", 0, "0 of 2 queued"),
        ("", 5, "5 of 5"),
    ):
        page.goto(f"{api.url}/t/t{address}")
        expect(page.locator(".runs-panel [role=status]")).to_have_text(words)
        expect(rows(page)).to_have_count(shown)


def test_a_search_that_is_left_while_typing_stays_with_its_page(
    searched: System, open_page: OpenPage
) -> None:
    """The field waits for the typing to rest: by then the person may be on another page."""
    page = open_page(f"{searched.url}/t/t")
    expect(rows(page)).to_have_count(7)
    page.keyboard.press("/")
    page.keyboard.type("rope")
    page.keyboard.press("Escape")  # leaving the field is the end of typing
    page.keyboard.press("c")
    expect(page).to_have_url(f"{searched.url}/compare")
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("rope")
    assert query(page) == {"q": ["rope"]}
    expect(rows(page)).to_have_count(1)
    # Forward leaves the page with the field still focused, before the typing has rested.
    page.clock.install()
    page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))
    page.keyboard.press("/")
    page.keyboard.type("s")
    page.go_forward()
    expect(page.get_by_role("heading", name="Compare")).to_be_visible()
    page.clock.run_for(1000)
    expect(page).to_have_url(f"{searched.url}/compare")


def test_the_side_tells_what_worked(searched: System, open_page: OpenPage) -> None:
    page = open_page(f"{searched.url}/t/t")
    table = page.locator("table.categories tbody tr")
    expect(table.nth(0)).to_contain_text("attention")
    expect(table.nth(0)).to_contain_text("−0.010000")
    expect(page.get_by_role("region", name="Near misses")).to_contain_text("Muon momentum")
    expect(page.get_by_role("region", name="Near misses")).to_contain_text("+0.005500")
    lineage = page.get_by_role("region", name="Lineage").get_by_role("listitem")
    expect(lineage).to_have_count(3)
    expect(lineage.nth(0)).to_contain_text("z-loss")
    expect(lineage.nth(1)).to_contain_text("1 discarded · 1 near · 1 crashed")
    page.get_by_role("button", name="optimizer").click()
    expect(rows(page)).to_have_count(1)
    assert query(page) == {"cat": ["optimizer"]}


def test_a_choice_of_strategy_appears_with_its_reason(
    searched: System, open_page: OpenPage
) -> None:
    page = open_page(f"{searched.url}/t/t")
    expect(page.locator(".choices li")).to_have_count(2)
    searched.post("/api/search/set-strategy", tag="t", mode="combine", reason="join the two")
    expect(page.locator(".choices li").first).to_contain_text("combine")
    expect(page.locator(".choices li").first).to_contain_text("join the two")
    expect(page.locator(".verdict")).to_contain_text("pinned")


def test_rows_are_walked_picked_and_compared_by_keys(searched: System, open_page: OpenPage) -> None:
    page = open_page(f"{searched.url}/t/t", errors_allowed=True)
    expect(rows(page)).to_have_count(7)
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.get_by_role("link", name="Compare (2)")).to_be_visible()
    expect(page.locator("tr.chosen")).to_have_count(2)
    page.keyboard.press("/")
    page.keyboard.type("jx")  # keys are text in a field
    expect(page.get_by_role("searchbox")).to_have_value("jx")
    expect(page.locator("nav").get_by_text("Compare (2)")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    expect(page).to_have_url(re.compile(r"/compare\?ids=exp-"))
    page.go_back()
    expect(page.locator(".plot .keeps circle")).to_have_count(3)
    page.keyboard.press("b")
    expect(page).to_have_url(re.compile("/e/exp-"))


def test_news_do_not_move_what_is_being_read(searched: System, open_page: OpenPage) -> None:
    """With the focus in the table new runs are announced, not put in, however late the chart is."""
    page = open_page(f"{searched.url}/t/t")
    expect(rows(page)).to_have_count(7)
    page.keyboard.press("j")
    page.route("**/api/report/series*", lambda _: None)
    searched.wait(searched.submit(stub(0.9, note="new"), hypothesis="newest idea"))
    fresh = page.get_by_role("button", name="1 new run")
    expect(fresh).to_be_visible(timeout=30_000)
    expect(rows(page).first).to_contain_text("dropout")
    fresh.click()
    expect(rows(page).first).to_contain_text("newest idea")


def test_hostile_text_is_text(live: System, open_page: OpenPage) -> None:
    """Nothing that an agent writes becomes markup, turns the reading direction or hides."""
    live.submit(stub(0.98), hypothesis=HOSTILE, category="<b>bold</b>")
    page = open_page(f"{live.url}/t/t")
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    expect(rows(page).first).to_contain_text("0.980000", timeout=30_000)
    expect(rows(page).first).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("main img, main script, main b:has-text('bold')").count() == 0
    text = page.locator("main").inner_text()
    assert "\u202e" not in text
    assert "\x1b" not in text
    page.get_by_role("slider").focus()
    expect(page.locator(".tip")).to_contain_text("<img src=x")


def test_a_narrow_window_scrolls_nothing_sideways(searched: System, open_page: OpenPage) -> None:
    """Tables scroll within themselves; at most three keeps are named."""
    page = open_page(f"{searched.url}/t/t", viewport=PHONE)
    expect(page.locator(".plot .names text").first).to_be_visible()
    assert page.locator(".plot .names text").count() <= 3
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_open_page_asks_for_nothing_while_nothing_happens(
    searched: System, open_page: OpenPage
) -> None:
    page = open_page(f"{searched.url}/t/t")
    expect(rows(page)).to_have_count(7)
    expect(page.locator(".connection")).to_have_text("Live")
    time.sleep(3)  # what the opening of the stream makes it ask for
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    time.sleep(12)
    assert asked == []
