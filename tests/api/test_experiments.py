"""Experiments by hand over HTTP: set up, register, report, look up."""

import re
from pathlib import Path

import pytest

from orchestrator.services import wiring
from tests.conftest import Api, MakeApi

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def test_setup_answers_the_tag_and_its_branch(api: Api) -> None:
    """A new tag has a branch, the default settings and no result."""
    answer = api.post("/api/experiment/setup", tag="mar11")
    assert answer["branch"] == answer["tag"]["branch"] == "autoresearch/mar11"
    assert answer["tag"]["best_val_bpb"] is None
    assert answer["tag"]["time_budget_seconds"] == 300
    assert RFC3339.fullmatch(answer["tag"]["created_at"])


def test_setup_of_a_tag_that_exists_is_a_conflict_with_the_tag(api: Api) -> None:
    """The second setup changes nothing and shows what exists."""
    api.tag(time_budget_seconds=60)
    answer = api.post("/api/experiment/setup", 409, tag="mar11", time_budget_seconds=90)
    assert "exists" in answer["error"]
    assert answer["existing"]["time_budget_seconds"] == 60


def test_the_first_result_is_kept_and_a_better_one_beats_it(api: Api) -> None:
    """keep, then keep with a positive delta, then discard."""
    api.tag()
    first = api.complete(api.register(), 0.99)
    assert (first["status"], first["improved"], first["delta"]) == ("keep", True, 0)
    assert first["action"] == "keep_commit"
    second = api.complete(api.register(), 0.98)
    assert second["status"] == "keep"
    assert abs(second["delta"] - 0.01) < 1e-12
    worse = api.complete(api.register(), 0.985)
    assert (worse["status"], worse["action"]) == ("discard", "git_reset")
    assert worse["best_val_bpb"] == 0.98


def test_a_completion_reported_twice_replays_its_verdict(api: Api) -> None:
    """The retried report of the champion stays a keep, whatever it says the second time."""
    api.tag()
    champion = api.register()
    first = api.complete(champion, 0.98)
    assert api.complete(champion, 0.98) == first
    assert api.complete(champion, 5.0) == first
    assert api.crash(champion) == first
    assert api.get("/api/report/summary", tag="mar11")["stats"]["total"] == 1


def test_a_value_that_is_no_number_changes_nothing(api: Api) -> None:
    """NaN, Infinity, zero and negative val_bpb are refused; the run goes on."""
    api.tag()
    experiment_id = api.register()
    for text in ("NaN", "Infinity", "-Infinity", "0", "-0.5", "null", '"abc"'):
        response = api.http.post(
            "/api/experiment/complete",
            content=f'{{"experiment_id": "{experiment_id}", "val_bpb": {text}}}',
        )
        assert response.status_code == 422, text
        assert "val_bpb" in response.json()["error"]
    assert api.get(f"/api/experiment/{experiment_id}")["status"] == "running"


def test_a_misspelt_field_is_refused_and_named(api: Api) -> None:
    """`val_bbp` never passes silently."""
    api.tag()
    answer = api.post(
        "/api/experiment/complete", 422, experiment_id=api.register(), val_bpb=1, val_bbp=0.9
    )
    assert "val_bbp" in answer["error"]
    assert answer["errors"] == [{"field": "val_bbp", "message": answer["errors"][0]["message"]}]


def test_crashes_in_a_row_raise_the_flag_and_a_result_resets_it(api: Api) -> None:
    """should_abort from the third crash on; a completed run sets the count back."""
    api.tag()
    flags = [api.crash(api.register())["should_abort"] for _ in range(4)]
    assert flags == [False, False, True, True]
    api.complete(api.register(), 1.0)
    again = api.crash(api.register())
    assert (again["consecutive_crashes"], again["should_abort"]) == (1, False)
    assert again["action"] == "git_reset"


def test_an_exact_tie_is_a_near_miss_and_the_threshold_is_strict(api: Api) -> None:
    """Distance 0 counts, distance = threshold does not."""
    api.tag(near_miss_threshold=0.25)
    api.complete(api.register(), 1.0)
    tie, near, edge = (api.register(description=name) for name in ("tie", "near", "edge"))
    for experiment_id, value in ((near, 1.125), (tie, 1.0), (edge, 1.25)):
        api.complete(experiment_id, value)
    found = api.post("/api/experiment/near-misses", tag="mar11")
    assert [miss["experiment_id"] for miss in found["near_misses"]] == [tie, near]
    assert [miss["delta"] for miss in found["near_misses"]] == [0, 0.125]
    assert found["total"] == 2
    one = api.get("/api/experiment/near-misses", tag="mar11", limit=1)
    assert (len(one["near_misses"]), one["total"]) == (1, 2)


def test_history_pages_through_everything_oldest_first(api: Api) -> None:
    """The newest N, and the cursor leads to those before them, none twice and none lost."""
    api.tag()
    ids = [api.register(description=str(i)) for i in range(7)]
    assert ids == sorted(ids)
    for experiment_id in ids[:3]:
        api.complete(experiment_id, 1.0)
    page = api.post("/api/experiment/history", tag="mar11", limit=3)
    assert [e["id"] for e in page["experiments"]] == ids[4:]
    assert page["total"] == 7
    seen = ids[4:]
    while page["next_cursor"]:
        page = api.get("/api/experiment/history", tag="mar11", limit=3, cursor=page["next_cursor"])
        seen = [e["id"] for e in page["experiments"]] + seen
    assert seen == ids
    running = api.post("/api/experiment/history", tag="mar11", status="running")
    assert [e["id"] for e in running["experiments"]] == ids[3:]
    assert running["total"] == 4


def test_a_record_has_the_upstream_fields_and_zero_for_metrics_not_known(api: Api) -> None:
    """The old form knows no null for a metric."""
    api.tag()
    experiment_id = api.register(parent_id=None, gpu_id="gpu-7")
    record = api.post("/api/experiment/history", tag="mar11")["experiments"][0]
    assert set(record) == {
        "id", "tag", "parent_id", "commit_sha", "description", "hypothesis", "category", "val_bpb",
        "peak_vram_mb", "training_seconds", "total_tokens_m", "mfu_percent", "num_steps",
        "num_params_m", "depth", "status", "gpu_id", "started_at", "finished_at", "diff_summary",
        "error",
    }  # fmt: skip
    assert (record["id"], record["val_bpb"], record["gpu_id"]) == (experiment_id, 0, "gpu-7")
    assert api.get(f"/api/experiment/{experiment_id}")["val_bpb"] is None


def test_best_is_not_found_before_the_first_result(api: Api) -> None:
    api.tag()
    assert "no result" in api.post("/api/experiment/best", 404, tag="mar11")["error"]
    experiment_id = api.register(commit_sha="feedface99")
    api.complete(experiment_id, 0.9, peak_vram_mb=1024)
    best = api.post("/api/experiment/best", tag="mar11")
    assert best["best"]["experiment_id"] == best["experiment"]["id"] == experiment_id
    assert best["best"]["commit_sha"] == "feedface99"
    assert best == api.get("/api/experiment/best", tag="mar11")


def test_unknown_things_are_not_found(api: Api) -> None:
    """404 with a sentence, for tags, experiments and parents."""
    api.tag()
    api.post("/api/experiment/history", 404, tag="nosuch")
    api.post("/api/search/strategy", 404, tag="nosuch")
    api.post("/api/experiment/complete", 404, experiment_id="exp-nosuch", val_bpb=1)
    api.post("/api/experiment/complete", 404, experiment_id="exp-0660f78349a45a-mar11", val_bpb=1)
    api.get("/api/experiment/exp-0660f78349a45a-other", 404)
    api.post(
        "/api/experiment/register", 404, tag="mar11", hypothesis="h", description="d",
        category="other", commit_sha="a", diff_summary="", parent_id="exp-0660f78349a45a-mar11",
    )  # fmt: skip


def test_a_tag_that_is_a_path_is_refused(api: Api) -> None:
    for name in ("../../x", "a/b", "", ".x", "a..b", "x" * 65, "a b", "a\n"):
        api.post("/api/experiment/setup", 422, tag=name)
    api.tag("x" * 64)
    api.tag("a.b-c_D")


def test_decision_times_increase_strictly_within_a_tag(api: Api) -> None:
    """finished_at orders the decisions, in a fixed-width form that sorts as text."""
    api.tag()
    for _ in range(20):
        api.complete(api.register(), 1.0)
    times = [
        e["finished_at"] for e in api.post("/api/experiment/history", tag="mar11")["experiments"]
    ]
    assert all(RFC3339.fullmatch(t) for t in times)
    assert len(set(times)) == 20
    assert times == sorted(times)


def test_truth_is_no_number(api: Api) -> None:
    """`true` must not be decided as 1.0."""
    api.tag()
    experiment_id = api.register()
    api.post("/api/experiment/complete", 422, experiment_id=experiment_id, val_bpb=True)
    api.post(
        "/api/experiment/complete", 422, experiment_id=experiment_id, val_bpb=1,
        training_seconds=1e308,
    )  # fmt: skip


def test_an_orchestrator_outside_a_checkout_makes_no_tag_without_a_prepare_py(
    make_api: MakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer names the setting; a tag that exists is joined as everywhere."""
    make_api().tag("old")
    installed = tmp_path / "lib" / "orchestrator" / "services" / "wiring.py"
    monkeypatch.setattr(wiring, "__file__", str(installed))
    api = make_api()
    refused = api.post("/api/experiment/setup", 404, tag="new")
    assert "AUTORESEARCH_PREPARE_PY" in refused["error"]
    assert api.post("/api/experiment/setup", 409, tag="old")["existing"]["prepare_sha256"]
    (tmp_path / "prepare.py").write_text("WORD = 1")
    named = make_api(prepare_py=tmp_path / "prepare.py")
    assert named.post("/api/experiment/setup", tag="new")["tag"]["prepare_sha256"]


def test_metrics_may_have_the_names_of_the_printed_block(api: Api) -> None:
    """Agents copy `total_tokens_M` from the block; both spellings at once are a mistake."""
    api.tag()
    experiment_id = api.register()
    printed = {"experiment_id": experiment_id, "val_bpb": 1.0, "num_params_M": 50.3}
    both = api.post("/api/experiment/complete", 422, **printed, num_params_m=50.3)
    assert "num_params_M: no such field" in both["error"]
    api.post("/api/experiment/complete", **printed, total_tokens_M=499.6)
    record = api.get(f"/api/experiment/{experiment_id}")
    assert (record["num_params_m"], record["total_tokens_m"]) == (50.3, 499.6)
