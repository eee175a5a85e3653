"""The keep rule `race` before a tag has a result: which repeats are queued."""

from tests.conftest import Api

BASELINE, OTHER = "x = 0\n", "x = 1\n"


def tag_and_gpus(api: Api) -> None:
    api.tag(keep_rule="race")
    for index in range(3):
        api.gpu(f"gpu-{index}", index)


def test_a_baseline_that_crashed_is_not_repeated_for_the_repeats_of_it_that_still_run(
    api: Api,
) -> None:
    tag_and_gpus(api)
    baseline = api.submit(BASELINE)
    api.submit(OTHER)
    job, other = api.claim("gpu-0"), api.claim("gpu-1")
    api.finish(other, outcome="crash", error="boom")
    repeats = [api.claim("gpu-1"), api.claim("gpu-2")]
    assert [(one["train_py"], one["seed"]) for one in repeats] == [(BASELINE, 43), (BASELINE, 44)]
    api.finish(job, outcome="crash", error="boom")
    assert api.claim("gpu-0") is None
    for repeat in repeats:
        assert api.finish(repeat, 0.9979)["verdict"]["status"] == "repeat"
    assert api.claim("gpu-0") is None
    assert api.get(f"/api/experiment/{baseline}")["status"] == "crash"


def test_a_baseline_that_waits_for_another_worker_is_not_run_with_its_seed_by_a_repeat(
    api: Api,
) -> None:
    tag_and_gpus(api)
    api.submit(BASELINE)
    api.submit(OTHER)
    job, other = api.claim("gpu-0"), api.claim("gpu-1")
    api.finish(other, outcome="crash", error="boom")
    repeats = [api.claim("gpu-1"), api.claim("gpu-2")]
    api.finish(job, outcome="handed_back")
    api.finish(repeats[0], 0.9979)
    again = [api.claim(gpu) for gpu in ("gpu-0", "gpu-1")]
    assert [one and (one["experiment_id"], one["seed"]) for one in again] == [
        (job["experiment_id"], 42), None,
    ]  # fmt: skip
