"""The overview, and what an experiment is compared with, over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis

from orchestrator.services.dashboard import history, overview as overview_service
from tests.conftest import Api, MakeApi, lease_of


@pytest.fixture(autouse=True)
def _always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test has just done must show at once."""
    monkeypatch.setattr(overview_service, "FRESH_SECONDS", 0)


def overview(api: Api, **query: Any) -> Any:
    return api.get("/api/report/overview", **query)


def tag_of(api: Api, name: str = "mar11", **query: Any) -> Any:
    return next(tag for tag in overview(api, **query)["tags"] if tag["name"] == name)


def moment() -> str:
    return datetime.now(timezone.utc).isoformat()


def test_an_empty_system_has_an_empty_overview(api: Api) -> None:
    found = overview(api)
    assert (found["tags"], found["gpus"], found["idle_gpu_hours"]) == ([], [], 0)


def test_a_tag_shows_best_baseline_counts_and_its_last_keep(api: Api) -> None:
    api.tag()
    kept = [api.register(description=f"d{value}") for value in (1.0, 0.9)]
    for experiment_id, value in zip(kept, (1.0, 0.9), strict=True):
        api.complete(experiment_id, value)
    api.complete(api.register(), 0.95)
    api.crash(api.register())
    api.register()
    tag = tag_of(api)
    assert (tag["best_val_bpb"], tag["baseline_val_bpb"]) == (0.9, 1.0)
    assert tag["gain"] == pytest.approx(-0.1)
    assert tag["counts"] == {
        "queued": 0, "running": 1, "finished": 4, "keep": 2, "discard": 1, "crash": 1,
    }  # fmt: skip
    assert tag["last_keep"]["experiment_id"] == kept[1]
    assert (tag["last_keep"]["description"], tag["last_keep"]["runs_ago"]) == ("d0.9", 2)
    assert tag["last_keep"]["whole"] is True
    assert [point["val_bpb"] for point in tag["spark"]] == [1.0, 0.9]
    assert (tag["state"], tag["mode"]) == ("running", "explore")


def test_since_counts_what_happened_after_that_moment(api: Api) -> None:
    """Gain counts from the best as it was then, and the counts from the first verdict after it."""
    api.tag()
    api.complete(api.register(), 1.0)
    api.complete(api.register(), 0.9)
    then = moment()
    api.complete(api.register(), 0.8)
    api.complete(api.register(), 0.85)
    api.crash(api.register())
    counts = tag_of(api, since=then)["since"]
    assert (counts["finished"], counts["keep"], counts["crash"]) == (3, 1, 1)
    assert counts["gain"] == pytest.approx(-0.1)
    assert counts["crash_rate"] == pytest.approx(1 / 3)
    assert counts["whole"] is True
    whole = tag_of(api)["since"]
    assert (whole["finished"], whole["gain"]) == (5, pytest.approx(-0.2))


def test_since_is_a_moment_with_a_zone_and_never_ahead(api: Api) -> None:
    api.get("/api/report/overview", 422, since="yesterday")
    api.get("/api/report/overview", 422, since="2026-03-01T12:00:00")
    api.get("/api/report/overview", 422, sinse="2026-03-01T12:00:00Z")
    ahead = overview(api, since=(datetime.now(timezone.utc) + timedelta(days=9)).isoformat())
    assert ahead["since"] == ahead["now"]
    assert overview(api, since="0001-01-01T00:00:00Z")["since"].startswith("1970-01-01")


def test_a_gpu_shows_its_health_and_what_it_trains(api: Api) -> None:
    api.tag()
    api.gpu()
    experiment_id = api.submit("print(1)", hypothesis="wider", category="architecture")
    job = api.claim()
    health = {"temperature_c": 61, "memory_used_mb": 40_000, "utilization_percent": 98}
    api.post("/api/pool/heartbeat", gpu_id="gpu-0", health=health)
    api.post(
        "/api/job/progress",
        **lease_of(job),
        curve=[{"step": 1, "percent": 2, "loss": 9}, {"step": 9, "percent": 41, "loss": 3.5}],
    )  # fmt: skip
    (gpu,) = overview(api)["gpus"]
    assert gpu["status"] == "training"
    assert gpu["health"]["temperature_c"] == 61
    assert 0 <= gpu["heartbeat_age_seconds"] < 5
    run = gpu["run"]
    assert (run["experiment_id"], run["hypothesis"]) == (experiment_id, "wider")
    assert (run["percent"], run["loss"]) == (41, 3.5)
    assert tag_of(api)["state"] == "running"


def test_pace_counts_the_hours_in_which_gpus_were_busy(api: Api, redis_url: str) -> None:
    """Two runs of an hour each on one GPU: one experiment a GPU-hour."""
    api.tag()
    api.gpu()
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        for number in range(2):
            experiment_id = api.submit(f"print({number})")
            job = api.claim()
            key = f"ar:{{mar11}}:run:{experiment_id}"
            started = int(client.hget(key, "started")) - 3_600_000_000  # type: ignore[arg-type]
            client.hset(key, "started", started)
            api.finish(job, 1.0 - number / 10)
    assert tag_of(api)["per_gpu_hour"] == pytest.approx(1, rel=0.01)


def test_alerts_say_what_is_wrong(api: Api) -> None:
    api.tag(max_consecutive_crashes=2)
    api.gpu()
    api.post("/api/pool/heartbeat", gpu_id="gpu-0", quarantined=True, problem="Xid 79")
    api.crash(api.register())
    api.crash(api.register())
    api.submit("print(1)")
    found = {(alert["kind"], alert["subject"]) for alert in overview(api)["alerts"]}
    assert found >= {
        ("gpu_quarantined", "gpu-0"), ("crash_streak", "mar11"), ("queue_stuck", "mar11"),
    }  # fmt: skip


def test_the_history_follows_what_is_decided_elsewhere(make_api: MakeApi) -> None:
    """Two orchestrators on one Redis say the same, whichever of them took the report."""
    one, two = make_api(), make_api()
    one.tag()
    one.complete(one.register(), 1.0)
    assert tag_of(two)["since"]["finished"] == 1
    for value in (0.9, 0.8, 1.5):
        one.complete(one.register(), value)
    one.post("/api/experiment/" + one.submit("print(1)") + "/cancel")
    for api in (one, two):
        tag = tag_of(api)
        assert (tag["since"]["finished"], tag["since"]["keep"]) == (4, 3)
        assert tag["last_keep"]["runs_ago"] == 1


def test_a_long_history_is_counted_whole(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only when runs started is remembered of the newest alone."""
    monkeypatch.setattr(history, "TRAININGS", 4)
    api.tag()
    for number in range(6):
        api.complete(api.register(), 1.0 + number / 100)
    tag = tag_of(api)
    assert (tag["since"]["finished"], tag["since"]["whole"]) == (6, True)
    assert (tag["last_keep"]["runs_ago"], tag["last_keep"]["whole"]) == (5, True)
    then = moment()
    api.complete(api.register(), 3.0)
    counts = tag_of(api, since=then)["since"]
    assert (counts["finished"], counts["whole"]) == (1, True)


def test_many_pages_cost_one_reading(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty looks at once ask Redis no more often than one."""
    monkeypatch.setattr(overview_service, "FRESH_SECONDS", 60)
    api.tag()
    readings = []
    reads = api.app.state.services.store.reads
    original = reads.complaint  # nothing but the overview asks for it; `tags` is read at a start

    async def counted() -> Any:
        readings.append(1)
        return await original()

    monkeypatch.setattr(reads, "complaint", counted)
    with ThreadPoolExecutor(20) as pages:
        list(pages.map(lambda _: overview(api), range(60)))
    assert len(readings) == 1


def test_a_comparison_names_the_best_then_the_best_now_and_the_neighbours(api: Api) -> None:
    api.tag()
    ids = []
    for value in (1.0, 0.9, 0.95, 0.8):
        ids.append(api.register())
        api.complete(ids[-1], value)
    found = api.get(f"/api/experiment/{ids[2]}/surroundings")
    around = {name: value["id"] for name, value in found.items() if isinstance(value, dict)}
    assert around == {
        "best_then": ids[1], "best_now": ids[3], "previous": ids[1], "next": ids[3],
        "previous_keep": ids[1], "next_keep": ids[3],
    }  # fmt: skip
    first = api.get(f"/api/experiment/{ids[0]}/surroundings")
    assert (first["best_then"], first["previous"]) == (None, None)
    assert first["next"]["id"] == ids[1]


def test_neighbours_are_in_order_of_verdict_and_skip_cancelled_runs(api: Api) -> None:
    """The second run is decided before the first; a cancelled one is no neighbour."""
    api.tag()
    first, second = api.register(), api.register()
    api.complete(second, 1.0)
    api.post(f"/api/experiment/{api.submit('print(1)')}/cancel")
    api.complete(first, 0.9)
    assert api.get(f"/api/experiment/{second}/surroundings")["next"]["id"] == first
    assert api.get(f"/api/experiment/{first}/surroundings")["previous"]["id"] == second


def test_a_running_experiment_is_measured_against_the_best_now(api: Api) -> None:
    api.tag()
    best = api.register()
    api.complete(best, 1.0)
    found = api.get(f"/api/experiment/{api.register(parent_id=best)}/surroundings")
    assert found["best_then"]["id"] == found["best_now"]["id"] == found["parent"]["id"] == best
    assert (found["previous"], found["next"]) == (None, None)
    api.get("/api/experiment/exp-00000000000000-mar11/surroundings", 404)


def test_noise_comes_from_repeats_of_one_source(api: Api) -> None:
    """Unknown without repeats; two runs of the best's source make it known to its rivals."""
    api.tag()
    api.gpu()

    def trained(source: str, value: float, **more: Any) -> str:
        experiment_id = api.submit(source, **more)
        api.finish(api.claim(), value)
        return experiment_id

    trained("print(1)", 1.0)
    rival = trained("print(2)", 1.1)
    assert api.get(f"/api/experiment/{rival}/surroundings")["noise"] is None
    trained("print(1)", 1.02, repeat=True)
    noise = api.get(f"/api/experiment/{rival}/surroundings")["noise"]
    assert (noise["runs"], noise["sources"]) == (2, 1)
    assert noise["sd"] == pytest.approx(0.02 / 2**0.5)
