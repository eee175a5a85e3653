"""The benchmarks' own arithmetic, and that what their loader writes is what the product writes.

Also the checks of bench/chaos that need no running system.
"""

import contextlib

import redis

from bench.chaos.race import Story, check_seeds, check_share
from bench.chaos.violations import Findings
from bench.fleet import KNEE, knees
from bench.harness.figures import Measurements, Row, percentile, table
from bench.harness.servers import RedisProcess
from bench.orchestrator.gap import gaps
from bench.orchestrator.load import TEMPLATE_TAG, Loader, tag_name
from orchestrator.ids import id_of
from orchestrator.store import keys
from tests.conftest import MakeApi
from tests.oracle.race import RaceTag
from tests.oracle.search import Report, Run


def test_a_ratio_is_the_median_of_the_ratios_within_each_repetition() -> None:
    """A repetition in which everything took ten times as long changes nothing."""
    measured = Measurements()
    for slow in (1, 10, 1):
        measured.add("ours", 3.0 * slow, "ms")
        measured.add("yardstick", 2.0 * slow, "ms")
    assert measured.ratio("ours", "yardstick") == 1.5


def test_a_row_passes_up_to_its_bar() -> None:
    assert Row("x", 1.3, 1.3).verdict == "PASS"
    assert Row("x", 1.31, 1.3).verdict == "FAIL"
    assert "| x | 1 |" in table([Row("x", 1, None)]).replace("  ", " ")


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([3, 1, 2], 50) == 2
    assert percentile([1, 2, 3], 99) == 3


def test_a_knee_is_where_cpu_per_request_fills_its_share_of_a_core() -> None:
    """Half a millisecond a request is enough for 2 000 KNEE requests, of 10 GPUs each."""
    report = {
        "GPUs": 1000, "requests/s": 100, "interval (s)": 5,
        "CPU per request: orchestrators (ms)": 0.5, "Redis (ms)": 0.25,
    }  # fmt: skip
    lines = knees(report).splitlines()
    assert lines[1].endswith(f" {2000 * KNEE:,.0f} requests/s, {20_000 * KNEE:,.0f} GPUs")
    assert lines[2].endswith(f" {4000 * KNEE:,.0f} requests/s, {40_000 * KNEE:,.0f} GPUs")


def test_a_gap_is_from_the_end_of_a_run_to_the_start_of_the_next() -> None:
    entries = [
        {"event": "started", "monotonic": 1.0},
        {"event": "ended", "monotonic": 2.0},
        {"event": "started", "monotonic": 2.04},
        {"event": "ended", "monotonic": 3.0},
    ]
    assert [round(gap) for gap in gaps(entries)] == [40]


def story(*runs: tuple[str, int, int, int]) -> Story:
    """Runs by kind, seed, and when they were created and begun; all ended at 1000."""
    tag, made, begun = RaceTag("t", 0, 3), list[Run](), dict[str, int]()
    for kind, seed, created, began in runs:
        run = Run(
            id_of(created, "t"), tag, "other", "abc", None, "decided", "keep", "abc", seed,
            repeat_of=made[0].id if kind == "repeat" else None, report=Report("completed", 1.0),
        )  # fmt: skip
        run.status = "cancelled" if kind == "cancelled" else run.status
        run.source = "abc" if kind == "repeat" or not made else f"abc{created}"
        made.append(run)
        begun[run.id] = began
    return Story(tag, made, begun, {run.id: 1000 for run in made})


def test_a_source_that_ran_twice_with_one_seed_is_found_unless_it_was_cancelled() -> None:
    findings = Findings()
    check_seeds(story(("idea", 42, 1, 2), ("repeat", 43, 3, 4), ("cancelled", 42, 5, 6)), findings)
    assert findings.found == []
    check_seeds(story(("idea", 42, 1, 2), ("repeat", 43, 3, 4), ("repeat", 43, 5, 6)), findings)
    assert [one.what for one in findings.found] == ["t: abc:43 ran 2 times"]


def test_repeats_beyond_their_share_are_found_where_ideas_wait() -> None:
    ideas = [("idea", 42, n, 900) for n in range(2, 12)]
    repeats = [("repeat", 42 + n, 100 + n, 101 + n) for n in range(1, 31)]
    findings = Findings()
    check_share(story(("idea", 42, 1, 2), *ideas, *repeats), 4, findings)
    assert findings.found
    findings = Findings()
    early = [(kind, seed, created, created) for kind, seed, created, _ in ideas]
    check_share(story(("idea", 42, 1, 2), *early, *repeats), 4, findings)
    assert findings.found == []  # no idea waited


def test_the_loader_writes_what_the_product_writes(make_api: MakeApi, redis_url: str) -> None:
    """A copy equals its template but for its own fields, and lists and counters agree."""
    api = make_api(heartbeat_seconds=5)
    port = int(api.url.rpartition(":")[2])
    with contextlib.closing(Loader(RedisProcess(0, url=redis_url), port)) as loader:
        loader.load(200)
    tag = tag_name(1)
    template = loader.templates["crash"]
    [copy] = api.get("/api/experiment/history", tag=tag, status="crash")["experiments"]
    with contextlib.closing(redis.Redis.from_url(redis_url, decode_responses=True)) as client:
        for name in ("exp:", "run:"):
            made = client.hgetall(keys.of_tag(TEMPLATE_TAG, name, template))
            copied = client.hgetall(keys.of_tag(tag, name, copy["id"]))
            assert made.keys() == copied.keys()
            own = made.keys() & {"created", "source", "finished", "verdict"}
            assert {field for field in made if made[field] != copied[field]} == own
            assert all(len(made[field]) == len(copied[field]) for field in own)
        attempts = [
            client.lrange(keys.of_tag(of, "attempts:", experiment_id), 0, -1)
            for of, experiment_id in ((TEMPLATE_TAG, template), (tag, copy["id"]))
        ]
        assert attempts[0] == attempts[1]
    shown, model = (api.get(f"/api/experiment/{i}") for i in (copy["id"], template))
    assert shown.keys() == model.keys()
    assert shown["verdict"] == model["verdict"] | {"experiment_id": copy["id"]}
    stats = api.post("/api/report/summary", tag=tag)["stats"]
    assert stats["total"] == 20
    assert api.post("/api/experiment/history", tag=tag)["total"] == 20
    assert stats["kept"] == len(api.post("/api/report/summary", tag=tag)["bpb_progression"])
    with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
        assert client.xlen(f"ar:{{{tag}}}:journal") == 21  # the setup, and each decision
