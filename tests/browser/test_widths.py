"""Every card at the widths of a laptop, in both themes, with short, long and missing values.

Nothing scrolls sideways, no cell is cut, and what is longer than its line takes a second one.
"""

from typing import Any

import pytest
from playwright.sync_api import expect

from orchestrator.rules import failure
from tests.browser.conftest import OpenPage, screenshots
from tests.conftest import Api

pytestmark = pytest.mark.browser

WIDTHS = (1100, 1200, 1300, 1440)
LONG_TAG = "a-search-on-the-cpu-whose-name-is-as-long-as-a-name-may-be-0123456"[:64]
LONG = (
    "replace `relu` by `gelu` in every block, warm the learning rate up for 200 steps and tie the"
    " embedding to the head, since the last five keeps all came from the optimizer's side"
)
UNBROKEN = "x" * 90
CPU = {"peak_vram_mb": 0.0, "mfu_percent": 0.0, "training_seconds": 12.0, "num_steps": 31}
GPU = {
    "peak_vram_mb": 45_060.2, "mfu_percent": 39.81, "training_seconds": 300.1,
    "total_tokens_m": 499.6, "num_steps": 953, "num_params_m": 50.3, "depth": 8,
}  # fmt: skip
PLACE = {
    "gpu_name": "NVIDIA H200", "host": "node-17.cluster.example.org", "profile": "h200",
    "torch_version": "2.9.1+cu130", "driver_version": "580.95.05", "python_version": "3.11.7",
}  # fmt: skip
CURVE = [{"step": 10 * n, "percent": 10 * n, "loss": 10 / (n + 1)} for n in range(1, 11)]

# What does not fit into its box: the page, a card, a cell, a figure. Cut on purpose is `.cut`, one
# line with a title; what is only for screen readers has no box.
OVERFLOWING = """() => {
  const boxes = "html, main, .panel, .panel > header, .body, .strip, .strip > div, .strip dd > *,"
    + ".scroll, table, th, td, dd, li, .gpu, .gpu-health, .run-head, .run-actions, .alerts";
  const asMeant = ".cut, .visually-hidden, .code, pre, .plot";
  return [...document.querySelectorAll(boxes)]
    .filter((box) => box.checkVisibility() && !box.closest(asMeant))
    .filter((box) => box.clientWidth > 0 && box.scrollWidth > box.clientWidth + 1)
    .map((box) => `${box.tagName}.${box.className}: ${box.scrollWidth} > ${box.clientWidth}`
      + ` ${box.textContent.slice(0, 60)}`);
}"""
DRAWN = """() => new Promise((drawn) =>
  requestAnimationFrame(() => requestAnimationFrame(drawn)))"""

# Backticks that are shown, except in what is a program's own text.
BACKTICKS = """() => [...document.querySelectorAll("main *")]
  .filter((box) => box.offsetParent !== null && !box.closest("pre, .code, .visually-hidden"))
  .flatMap((box) => [...box.childNodes])
  .filter((node) => node.nodeType === Node.TEXT_NODE && node.data.includes("`"))
  .map((node) => `a backtick in ${node.data.slice(0, 60)}`)"""


@pytest.fixture
def world(api: Api) -> dict[str, str]:
    """A short search, one with long names on a CPU, one without a run; ids by what they show."""
    found = {}
    api.gpu("gpu-0", host="n", profile="h200")
    api.tag("t")
    api.submit("a = 1\n", tag="t", hypothesis="baseline")
    api.finish(api.claim("gpu-0"), 0.998, metrics={"val_bpb": 0.998, **GPU}, environment=PLACE)
    api.tag("empty")
    api.gpu("a-machine-with-a-long-name.example.org:cpu-0", 1, host="a-machine-with-a-long-name")
    cpu = "a-machine-with-a-long-name.example.org:cpu-0"
    api.tag(LONG_TAG)

    def run(name: str, number: int, end: dict[str, Any], hypothesis: str = LONG) -> None:
        found[name] = api.submit(
            f"a = {number}\n", LONG_TAG, hypothesis=hypothesis, description=hypothesis,
            category="a category with a long name, as agents give", diff_summary=LONG,
        )  # fmt: skip
        api.finish(api.claim(cpu), curve=CURVE, environment=PLACE | {"gpu_name": None}, **end)

    run("baseline", 1, {"metrics": {"val_bpb": 2.345678} | CPU})
    run("keep", 2, {"metrics": {"val_bpb": 1.345678} | CPU})
    run("discard", 3, {"metrics": {"val_bpb": 1.346}, "warnings": [LONG, UNBROKEN]}, UNBROKEN)
    error = f"exit code 1\nTraceback (most recent call last):\nValueError: {LONG}"
    run("crash", 4, {"outcome": "crash", "error": error})
    run("last", 5, {"metrics": {"val_bpb": 1.345600} | CPU}, LONG)
    run("worse", 6, {"metrics": {"val_bpb": 1.5}}, "short")
    api.post("/api/search/set-strategy", tag=LONG_TAG, mode="exploit", reason=LONG)
    api.submit("b = 1\n", LONG_TAG, hypothesis=LONG)
    found["running"] = api.claim(cpu)["experiment_id"]
    api.submit("b = 2\n", LONG_TAG, hypothesis=UNBROKEN)
    api.post("/api/steer/note", tag=LONG_TAG, text=LONG)
    api.gpu("gpu-9", 9, host="node-9", problem=LONG)
    return found


def _pages(world: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Address and a text that is there once it is drawn, by name."""
    return {
        "overview": ("/", "1.345600"),
        "tag": (f"/t/{LONG_TAG}", "#6"),
        "tag-short": ("/t/t", "#1"),
        "keep": (f"/e/{world['keep']}", "1.345678 beat"),
        "discard": (f"/e/{world['discard']}", "missed"),
        "crash": (f"/e/{world['crash']}", "ValueError"),
        "running": (f"/e/{world['running']}", "starting"),
        "compare": (f"/compare?ids={world['keep']},{world['crash']},{world['last']}", "attempts"),
        "actions": (f"/actions?tag={LONG_TAG}", "set-strategy"),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_card_fits_at_a_laptop_s_widths(
    api: Api, world: dict[str, str], open_page: OpenPage, scheme: str
) -> None:
    page = open_page(api.url, errors_allowed=True, color_scheme=scheme)
    wrong = []
    for name, (address, text) in _pages(world).items():
        page.goto(api.url + address)
        expect(page.locator("main")).to_contain_text(text)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.evaluate(DRAWN)
            found = [*page.evaluate(OVERFLOWING), *page.evaluate(BACKTICKS)]
            wrong += [f"{name} at {width}: {what}" for what in found]
            if folder := screenshots():
                page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
    assert not wrong, "\n".join(wrong)


def test_what_a_cpu_does_not_measure_is_a_dash(
    api: Api, world: dict[str, str], open_page: OpenPage
) -> None:
    """train.py prints 0.0 there, which is no measure."""
    page = open_page(f"{api.url}/e/{world['keep']}", errors_allowed=True)
    for label in ("peak VRAM, GB", "MFU, %"):
        row = page.locator(".metrics tr", has_text=label)
        expect(row.locator("td.own")).to_have_text("—")
        expect(row).not_to_contain_text("0.0")
    expect(page.locator(".metrics tr", has_text="steps").locator("td.own")).to_have_text("31")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_run_s_facts_have_no_scroll_bar_and_their_mark_stands_in_its_line(
    api: Api, world: dict[str, str], open_page: OpenPage, width: int
) -> None:
    address = f"{api.url}/e/{world['discard']}"
    page = open_page(address, errors_allowed=True, viewport={"width": width, "height": 900})
    expect(page.locator(".attempts")).to_contain_text("completed")
    body = page.locator(".body:has(> .facts)")
    assert body.evaluate("box => box.scrollHeight <= box.clientHeight")
    # In one step, because the page draws itself again as events come.
    at, line = page.evaluate(
        """() => [".attempts .mark", ".attempts li > span"].map(
            (name) => document.querySelector(name).getBoundingClientRect().toJSON())"""
    )
    assert at["x"] + at["width"] <= line["x"]
    assert line["y"] <= at["y"] + at["height"] / 2 <= line["y"] + 19


def test_one_run_ago_is_one_run(api: Api, world: dict[str, str], open_page: OpenPage) -> None:
    page = open_page(api.url)
    expect(page.locator("table.tags .last").first).to_contain_text("1 run ago")


def test_a_failure_s_headline_is_the_one_of_the_terminal(
    api: Api, world: dict[str, str], open_page: OpenPage
) -> None:
    """The page has the rule in JavaScript."""
    page = open_page(api.url)
    block = "---\nval_bpb: 0.9979\nprofile: cpu\ntraining_seconds: 2\n"
    for error in (
        f"exit code 3\n{block}", f"exit code 3\nsaving\n{block}", f"exit code 3\n{block}disk: full",
        f"exit code 1\nFAIL: too late\n{block}", "val_bpb: nan", "val_bpb: 1.5", "exit code 3\none",
        "killed by SIGKILL; exit code 137\nstep", "RuntimeError: by hand", "",
    ):  # fmt: skip
        shown = page.evaluate(
            "async (error) => (await import('/static/lib/format.js')).headline(error)", error
        )
        assert shown == failure.headline(error)
