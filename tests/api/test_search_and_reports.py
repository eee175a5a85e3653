"""Strategy, suggestions and reports over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.conftest import Api


def test_a_new_tag_explores(api: Api) -> None:
    api.tag()
    strategy = api.post("/api/search/strategy", tag="mar11")
    assert (strategy["mode"], strategy["explore_ratio"], strategy["temperature"]) == (
        "explore", 0.7, 1.0,
    )  # fmt: skip


def test_the_strategy_adapts_by_itself_after_each_report(api: Api) -> None:
    """Six crashes of six: exploit at 0.3; keeps then lift it to exploit at 0.5."""
    api.tag()
    for _ in range(6):
        api.crash(api.register())
    strategy = api.get("/api/search/strategy", tag="mar11")
    assert (strategy["mode"], strategy["temperature"]) == ("exploit", 0.3)
    for value in (1.0, 0.9, 0.8, 0.7, 0.6):
        api.complete(api.register(), value)
    strategy = api.get("/api/search/strategy", tag="mar11")
    assert (strategy["mode"], strategy["temperature"]) == ("exploit", 0.5)
    assert strategy["explore_ratio"] == 0.3


def test_an_override_stays_pinned_until_it_is_released(api: Api) -> None:
    """Neither adapt nor a report overwrites what a person set."""
    api.tag()
    api.post("/api/search/set-strategy", tag="mar11", mode="combine", reason="I say so")
    for _ in range(6):
        api.crash(api.register())
    assert api.post("/api/search/adapt", tag="mar11")["mode"] == "combine"
    api.post("/api/search/set-strategy", tag="mar11", mode="combine", reason="free", pinned=False)
    assert api.post("/api/search/adapt", tag="mar11")["mode"] == "exploit"


def test_a_choice_without_a_temperature_never_restores_an_older_one(api: Api) -> None:
    """Two choices at the same moment: the one that names no temperature leaves the other's."""
    api.tag()

    def choose(**fields: Any) -> None:
        body = {"tag": "mar11", "mode": "explore", "reason": "r"} | fields
        api.http.post("/api/search/set-strategy", json=body).raise_for_status()

    with ThreadPoolExecutor(3) as callers:
        for number in range(1, 41):
            calls = [callers.submit(choose, temperature=number), callers.submit(choose)]
            for call in calls:
                call.result()
            assert api.get("/api/search/strategy", tag="mar11")["temperature"] == number


def test_suggest_counts_categories_and_knows_what_pays(api: Api) -> None:
    api.tag()
    for value in (1.0, 0.9, 0.8, 2.0):
        api.complete(api.register(category="attention"), value)
    api.complete(api.register(category="home-made"), 0.8005)
    found = api.post("/api/search/suggest", tag="mar11")
    assert found["category_stats"]["attention"] == {"total": 4, "kept": 3}
    assert found["high_yield_categories"] == ["attention"]
    assert "attention" not in found["underexplored_categories"]
    assert "optimizer" in found["underexplored_categories"]
    assert "home-made" not in found["underexplored_categories"]
    assert found["recent_bpb_trend"] == [1.0, 0.9, 0.8]
    assert (found["near_misses_available"], found["near_miss_categories"]) == (1, ["home-made"])
    assert found["total_experiments"] == 5
    assert found["suggestions"]
    assert found == api.get("/api/search/suggest", tag="mar11")


def test_suggest_counts_every_experiment_but_cancelled_ones(api: Api) -> None:
    """Registered by hand, queued, running and decided ones, as the original's list of a tag."""
    api.tag()
    api.gpu()
    api.complete(api.register(), 1.0)
    api.crash(api.register())
    api.register(category="attention")
    api.submit("x = 1", category="attention")
    api.claim()
    api.submit("x = 2", category="attention")
    api.post(f"/api/experiment/{api.submit('x = 3', category='attention')}/cancel")
    found = api.post("/api/search/suggest", tag="mar11")
    assert found["total_experiments"] == 5
    assert found["category_stats"]["attention"] == {"total": 3, "kept": 0}


def test_the_summary_counts_what_happened(api: Api) -> None:
    api.tag()
    best = api.register(commit_sha="c0ffee00", description="the best")
    api.complete(api.register(), 1.0, training_seconds=90)
    api.complete(best, 0.9, training_seconds=60)
    api.complete(api.register(), 0.95, training_seconds=30)
    api.crash(api.register())
    api.register()
    summary = api.post("/api/report/summary", tag="mar11")
    assert summary["best"] == {"val_bpb": 0.9, "commit": "c0ffee00", "experiment_id": best}
    stats = summary["stats"]
    assert (stats["total"], stats["kept"], stats["discarded"], stats["crashed"]) == (4, 2, 1, 1)
    assert (stats["running"], stats["keep_rate"]) == (1, 0.5)
    assert summary["total_training_minutes"] == 3.0
    assert [p["val_bpb"] for p in summary["bpb_progression"]] == [1.0, 0.9]
    assert summary["bpb_progression"][1]["description"] == "the best"
    assert summary["categories"] == {"optimizer": 5}
    assert (summary["branch"], summary["strategy"]) == ("autoresearch/mar11", "explore")
    assert summary["gpu_pool"] == {"total": 0, "idle": 0, "training": 0}


def test_the_tsv_is_the_notebooks_table(api: Api) -> None:
    """Six decimals, GB with one, three status words, and nothing that breaks a line."""
    api.tag()
    api.complete(
        api.register(description="a\tb\nc", commit_sha="0123456789"), 0.9979, peak_vram_mb=45060.2
    )
    api.complete(api.register(description="worse"), 1.0)
    api.crash(api.register(description="bad"))
    api.register(description="still running")
    answer = api.post("/api/report/tsv", tag="mar11")
    assert answer["tsv"].split("\n") == [
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription",
        "0123456\t0.997900\t44.0\tkeep\ta b c",
        "abcdef0\t1.000000\t0.0\tdiscard\tworse",
        "abcdef0\t0.000000\t0.0\tcrash\tbad",
    ]
    assert answer["count"] == 3
    plain = api.http.get(
        "/api/report/tsv", params={"tag": "mar11"}, headers={"accept": "text/tab-separated-values"}
    )
    assert plain.text == answer["tsv"]
    assert plain.headers["content-type"].startswith("text/tab-separated-values")


def test_diff_is_b_minus_a(api: Api) -> None:
    api.tag()
    a, b = api.register(), api.register()
    api.complete(a, 1.0, num_params_m=50, peak_vram_mb=100)
    api.complete(b, 0.75, num_params_m=40, peak_vram_mb=150)
    diff = api.post("/api/report/diff", experiment_a=a, experiment_b=b)
    assert (diff["delta_bpb"], diff["delta_params_m"], diff["delta_vram_mb"]) == (-0.25, -10, 50)
    assert diff["a"]["id"] == a
    assert diff == api.get("/api/report/diff", experiment_a=a, experiment_b=b)


def test_tags_stand_newest_first(api: Api) -> None:
    for name in ("one", "two", "three"):
        api.tag(name)
    api.complete(api.register("two"), 1.0)
    tags = api.get("/api/report/tags")["tags"]
    assert [tag["name"] for tag in tags] == ["three", "two", "one"]
    assert (tags[1]["total_experiments"], tags[1]["kept_experiments"]) == (1, 1)


def test_a_brief_gathers_the_whole_tag_in_less_than_eight_kilobytes(api: Api) -> None:
    """As JSON with its text, or as plain markdown where the request accepts that."""
    api.tag()
    api.gpu()
    long = "`x` " * 400
    for n in range(12):
        api.complete(api.register(hypothesis=f"{n} {long}", category="attention"), 1 - n / 100)
    for _ in range(3):
        api.crash(api.register(hypothesis=long), "Traceback (most recent call last):\nKeyError: 1")
    api.complete(api.register(hypothesis="close"), 0.8905)
    running = api.submit("1", hypothesis="under way")
    queued = api.submit("2", hypothesis="waiting")
    api.claim()
    api.post("/api/steer/note", tag="mar11", text="less depth, please", by="human")
    api.post("/api/steer/pause", tag="mar11", reason="lunch")
    response = api.http.get("/api/report/brief", params={"tag": "mar11"})
    assert len(response.content) < 8192
    found = response.json()
    assert (found["running"], found["queued"], found["paused"]) == (1, 1, True)
    text = found["text"]
    for part in (running, queued, "less depth, please", "PAUSED: `lunch`", "missed by", "KeyError"):
        assert part in text
    assert f"- Best: 0.890000 keep {found['best_experiment_id']}" in text
    plain = api.http.get(
        "/api/report/brief", params={"tag": "mar11"}, headers={"accept": "text/markdown"}
    )
    assert plain.headers["content-type"].startswith("text/markdown")
    assert plain.text == text
    api.get("/api/report/brief", 404, tag="nowhere")
