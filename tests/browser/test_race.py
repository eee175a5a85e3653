"""A tag whose keep rule is `race`, as people see it: candidates, repeats, estimates, merges."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import OpenPage, screenshots
from tests.browser.test_widths import DRAWN, OVERFLOWING
from tests.conftest import Api, MakeApi

pytestmark = pytest.mark.browser

BASELINE = "".join(f"line_{n} = 0\n" for n in range(20))
CHANCE = (-0.0001, 0.0011, -0.0012, 0.0004, -0.0003)
CURVE = [{"step": 10 * n, "percent": 10 * n, "loss": 10 / (n + 1)} for n in range(1, 11)]
GPUS = ("gpu-0", "gpu-1", "gpu-2")


class Search:
    """A tag that races. Each source has a true value, around which its seeds differ by `noise`."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.truth: dict[str, tuple[float, float]] = {}
        api.tag(keep_rule="race")
        api.gpu("gpu-0", 0)

    def submit(
        self, hypothesis: str, truth: float, line: int, value: int = 1, noise: float = 1
    ) -> str:
        source = BASELINE.replace(f"line_{line} = 0\n", f"line_{line} = {value}\n")
        self.truth[source] = truth, noise
        words = {"hypothesis": hypothesis, "description": hypothesis, "category": "optimizer"}
        return self.api.submit(source, **words)

    def end(self, job: Any) -> None:
        """Train a job to its end. A merge is better than each of its parts."""
        source, seed = job["train_py"], job["seed"]
        chance = CHANCE[(seed + len(source.split("= 0")) * 3 + source.find("= 1")) % len(CHANCE)]
        truth, noise = self.truth.get(source, (0.9895, 1))
        self.api.finish(job, truth + noise * chance, curve=CURVE)

    def settle(self, *experiments: str) -> None:
        """Train on one GPU until these are decided."""
        while any(self.detail(one)["finished_at"] is None for one in experiments):
            self.end(self.api.claim("gpu-0"))

    def nearly_proved(self, hypothesis: str, line: int) -> str:
        """An idea whose ten runs leave it a provisional keep."""
        for gain in range(40, 100, 10):
            best = self.api.get("/api/experiment/best", tag="mar11")["best"]["val_bpb"]
            one = self.submit(hypothesis, best - gain / 1e5, line, gain, noise=0)
            self.settle(one)
            if self.detail(one)["verdict"].get("provisional"):
                return one
        raise AssertionError("each of them was proved or discarded")

    def detail(self, experiment_id: str) -> Any:
        return self.api.get(f"/api/experiment/{experiment_id}")


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    return make_api(lease_seconds=600)  # a browser on a busy machine may take minutes


@pytest.fixture
def raced(api: Api) -> dict[str, str]:
    """A baseline, a discard, a keep, two wins over its parent (one merges, one conflicts), a keep
    that is not proved, and a candidate whose repeat trains; ids by what they show."""
    search = Search(api)
    found = {"baseline": search.submit("baseline", 0.998, 0, 0)}
    for _ in range(5):
        search.end(api.claim("gpu-0"))
    found["discard"] = search.submit("no warm-up", 0.9999, 1)
    search.settle(found["discard"])
    found["keep"] = search.submit("squared ReLU in the MLP", 0.9925, 5)
    found["conflict"] = search.submit("SwiGLU in the MLP", 0.9925, 5, 2)
    found["waits"] = search.submit("QK-norm before the attention", 0.9925, 15)
    for index, gpu in enumerate(GPUS):
        api.gpu(gpu, index)
    jobs = [api.claim(gpu) for gpu in GPUS]
    for job in jobs:
        search.end(job)
    search.settle(*found.values())
    [found["merge"]] = [
        one["id"] for one in api.post("/api/experiment/history", tag="mar11")["experiments"]
        if one["category"] == "merge"
    ]  # fmt: skip
    search.settle(found["merge"])
    found["provisional"] = search.nearly_proved("z-loss", 18)
    best = api.get("/api/experiment/best", tag="mar11")["best"]["val_bpb"]
    found["candidate"] = search.submit("embeddings at half the rate", best - 0.0008, 19, noise=0)
    while search.detail(found["candidate"])["status"] == "queued":
        search.end(api.claim("gpu-0"))
    job = api.claim("gpu-0")
    found["repeat"] = job["experiment_id"]
    search.submit("a wider head", 0.99, 3)
    return found


def test_a_keep_that_read_too_low_is_in_the_chart_when_its_estimate_has_risen(
    api: Api, open_page: OpenPage
) -> None:
    api.tag()
    api.gpu("gpu-0", 0)
    for source, val_bpb in ((BASELINE, 0.998), ("lucky = 1", 0.980)):
        api.submit(source)
        api.finish(api.claim("gpu-0"), val_bpb)
    api.post("/api/steer/race", tag="mar11", reason="was it luck?")
    for _ in range(4):
        api.finish(api.claim("gpu-0"), 0.994)
    page = open_page(f"{api.url}/t/mar11")
    expect(page.locator(".verdict .best .big")).to_have_text("0.991200")
    expect(page.locator(".plot .keeps circle")).to_have_count(2)  # none is left out as too low


def test_a_near_miss_is_as_near_as_all_its_runs_say(api: Api, open_page: OpenPage) -> None:
    """By the one run that read low, a discard would be shown as better than the champion."""
    search = Search(api)
    search.submit("baseline", 0.998, 0, 0)
    for _ in range(5):
        search.end(api.claim("gpu-0"))
    lucky = search.submit("lucky at first", 0.9986, 1, noise=0.1)
    api.finish(api.claim("gpu-0"), 0.9962)
    search.settle(lucky)
    detail = search.detail(lucky)
    assert detail["status"] == "discard"
    assert detail["val_bpb"] == 0.9962
    page = open_page(f"{api.url}/t/mar11")
    misses = page.locator("section", has_text="Near misses").locator("li")
    # What it read first lies below the best; it is within the chart's range.
    expect(page.locator(".plot .keeps circle")).to_have_count(1)
    marks = page.locator(".plot text").all_text_contents()
    assert min(float(mark) for mark in marks if re.fullmatch(r"0\.\d+", mark)) < 0.9965
    behind = f"{-detail['verdict']['delta']:+.6f}".replace("-", "−")
    expect(misses.locator(".num")).to_have_text(behind)


def test_candidates_stand_above_the_verdicts_and_repeats_are_in_no_row(
    api: Api, raced: dict[str, str], open_page: OpenPage
) -> None:
    page = open_page(f"{api.url}/")
    expect(page.locator(".strip")).to_contain_text("Best val_bpb of mar11, an estimate")
    page = open_page(f"{api.url}/t/mar11")
    best = api.get("/api/experiment/best", tag="mar11")["best"]
    expect(page.locator(".verdict .best")).to_contain_text("an estimate")
    expect(page.locator(".verdict .best .big")).to_have_text(f"{best['val_bpb']:.6f}")
    expect(page.locator(".verdict .runs")).to_contain_text("1 candidate")
    expect(page.locator(".summary")).to_contain_text("Keep rule race")
    expect(page.locator(".legend")).to_contain_text("provisional 1")
    expect(page.locator(".plot .keeps circle")).to_have_count(4)
    expect(page.locator(".plot .keeps .provisional")).to_have_count(1)

    words = page.locator("table.runs tbody .status").all_inner_texts()
    assert words[:6] == ["running", "candidate", "queued", "queued", "queued", "provisional"]
    assert "repeat" not in words
    candidate = page.locator(f'tr[data-id="{raced["candidate"]}"]')
    expect(candidate).to_contain_text("ran ")
    expect(page.locator("tr", has_text="seed 43 of embeddings")).to_have_count(1)

    beside = api.get(f"/api/experiment/{raced['candidate']}/surroundings")
    queued = next(one["id"] for one in beside["repeats"] if one["status"] == "queued")
    api.post(f"/api/experiment/{queued}/cancel")
    expect(candidate.locator(".status")).to_have_text(re.compile("discard|near miss"))


def test_a_run_says_what_the_race_says_of_it(
    api: Api, raced: dict[str, str], open_page: OpenPage
) -> None:
    page = open_page(api.url)

    def opened(name: str) -> Locator:
        page.goto(f"{api.url}/e/{raced[name]}")
        expect(page.locator("h1.verdict .status")).to_be_visible()
        return page.locator("h1.verdict")

    expect(opened("conflict")).to_contain_text("it could not be merged: both change the same lines")
    lines = page.locator("pre.block .line")
    assert lines.all_inner_texts()[1:6] == [
        "line_5 = 1", "||||||| base", "line_5 = 0", "=======", "line_5 = 2",
    ]  # fmt: skip
    expect(page.locator("h1.verdict a")).to_have_attribute("href", f"/e/{raced['baseline']}")
    expect(opened("merge").locator(".sure")).to_have_text("confirmed")
    expect(page.locator(f'.facts a[href="/e/{raced["waits"]}"]')).to_have_text("#5")
    expect(page.locator(".facts")).to_contain_text("seed 43")
    expect(page.locator("pre.block")).to_be_hidden()
    title = opened("provisional")
    expect(title.locator(".sure")).to_have_text("provisional")
    expect(title).to_contain_text("kept provisionally")
    expect(opened("candidate")).to_contain_text("another seed follows")
    expect(page.locator(".facts")).to_contain_text("seed 44 queued")
    opened("repeat")
    expect(page.locator(f'.facts a[href="/e/{raced["candidate"]}"]')).to_have_count(1)


PAGES = ("discard", "keep", "conflict", "merge", "provisional", "candidate", "repeat")


def test_what_a_race_says_fits_at_a_laptop_s_widths(
    api: Api, raced: dict[str, str], open_page: OpenPage
) -> None:
    page = open_page(api.url)
    addresses = {"overview": "/", "tag": "/t/mar11"} | {name: f"/e/{raced[name]}" for name in PAGES}
    folder = screenshots()
    wrong = []
    for name, address in addresses.items():
        page.goto(api.url + address)
        expect(page.locator("main")).to_contain_text("0.9")
        for width in (1100, 1440):
            page.set_viewport_size({"width": width, "height": 900})
            page.evaluate(DRAWN)
            wrong += [f"{name} at {width}: {what}" for what in page.evaluate(OVERFLOWING)]
            for scheme in ("light", "dark") if folder else ():
                page.emulate_media(color_scheme=scheme)
                page.evaluate(DRAWN)
                page.screenshot(path=folder / f"race-{name}-{width}-{scheme}.png", full_page=True)
    assert not wrong, "\n".join(wrong)
