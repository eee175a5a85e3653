"""Similar ideas, dead ends, and the refusal of an equal source."""

import shutil
from typing import Any

import pytest

from orchestrator.services.agents import similar
from tests import hostile_log as hostile
from tests.conftest import Api, MakeApi, eventually


def tried(api: Api, hypothesis: str, val_bpb: float | None = None, **fields: Any) -> str:
    experiment_id = api.register(hypothesis=hypothesis, **fields)
    if val_bpb is None:
        api.crash(experiment_id)
    else:
        api.complete(experiment_id, val_bpb)
    return experiment_id


def near(api: Api, idea: str, **more: Any) -> list[str]:
    found = api.post("/api/search/similar", tag="mar11", idea=idea, **more)
    assert found["searched"] == found["total"]
    return [row["experiment_id"] for row in found["near"]]


def test_what_was_tried_near_an_idea_comes_with_how_it_went(api: Api) -> None:
    """By the words of hypothesis and diff summary; with status and distance from the best."""
    api.tag()
    first = tried(api, "raise the learning rate of muon", 1.0, diff_summary="MATRIX_LR 1 -> 2")
    second = tried(api, "lower the learning rate", 1.25)
    tried(api, "tie the embeddings", 1.5)
    found = api.get("/api/search/similar", tag="mar11", idea="learning rates of Muon", limit=2)
    assert [row["experiment_id"] for row in found["near"]] == [first, second]
    assert found["near"][1]["status"] == "discard"
    assert found["near"][1]["behind_best"] == 0.25
    assert found["near"][0]["match"] > found["near"][1]["match"]
    assert near(api, "MATRIX_LR")[0] == first
    suggestion = api.get("/api/search/suggest", tag="mar11", idea="learning rates of Muon")
    assert suggestion["near"][:2] == found["near"]
    assert api.get("/api/search/suggest", tag="mar11")["near"] == []


def test_an_edit_is_found_by_the_lines_that_it_changed(api: Api) -> None:
    """By the lines that it added and removed, and not by those that it kept."""
    api.tag()
    api.gpu()
    api.submit("MATRIX_LR = 0.04\nDEPTH = 8\n", hypothesis="baseline")
    api.finish(api.claim(), 1.0)
    edit = api.submit("MATRIX_LR = 0.0773\nDEPTH = 8\n", hypothesis="try something")
    assert near(api, "matrix_lr 0.0773") == [edit]
    assert near(api, "depth") == []
    api.settings.paths.source(api.get(f"/api/experiment/{edit}")["source_sha256"]).unlink()
    shutil.rmtree(api.settings.paths.home / "index")
    assert near(api, "matrix_lr 0.0773") == []
    assert near(api, "try something") == [edit]


def test_what_is_new_is_found_at_once_and_how_it_ends_as_well(api: Api) -> None:
    """The index is caught up by each search; results are read when they are asked for."""
    api.tag()
    experiment_id = api.register(hypothesis="sink tokens")
    asked = {"tag": "mar11", "idea": "sink tokens"}
    assert api.post("/api/search/similar", **asked)["near"][0]["status"] == "running"
    api.complete(experiment_id, 1.0)
    assert api.post("/api/search/similar", **asked)["near"][0]["status"] == "keep"


def test_tags_do_not_mix(api: Api) -> None:
    api.tag()
    api.tag("other")
    tried(api, "sink tokens", 1.0)
    assert api.get("/api/search/similar", tag="other", idea="sink tokens")["near"] == []
    api.get("/api/search/similar", 404, tag="nowhere", idea="x")
    api.post("/api/search/similar", 422, tag="mar11", idea=" ")


def test_a_lost_index_is_created_again_for_two_orchestrators(make_api: MakeApi) -> None:
    """They share a home; one deletes the cache under the other, and both find everything."""
    one, two = make_api(), make_api()
    one.tag()
    ids = [tried(one, f"idea number {n} of rotary", 1.0 + n) for n in range(5)]
    assert set(near(one, "rotary")) == set(ids)
    assert near(two, "number 3")[0] == ids[3]
    shutil.rmtree(one.settings.paths.home / "index")
    assert near(two, "number 3")[0] == ids[3]
    damaged = one.settings.paths.text_index("mar11")
    damaged.write_bytes(b"no database" * 500)
    assert set(near(one, "rotary")) == set(ids)


def test_a_long_history_is_indexed_in_the_background(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call takes a part, says so, and the rest comes by itself."""
    monkeypatch.setattr(similar, "CALL_LIMIT", 4)
    monkeypatch.setattr(similar, "CHUNK", 2)
    monkeypatch.setattr(similar, "REST_SECONDS", 1)
    api.tag()
    ids = [api.register(hypothesis=f"idea {n}") for n in range(20)]
    first = api.get("/api/search/similar", tag="mar11", idea="idea 19")
    assert (first["searched"], first["total"]) == (4, 20)

    monkeypatch.setattr(similar, "REST_SECONDS", 0)
    monkeypatch.setattr(similar, "CALL_LIMIT", 0)

    def caught_up() -> bool:
        found = api.get("/api/search/similar", tag="mar11", idea="idea 19")
        return bool(found["searched"] == 20 and found["near"][0]["experiment_id"] == ids[19])

    eventually(caught_up)


def test_dead_ends_are_barren_categories_and_failures_that_repeat(api: Api) -> None:
    """With how often, and the experiments to look at; a run's words stay untrusted."""
    api.tag()
    tried(api, "baseline", 1.0)
    for n in range(5):
        tried(api, f"a{n}", 1.5, category="attention")
    failing = []
    for n in range(3):
        experiment_id = api.register(hypothesis=f"c{n}")
        api.crash(experiment_id, f"exit code 1\n{hostile.FORGED_TRACEBACK}"[:19_000])
        failing.append(experiment_id)
    found = api.get("/api/search/suggest", tag="mar11")["dead_ends"]
    by_kind = {(end["kind"], end["untrusted_cause"]): end for end in found}
    barren = by_kind["category", None]
    assert (barren["category"], barren["tried"]) == ("attention", 5)
    evil = by_kind["failure", "EvilError"]
    assert evil["experiment_ids"] == failing[::-1]
    for end in found:
        hostile.assert_harmless(end["untrusted_cause"] or "")
        assert "Evil" not in end["text"]


def test_hostile_ideas_are_shown_harmlessly(api: Api) -> None:
    """Another agent's hypothesis is text like any other."""
    api.tag()
    tried(api, f"sink tokens {hostile.BIDI}{hostile.TITLE}{hostile.INVISIBLE}", 1.0)
    found = api.get("/api/search/similar", tag="mar11", idea=f"sink {hostile.RUN_LOG!r}"[:3000])
    hostile.assert_harmless(found["near"][0]["hypothesis"])


def test_an_equal_source_is_refused_with_the_earlier_verdict(api: Api) -> None:
    """The agent needs no second call to learn how it went; `repeat` runs it again."""
    api.tag()
    api.gpu()
    source = {"tag": "mar11", "hypothesis": "again", "train_py": "1"}
    experiment_id = api.submit("1")
    refused = api.post("/api/experiment/submit", 409, **source)
    assert refused["existing"] == experiment_id
    assert refused["earlier"]["status"] == "queued"
    api.finish(api.claim(), 1.5)
    refused = api.post("/api/experiment/submit", 409, **source)
    assert refused["earlier"]["experiment_id"] == experiment_id
    assert refused["earlier"]["verdict"]["val_bpb"] == 1.5
    assert refused["earlier"]["verdict"]["digest"]["status"] == "keep"
    api.post("/api/experiment/submit", 202, **source, repeat=True)
