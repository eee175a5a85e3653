"""The keep rule `race` over HTTP on GPUs of two models, and on a GPU that drifts."""

from typing import Any

import pytest

from orchestrator.rules.race.drift import CHECK_RUNS
from tests.api.test_race import BASELINE, BASELINE_RUNS, Race, audited, changed
from tests.conftest import Api, eventually

H200, L40S = "NVIDIA H200", "NVIDIA L40S"
MODELS = {"big": H200, "small": L40S}
OFFSET = 0.05  # how much higher the smaller GPU reads


class Machines(Race):
    """A tag that races on a worker of each model."""

    def __init__(self, api: Api, **settings: Any) -> None:
        self.api = api
        api.tag(keep_rule="race", **settings)
        for index, (gpu, model) in enumerate(MODELS.items()):
            api.gpu(gpu, index, gpu_name=model)

    def run(self, value: float | None, gpu: str = "big", **more: Any) -> Any:
        """Claim the next job and end it: the job with its verdict."""
        job, place = self.claim(gpu), {"gpu_name": MODELS[gpu]}
        verdict = self.api.finish(job, value, environment=place, **more)["verdict"]
        return job | {"verdict": verdict, "detail": self.detail(job["experiment_id"])}


def test_a_model_joins_with_one_run_of_the_champion_and_its_readings_are_adjusted(
    api: Api,
) -> None:
    machines = Machines(api, mix_models=True)
    champion = machines.baseline()
    good = api.submit(changed(BASELINE, 3))
    assert machines.run(0.9900 + OFFSET, "small")["verdict"]["status"] == "candidate"
    why = machines.detail(good)["so_far"]["why"]
    assert why == (
        f"its value does not count until the champion has run on {L40S}; another seed follows"
    )
    check = machines.run(0.9980 + OFFSET, "small")
    assert check["detail"]["repeat_of"] == champion
    assert machines.detail(good)["status"] == "keep"
    why = machines.detail(good)["verdict"]["why"]
    assert f"with 0.0500 ± 0.0013 taken off on {L40S}; seeds alone" in why
    best = api.get("/api/experiment/best", tag="mar11")["best"]
    assert (best["experiment_id"], round(best["val_bpb"], 3)) == (good, 0.993)
    assert best["estimate"]["readings"] == {"42": pytest.approx(0.9900, abs=3e-4)}
    bad = api.submit(changed(BASELINE, 9))
    assert machines.run(0.9990 + OFFSET, "small")["experiment_id"] == bad
    assert machines.detail(bad)["status"] == "discard"
    assert audited(api) == []


def test_a_race_that_does_not_mix_runs_on_one_model(api: Api) -> None:
    machines = Machines(api)
    machines.baseline()
    api.submit(changed(BASELINE, 3))
    assert api.claim("small") is None
    assert machines.run(0.9990)["verdict"]["status"] == "discard"


def checked(machines: Machines, value: float, line: int) -> Any:
    """After many ideas a GPU has the champion again, which reads `value`."""
    for number in range(CHECK_RUNS):
        machines.api.submit(changed(BASELINE, line, number + 1))
        assert machines.run(1.1)["detail"]["repeat_of"] is None
    machines.api.submit(changed(BASELINE, line, -1))
    return machines.run(value)


@pytest.mark.slow
def test_a_gpu_that_drifts_is_named_and_the_run_does_not_count(api: Api) -> None:
    machines = Machines(api)
    champion = machines.baseline()
    before = api.get("/api/experiment/best", tag="mar11")["best"]
    check = checked(machines, 1.0100, line=3)
    assert check["detail"]["repeat_of"] == champion
    [warning] = check["detail"]["warnings"]
    assert warning.startswith("does not count for the keep rule: GPU big reads 0.0120 higher")
    assert api.get("/api/experiment/best", tag="mar11")["best"]["val_bpb"] == before["val_bpb"]
    [big, small] = api.get("/api/pool/list")["workers"]
    assert big["drift"].endswith("look at its clocks, its heat and what else runs there")
    assert "drift" not in small
    [alert] = api.get("/api/report/overview")["alerts"]
    assert (alert["kind"], alert["subject"], alert["text"]) == ("gpu_drift", "big", big["drift"])
    assert audited(api) == []
    checked(machines, 0.9980, line=4)
    assert "drift" not in api.get("/api/pool/list")["workers"][0]
    assert audited(api) == []


@pytest.mark.slow
def test_a_check_does_not_wait_for_a_gpu_that_takes_no_runs(api: Api) -> None:
    machines = Machines(api, mix_models=True)
    champion = machines.baseline()
    idea = api.submit(changed(BASELINE, 3))
    machines.run(1.1, "small")
    [queued] = api.post("/api/experiment/history", tag="mar11", status="queued")["experiments"]
    assert machines.detail(queued["id"])["repeat_of"] == champion
    assert api.claim("big") is None, "it is meant for the other GPU"
    api.post("/api/pool/heartbeat", gpu_id="small", problem="hot")
    job = eventually(lambda: api.claim("big"))
    assert job["experiment_id"] == queued["id"]
    api.finish(job, 0.9980, environment={"gpu_name": H200})
    assert machines.run(1.1)["detail"]["repeat_of"] == idea, "its model may not come back"
    assert machines.detail(idea)["status"] == "discard"


def curve(slow: float) -> list[dict[str, float]]:
    """Of a run that took half as many steps as usual in this part of its time."""
    points, step = [], 0.0
    for percent in range(101):
        points.append({"step": int(step), "percent": percent, "loss": 3.0})
        step += 20 * (0.5 if 10 <= percent < 10 + 100 * slow else 1.0)
    return points


def test_a_run_whose_steps_were_disturbed_says_so_and_runs_again(api: Api) -> None:
    machines = Machines(api)
    api.submit(BASELINE)
    for val_bpb in BASELINE_RUNS:
        api.finish(api.claim("big"), val_bpb, curve=curve(0.0))
    idea = api.submit(changed(BASELINE, 3))
    job = api.claim("big")
    assert api.finish(job, 1.1, curve=curve(0.4))["verdict"]["status"] == "candidate"
    detail = machines.detail(idea)
    assert detail["so_far"]["why"].startswith("its run was disturbed, so its value does not count")
    [warning] = detail["warnings"]
    assert warning == (
        "does not count for the keep rule: slow steps cost it 21% of its training, and 0% in other"
        " runs: something else used its machine, or it waited for data"
    )
    again = api.claim("big")
    assert machines.detail(again["experiment_id"])["repeat_of"] == idea
    api.finish(again, 0.9900, curve=curve(0.0))
    assert machines.detail(idea)["status"] == "keep"
    assert audited(api) == []
