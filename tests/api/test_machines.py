"""A tag's runs belong to one GPU model, unless it was set up to mix models."""

import contextlib
import threading
from typing import Any

import pytest
import redis

from orchestrator.store import keys
from tests.conftest import WOKEN_SECONDS, Api

H200, RTX = "NVIDIA H200", "NVIDIA GeForce RTX 4090"


def pool_of_two(api: Api, **facts: Any) -> None:
    api.gpu("big", 0, gpu_name=H200, **facts)
    api.gpu("small", 1, gpu_name=RTX, **facts)


def info(api: Api, tag: str = "mar11") -> Any:
    [found] = [one for one in api.get("/api/report/tags")["tags"] if one["name"] == tag]
    return found


@pytest.mark.parametrize("profile", [None, "cuda"])
def test_a_tag_belongs_to_the_model_of_its_first_run(api: Api, profile: str | None) -> None:
    pool_of_two(api, **({"profile": profile} if profile else {}))
    api.tag()
    assert info(api)["gpu_model"] is None
    for number in range(3):
        api.submit(f"x = {number}\n")
    first = api.claim("small")
    assert info(api)["gpu_model"] == RTX
    assert api.claim("big") is None
    api.finish(first, 0.99)
    assert api.claim("small")["tag"] == "mar11"


def test_a_tag_that_is_pinned_at_setup_waits_for_its_model(api: Api) -> None:
    pool_of_two(api)
    api.tag(gpu_model=H200)
    api.submit("x = 1\n")
    api.tag("other")
    api.submit("x = 1\n", "other")
    assert api.claim("small")["tag"] == "other", "the pinned tag holds up no other"
    assert api.claim("big")["tag"] == "mar11"


def test_a_tag_that_mixes_models_runs_on_all(api: Api) -> None:
    pool_of_two(api)
    api.tag(mix_models=True)
    for number in range(2):
        api.submit(f"x = {number}\n")
    assert api.claim("small")["tag"] == api.claim("big")["tag"] == "mar11"
    assert (info(api)["gpu_model"], info(api)["mix_models"]) == (None, True)


def test_a_setup_that_pins_and_mixes_is_refused(api: Api) -> None:
    api.post("/api/experiment/setup", 422, tag="mar11", gpu_model=H200, mix_models=True)


def test_no_run_is_ended_early_by_the_curves_of_another_model(api: Api) -> None:
    refused = api.post("/api/experiment/setup", 422, tag="a", mix_models=True, early_stop=True)
    assert "those of several GPU models do not compare" in str(refused)
    for tag, mixes in (("b", True), ("c", False)):
        setup = api.post("/api/experiment/setup", tag=tag, keep_rule="race", mix_models=mixes)
        assert setup["tag"]["early_stop"] is not mixes


def test_whoever_looks_at_a_tag_without_its_model_is_told_why_nothing_runs(api: Api) -> None:
    api.gpu("small", gpu_name=RTX)
    api.tag(gpu_model=H200)
    waiting = api.submit("x = 1\n")
    assert api.claim("small") is None
    why = f"tag mar11 runs on {H200}; GPU small is of the model {RTX}"
    [gpu] = api.get("/api/pool/list")["workers"]
    assert gpu["passed_over"].startswith(f"its model is {RTX}, and tag mar11 runs on {H200}")
    assert why in api.get(f"/api/experiment/{waiting}/wait?timeout=0", 202)["blocked"]
    assert why in api.get("/api/report/summary", tag="mar11")["blocked"]
    assert why in api.get("/api/report/brief", tag="mar11")["text"]
    [alert] = api.get("/api/report/overview")["alerts"]
    assert (alert["kind"], why in alert["text"]) == ("queue_stuck", True)
    api.gpu("big", gpu_name=H200)
    assert "blocked" not in api.get(f"/api/experiment/{waiting}/wait?timeout=0", 202)
    assert "blocked" not in api.get("/api/report/summary", tag="mar11")
    [gpu, _] = api.get("/api/pool/list")["workers"]
    assert gpu["passed_over"], "it is idle, and a run is queued"
    api.claim("big")
    assert all("passed_over" not in gpu for gpu in api.get("/api/pool/list")["workers"])


def test_whoever_looks_at_a_gpu_with_other_data_is_told_how_to_bring_the_tag_s_there(
    api: Api,
) -> None:
    data = {"profile": "80gb", "data_sha256": "d" * 64, "data_folder": "/srv/data"}
    other = {"profile": "80gb", "data_sha256": "e" * 64, "data_folder": "/mnt/data"}
    api.gpu("first", host="old", **data)
    api.tag()
    api.submit("x = 1\n")
    api.finish(api.claim("first"), 0.99)
    api.post("/api/pool/heartbeat", gpu_id="first", draining=True)
    api.gpu("second", 1, host="new", boot_id="1", **other)
    waiting = api.submit("x = 2\n")
    assert api.claim("second") is None
    command = "on its host, new, run `rsync -a --delete old:/srv/data/{data,tokenizer,tokens}"
    [_, gpu] = api.get("/api/pool/list")["workers"]
    assert command in gpu["passed_over"]
    assert gpu["passed_over"].startswith("its data are eeeeeeeeeeee, and tag mar11 runs on dddddd")
    assert command in api.get("/api/report/overview")["gpus"][1]["passed_over"]
    assert command in api.get("/api/report/summary", tag="mar11")["blocked"]
    assert command in api.get(f"/api/experiment/{waiting}/wait?timeout=0", 202)["blocked"]
    [alert] = api.get("/api/report/overview")["alerts"]
    assert (alert["kind"], command in alert["text"]) == ("queue_stuck", True)
    api.gpu("second", 1, host="new", boot_id="1", **data)
    assert api.claim("second")["experiment_id"] == waiting


def test_a_job_wakes_a_waiting_worker_of_its_model(api: Api, no_look_unwoken: None) -> None:
    pool_of_two(api)
    api.tag(gpu_model=H200)
    found: dict[str, Any] = {}

    def wait(gpu_id: str, seconds: float) -> None:
        found[gpu_id] = api.claim(gpu_id, wait=seconds)

    waits = [
        threading.Thread(target=wait, args=("small", 1)),
    ]
    waits[0].start()
    waits.append(threading.Thread(target=wait, args=("big", WOKEN_SECONDS)))
    waits[1].start()
    api.submit("x = 1\n")
    for thread in waits:
        thread.join()
    assert found["small"] is None
    assert found["big"]["tag"] == "mar11"


def test_a_run_that_is_sent_to_a_gpu_of_another_model_is_refused(api: Api) -> None:
    pool_of_two(api)
    api.tag(gpu_model=H200)
    run = api.submit("x = 1\n")
    refused = api.post("/api/gpu/small/train", 409, experiment_id=run)
    assert f"The tag runs on {H200}, and small is of the model {RTX}" in refused["detail"]


def test_a_hand_run_of_a_pinned_tag_gets_a_gpu_of_its_model(api: Api) -> None:
    api.gpu("small", gpu_name=RTX)
    api.tag(gpu_model=H200)
    by_hand = api.register()
    refused = api.post("/api/pool/acquire", experiment_id=by_hand)
    assert refused["reason"] == f"no idle GPU of the model {H200}, to which tag 'mar11' is pinned"
    api.gpu("big", gpu_name=H200)
    assert api.post("/api/pool/acquire", experiment_id=by_hand)["gpu_id"] == "big"


@pytest.mark.parametrize(
    ("models", "next_on", "pinned", "mixes"),
    [
        ([RTX, RTX], "small", RTX, False),
        ([RTX, H200], "small", None, True),
        ([RTX, RTX], "big", None, True),
        ([], "big", H200, False),
    ],
)
def test_an_older_tag_is_pinned_by_its_next_claim_unless_it_has_run_on_another_model(
    api: Api, models: list[str], next_on: str, pinned: str | None, mixes: bool
) -> None:
    pool_of_two(api)
    api.tag(mix_models=True)
    for number, model in enumerate(models):
        api.submit(f"x = {number}\n")
        job = api.claim("big" if model == H200 else "small")
        api.finish(job, 0.99, environment={"gpu_name": model})
    assert api.settings.redis_url is not None
    url = api.settings.redis_url.get_secret_value()
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.hdel(keys.of_tag("mar11", "tag"), "mix_models", "gpu_model")
    api.submit("x = 'next'\n")
    api.submit("x = 'after'\n")
    assert api.claim(next_on)["tag"] == "mar11"
    assert (info(api)["gpu_model"], info(api)["mix_models"]) == (pinned, mixes)
    other = {"big": "small", "small": "big"}[next_on]
    assert (api.claim(other) is None) is not mixes
