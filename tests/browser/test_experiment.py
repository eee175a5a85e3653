"""The experiment's page: live up to the verdict, and what it says of it."""

import re
from functools import partial

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.axe import serious_violations
from tests.browser.conftest import PHONE, OpenPage, screenshots
from tests.browser.test_overview import steer
from tests.conftest import Api
from tests.e2e.conftest import System, eventually, stub

pytestmark = pytest.mark.browser

CRASH = """
import sys
for number in range(100):
    print(f"line {number}")
raise RuntimeError("shape [16, 6] is invalid")
"""

COUNTING = """
import sys, time
from autoresearch_run import measured
for number in range(300):
    print(f"counted {number:04d}", flush=True)
    time.sleep(0.01)
measured(0.99)
print("---\\nval_bpb: 0.99")
"""

# Everything that a run may write to mislead who reads it.
HOSTILE = r"""
import sys
from autoresearch_run import measured
out = sys.stdout.buffer
out.write(b"A" * (50 * 1024 * 1024) + b"\n")
out.write(b"\x1b[2J\x1b[31mred\x1b[0m \x07\x9b31m\n")
out.write("abc\u202egnp.exe\u2066 zero\u200bwidth\n".encode())
out.write(b"broken \xff\xfe\xc3( utf-8\n")
out.write(b"<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>\n")
out.write(b"old text\rnew text\n")
measured(0.97)
out.write(b"---\nval_bpb: 0.000001\n---\nval_bpb: 0.97\n")
out.flush()
"""


def verdict(page: Page, text: str) -> None:
    """The sentence says `text`, soon: a worker may be starting, a run ending."""
    expect(page.get_by_role("heading", level=1)).to_contain_text(text, timeout=25_000)


def test_a_run_is_followed_from_queue_to_verdict(system: System, open_page: OpenPage) -> None:
    """Queued, running with its progress, then kept: one page, never loaded again."""
    system.serve()
    system.post("/api/experiment/setup", tag="t", time_budget_seconds=20)
    run = system.submit(stub(0.98, seconds=4), hypothesis="a wider MLP")
    page = open_page(f"{system.url}/e/{run}")
    verdict(page, "queued: waits at place 1 of the queue")
    page.evaluate("window.here = true")
    system.worker()
    verdict(page, "running: ")
    expect(page.get_by_label("Progress of the training")).to_be_visible()
    expect(page.locator(".tabbed pre.log")).to_contain_text("step")
    verdict(page, "#1 keep: 0.980000 is the first result: the baseline")
    expect(page.get_by_text("a wider MLP")).to_be_visible()
    expect(page.locator(".tabbed pre.log")).to_contain_text("val_bpb: 0.980000")
    assert page.evaluate("window.here")


def test_the_sentence_measures_against_the_best_then(live: System, open_page: OpenPage) -> None:
    """A near miss, a keep, and a tie, each with its distance from the best when it was decided."""
    runs = {}
    for value in (0.98, 0.981, 0.97, 0.97):
        runs[len(runs)] = run = live.submit(stub(value, note=str(len(runs))))
        live.wait(run)
    page = open_page(f"{live.url}/e/{runs[1]}")
    verdict(page, "#2 discard: 0.981000 missed 0.980000 (best then) by +0.001000, a near miss")
    expect(page.locator(".sure")).to_have_text("noise unknown")
    page.keyboard.press("ArrowRight")
    verdict(page, "#3 keep: 0.970000 beat 0.980000 (best then) by −0.010000")
    page.keyboard.press("ArrowRight")
    verdict(page, "equals the best then")
    page.keyboard.press("Shift+ArrowLeft")
    verdict(page, "#3 keep")
    page.keyboard.press("Shift+ArrowLeft")
    verdict(page, "#1 keep")
    page.keyboard.press("b")
    verdict(page, "#3 keep")
    row = page.get_by_role("row", name="val_bpb")
    expect(row).to_contain_text("−0.010000")
    page.keyboard.press("p")
    verdict(page, "#1 keep")


def test_repeats_tell_what_is_noise(live: System, open_page: OpenPage) -> None:
    first = live.submit(stub(0.98))
    live.wait(first)
    live.wait(live.submit(stub(0.98), repeat=True))
    far = live.submit(stub(0.97))
    live.wait(far)
    page = open_page(f"{live.url}/e/{far}")
    expect(page.locator(".sure")).to_have_text("outside noise")


def test_a_crash_leads_with_its_error_and_its_last_lines(live: System, open_page: OpenPage) -> None:
    run = live.submit(CRASH)
    live.wait(run)
    page = open_page(f"{live.url}/e/{run}")
    verdict(page, "crash: RuntimeError: shape [16, 6] is invalid")
    lead = page.get_by_role("region", name="The crash")
    expect(lead).to_contain_text("line 99")
    expect(lead).not_to_contain_text("line 50")
    expect(page.get_by_role("tab", name="Log")).to_have_attribute("aria-selected", "true")


def test_a_killed_run_is_told_by_its_cause(live: System, open_page: OpenPage) -> None:
    """Not by the last line of its output; on its page and in the table of runs."""
    run = live.submit("import os\nprint('my last words', flush=True)\nos.kill(os.getpid(), 9)")
    live.wait(run)
    page = open_page(f"{live.url}/e/{run}")
    verdict(page, "crash: killed by SIGKILL, likely out of memory")
    page.goto(f"{live.url}/t/t")
    expect(page.locator(f'tr[data-id="{run}"] .error')).to_contain_text("killed by SIGKILL")


def test_tabs_by_key_and_by_address(live: System, open_page: OpenPage) -> None:
    """d, l, s, r; the address keeps the tab and the line."""
    parent = live.submit("# one\n" + stub(0.98))
    live.wait(parent)
    child = live.submit("# two\n" + stub(0.98))
    live.wait(child)
    page = open_page(f"{live.url}/e/{child}")
    code = page.get_by_role("tabpanel")
    expect(code).to_contain_text("+1 −1 lines")
    expect(code.locator("tr.removed")).to_contain_text("# one")
    expect(code.locator("tr.added")).to_contain_text("# two")
    page.keyboard.press("s")
    expect(code.locator("tr").first).to_contain_text("# two")
    expect(page).to_have_url(re.compile("tab=source"))
    page.keyboard.press("l")
    expect(code).to_contain_text("val_bpb: 0.980000")
    page.keyboard.press("r")
    expect(code).to_contain_text('"hypothesis": "h"')
    page.goto(f"{live.url}/e/{child}?tab=source&line=4")
    expect(code.locator("tr.aimed .no")).to_have_attribute("data-no", "4")
    page.keyboard.press("d")
    expect(code).to_contain_text("+1 −1 lines")


def test_the_log_is_followed_and_nothing_of_it_is_lost(live: System, open_page: OpenPage) -> None:
    run = live.submit(COUNTING)
    page = open_page(f"{live.url}/e/{run}?tab=log")
    verdict(page, "keep")
    log = page.locator(".tabbed pre.log")
    expect(log).to_contain_text("val_bpb: 0.99")
    counted = re.findall(r"counted (\d{4})", log.inner_text())
    assert counted == [f"{number:04d}" for number in range(300)]


def test_a_hostile_log_shows_and_does_nothing(live: System, open_page: OpenPage) -> None:
    """A line of 50 MB, escapes, turned text, broken UTF-8, markup, a false result: all is text."""
    run = live.submit(HOSTILE)
    live.wait(run)
    page = open_page(f"{live.url}/e/{run}?tab=log")
    log = page.locator(".tabbed pre.log")
    expect(log).to_contain_text("␛[31mred␛[0m ␇")
    expect(log).to_contain_text("abc⟨U+202E⟩gnp.exe⟨U+2066⟩ zero⟨U+200B⟩width")
    expect(log).to_contain_text("broken \ufffd\ufffd\ufffd( utf-8")
    expect(log).to_contain_text("<script>window.owned = 1</script>")
    expect(log).to_contain_text("new text ⟲ 1")
    expect(log).not_to_contain_text("old text")
    text = page.locator("body").inner_text()
    assert not re.search("[\x1b\x07\u202a-\u202e\u2066-\u2069\u200b]", text)
    assert page.evaluate("window.owned") is None
    assert len(text) < 400_000
    expect(page.get_by_text("the last 256 KiB of")).to_be_visible()
    verdict(page, "0.970000")


def test_a_running_run_is_stopped(live: System, open_page: OpenPage) -> None:
    run = live.submit(stub(0.98, seconds=60))
    live.training(run)
    page = open_page(f"{live.url}/e/{run}")
    page.get_by_role("button", name="Stop", exact=True).click()
    steer(page, "Stop the run", "it goes nowhere")
    verdict(page, "cancelled")
    assert live.get("/api/steer/ledger", tag="t")["entries"][0]["action"] == "cancel"


def test_a_running_run_is_given_back_and_runs_again(live: System, open_page: OpenPage) -> None:
    run = live.submit(stub(0.98, seconds=9))
    live.training(run)
    page = open_page(f"{live.url}/e/{run}")
    page.get_by_role("button", name="Requeue").click()
    steer(page, "Give it back", "wrong GPU")
    verdict(page, "keep")
    expect(page.locator(".attempts li")).to_have_count(2)


def test_a_queued_run_gets_another_priority_and_is_cancelled(
    live: System, open_page: OpenPage
) -> None:
    live.training(live.submit(stub(0.98, seconds=60)))
    live.submit(stub(0.97))
    run = live.submit(stub(0.96))
    page = open_page(f"{live.url}/e/{run}")
    verdict(page, "queued: waits at place 2")
    page.get_by_role("button", name="Priority").click()
    page.get_by_role("dialog").get_by_label("Priority").fill("5")
    steer(page, "Change it", "it looks good")
    verdict(page, "queued: waits at place 1 of the queue, priority 5")
    page.get_by_role("button", name="Cancel", exact=True).click()
    steer(page, "Take it out", "second thoughts")
    verdict(page, "cancelled")


def test_a_finished_run_is_run_once_more(live: System, open_page: OpenPage) -> None:
    """The page goes to the repeat, which names what it repeats."""
    run = live.submit(stub(0.98))
    live.wait(run)
    page = open_page(f"{live.url}/e/{run}")
    page.get_by_role("button", name="Run it once more").click()
    steer(page, "Run it once more", "how much is noise?")
    expect(page).not_to_have_url(re.compile(run))
    verdict(page, "equals the best then")
    expect(page.locator(".facts").get_by_role("link", name="#1").first).to_be_visible()


def test_a_hand_run_says_that_its_source_is_not_here(live: System, open_page: OpenPage) -> None:
    """It asks for none either: a page whose request fails would log an error, which fails this."""
    idea = {
        "hypothesis": "z-loss", "description": "z-loss", "category": "regularization",
        "commit_sha": "abcdef0", "diff_summary": "adds 1e-4 z",
    }  # fmt: skip
    first, second = (
        live.post("/api/experiment/register", tag="t", **idea)["experiment_id"] for _ in range(2)
    )
    live.post("/api/experiment/complete", experiment_id=first, val_bpb=1.0)
    live.post("/api/experiment/complete", experiment_id=second, val_bpb=0.99)
    page = open_page(f"{live.url}/e/{second}")
    expect(page.get_by_role("tabpanel")).to_contain_text("train.py was not sent here")
    expect(page.get_by_role("tabpanel")).to_contain_text("Its author says: adds 1e-4 z")
    page.get_by_role("tab", name="Source").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("train.py was not sent here")
    page.get_by_role("tab", name="Log").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("No worker has run it")
    queued = live.submit(stub(0.98))
    live.wait(queued)
    page.goto(f"{live.url}/e/{queued}?tab=diff")
    expect(page.get_by_role("tabpanel")).to_contain_text("There is no earlier source")


def test_an_unknown_experiment_says_so(live: System, open_page: OpenPage) -> None:
    page = open_page(f"{live.url}/e/exp-00000000000000-t", errors_allowed=True)
    expect(page.get_by_role("alert").filter(has_text="Not found")).to_be_visible()


def holds(box: Locator, condition: str) -> bool:
    return bool(box.evaluate(f"box => {condition}"))


def test_what_is_too_wide_for_a_phone_is_scrolled_by_arrows(api: Api, open_page: OpenPage) -> None:
    """The figures, the curves as a table and the diff; none of them leaves the page."""
    api.tag("t")
    api.gpu("gpu-0")
    curve = [{"step": n, "percent": 10 * n, "loss": 100_000 / n} for n in range(1, 11)]
    runs = []
    for value in (1.0, 0.99, 0.98, 0.97, 0.96):
        parent = {"parent_id": runs[0]} if runs else {}
        runs.append(api.submit(f"a = {value}  # {'wide ' * 40}", "t", **parent))
        api.finish(api.claim("gpu-0"), value, curve=curve)
    page = open_page(f"{api.url}/e/{runs[3]}", viewport=PHONE)
    page.get_by_text("As a table").click()
    for name in ("Metrics", "Learning curves as a table", "Diff"):
        box = page.get_by_role("region", name=name, exact=True)
        # Before it is drawn, the key would go to the next verdict.
        eventually(partial(holds, box, "box.scrollWidth > box.clientWidth"), what=f"a wide {name}")
        box.press("ArrowRight")
        eventually(partial(holds, box, "box.scrollLeft > 0"), what=f"a scroll of {name}")
    assert page.url.endswith(runs[3])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(live: System, open_page: OpenPage, scheme: str) -> None:
    """No serious violation: of a keep with each tab, of a crash, wide and narrow."""
    live.wait(live.submit("# one\n" + stub(0.98)))
    kept = live.submit("# two\n" + stub(0.97))
    live.wait(kept)
    crashed = live.submit(CRASH)
    live.wait(crashed)
    page = open_page(f"{live.url}/e/{kept}", color_scheme=scheme)
    for tab in ("Diff", "Log", "Source", "Record"):
        page.get_by_role("tab", name=tab).click()
        expect(page.get_by_role("tabpanel").locator("table, pre").first).to_be_visible()
        assert serious_violations(page) == []
    page.goto(f"{live.url}/e/{crashed}")
    expect(page.get_by_role("region", name="The crash")).to_contain_text("line 99")
    assert serious_violations(page) == []
    if folder := screenshots():
        page.screenshot(path=folder / f"experiment-{scheme}.png")
    page.set_viewport_size(PHONE)
    eventually(lambda: page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
    assert serious_violations(page) == []
    if folder := screenshots():
        page.screenshot(path=folder / f"experiment-{scheme}-narrow.png", full_page=True)
