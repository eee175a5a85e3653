"""A run that was stopped early, as people see it: a discard with what was predicted."""

import re

import pytest
from playwright.sync_api import expect

from tests.api.test_early_stop import Search, curve
from tests.browser.conftest import OpenPage
from tests.conftest import MakeApi

pytestmark = pytest.mark.browser


def test_a_run_that_was_stopped_early_shows_what_was_predicted_and_not_as_its_result(
    make_api: MakeApi, open_page: OpenPage
) -> None:
    api = make_api(lease_seconds=600)
    search = Search(api)
    search.calibrate()
    job = search.claim()
    search.progress(job, 3.2, until=26)
    verdict = api.finish(job, None, outcome="cancelled", curve=curve(3.2, 26))["verdict"]

    page = open_page(f"{api.url}/t/mar11")
    expect(page.locator(".summary")).to_contain_text(
        "Early stop: on: 1 run stopped, 0.06 GPU hours"
    )
    row = page.locator(f'tr[data-id="{job["experiment_id"]}"]')
    expect(row).to_contain_text(f"predicted {verdict['predicted_val_bpb']:.4f}")
    expect(row.locator(".status")).to_have_text("discard")
    expect(page.locator(".plot")).to_contain_text("▲ 30")  # all but the baseline
    page.get_by_role("slider").press("End")  # above the range, as it has no result
    expect(page.locator(".cross circle")).to_have_attribute("cy", "13")
    expect(page.get_by_role("slider")).to_have_attribute(
        "aria-valuetext", re.compile(r"^Run \d+, discard, \w+$")
    )
    page = open_page(f"{api.url}/e/{job['experiment_id']}")
    expect(page.locator("h1.verdict")).to_contain_text("stopped early: its training loss of 4.8000")
