"""The keep rule `race` over HTTP: repeats that the service queues, candidates, keeps, merges."""

import random
from collections import deque
from typing import Any

import pytest

from orchestrator.services.core.audit import Audit
from orchestrator.store.connection import Store
from tests.conftest import Api

pytestmark = pytest.mark.anyio

BASELINE = "".join(f"line_{n} = 0\n" for n in range(12))


def changed(source: str, line: int, value: int = 1) -> str:
    """The source with one line changed."""
    return source.replace(f"line_{line} = 0\n", f"line_{line} = {value}\n")


class Night:
    """A tag that races, with GPUs whose runs end when the test says so."""

    def __init__(self, api: Api, gpus: int = 1) -> None:
        self.api = api
        api.tag(keep_rule="race")
        for index in range(gpus):
            api.gpu(f"gpu-{index}", index)
        self.jobs: deque[Any] = deque()

    def claim(self, gpu: str = "gpu-0") -> Any:
        job = self.api.claim(gpu)
        if job is not None:
            self.jobs.append(job)
        return job

    def run(self, val_bpb: float | None, gpu: str = "gpu-0", **more: Any) -> tuple[Any, Any]:
        """Claim the next job and end it; the job and the verdict."""
        job = self.api.claim(gpu)
        return job, self.api.finish(job, val_bpb, **more)["verdict"]

    def baseline(self, *values: float) -> str:
        experiment_id = self.api.submit(BASELINE)
        for seed, value in enumerate(values or (0.9979, 0.9991, 0.9968, 0.9984, 0.9977), 42):
            job, _ = self.run(value)
            assert (job["train_py"], job["seed"]) == (BASELINE, seed)
        return experiment_id

    def detail(self, experiment_id: str) -> Any:
        return self.api.get(f"/api/experiment/{experiment_id}")


async def audited(redis_url: str) -> list[str]:
    store = Store(redis_url, 5)
    try:
        return (await Audit(store).check("mar11")).differences
    finally:
        await store.close()


async def test_the_baseline_runs_five_times_and_its_value_is_their_mean(
    api: Api, redis_url: str
) -> None:
    night = Night(api)
    first = night.baseline()
    best = api.get("/api/experiment/best", tag="mar11")["best"]
    assert best["experiment_id"] == first
    assert best["val_bpb"] == pytest.approx(0.99798)
    assert await audited(redis_url) == []


async def night_for_the_eye(api: Api, redis_url: str) -> None:
    night = Night(api, 3)
    chance = random.Random(1)
    truth = {"": 1.0}
    night.api.submit(BASELINE)
    count = 0
    for _ in range(150):
        for gpu in ("gpu-0", "gpu-1", "gpu-2"):
            job = night.claim(gpu)
            while job is None and count < 40:
                count += 1
                best = api.http.get("/api/experiment/best", params={"tag": "mar11"})
                source = BASELINE
                if best.status_code == 200:
                    champion = best.json()["best"]["experiment_id"]
                    source = api.http.get(f"/api/experiment/{champion}/train.py").text
                api.submit(changed(source, count % 12, count), parent_id=None)
                job = night.claim(gpu)
        if not night.jobs:
            break
        job = night.jobs.popleft()
        values = [int(l.split("=")[1]) for l in job["train_py"].split("\n") if l]
        truth = 1.0 - sum(0.002 * (hash(("e", v)) % 3 - 1) for v in values if v)
        if chance.random() < 0.05:
            api.finish(job, outcome="crash", error="boom")
        else:
            api.finish(job, truth + chance.gauss(0, 0.001))
    for record in api.post("/api/experiment/history", tag="mar11")["experiments"]:
        d = night.detail(record["id"])
        print(record["id"][4:18], d["status"], d["seed"], d["val_bpb"], d["repeat_of"], d["merged_from"], (d["verdict"] or {}).get("why"))
    print(await audited(redis_url))
    assert 0
