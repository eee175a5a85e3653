"""The digest over HTTP: alone, and in the verdict that a waiting caller gets."""

import base64
import threading
from typing import Any

from orchestrator.files import LOG_TAIL_BYTES
from orchestrator.rules import digest as rule
from orchestrator.schemas import DIGEST_LIMIT_BYTES
from tests import hostile_log as hostile
from tests.conftest import Api, eventually, lease_of

FAILED = b"""step 00001 ( 50.0%) | loss: 3.0
Traceback (most recent call last):
  File "/w/train.py", line 7, in forward
    x = q @ k
RuntimeError: shapes do not match
"""
CURVE = [{"step": n, "percent": n * 1.0, "loss": 5 - n / 50} for n in range(101)]


def running(api: Api, source: str, **fields: Any) -> Any:
    experiment_id = api.submit(source, **fields)
    job = api.claim()
    assert job["experiment_id"] == experiment_id
    return job


def say(api: Api, job: Any, output: bytes, offset: int = 0) -> None:
    for start in range(0, len(output), 100_000):
        data = base64.b64encode(output[start : start + 100_000]).decode()
        api.post("/api/job/progress", log={"offset": offset + start, "data": data}, **lease_of(job))


def digest_of(api: Api, job: Any) -> Any:
    response = api.http.get(f"/api/experiment/{job['experiment_id']}/digest")
    assert response.status_code == 200
    assert len(response.content) < DIGEST_LIMIT_BYTES
    return response.json()


def test_a_digest_compares_with_parent_and_best(api: Api) -> None:
    """A run that is discarded: against its parent, which is the best, metric by metric."""
    api.tag()
    api.gpu(vram_mb=46_000)
    first = running(api, "1")
    metrics = {"val_bpb": 1.0, "training_seconds": 300, "total_tokens_m": 600, "peak_vram_mb": 1}
    api.finish(first, metrics=metrics, curve=CURVE)
    second = running(api, "2")
    metrics |= {"val_bpb": 1.25, "total_tokens_m": 300, "peak_vram_mb": 45_000}
    api.finish(second, metrics=metrics, curve=CURVE[:51])
    found = digest_of(api, second)
    assert (found["status"], found["metrics"]["tokens_per_second"]) == ("discard", 1_000_000)
    assert found["parent"]["experiment_id"] == first["experiment_id"]
    assert found["best"]["changes"]["val_bpb"] == 0.25
    assert found["curve"][-1] == [50.0, 4.0, 4.0]
    codes = [warning["code"] for warning in found["warnings"]]
    assert codes == ["vram_near_limit", "slower_than_parent"]


def test_a_waiting_caller_gets_it_in_the_verdict(api: Api) -> None:
    """By submit with `wait`, and by /wait; reporting a run and reading its record give none."""
    api.tag()
    api.gpu()
    answers: list[Any] = []

    def submit() -> None:
        body = {"tag": "mar11", "hypothesis": "h", "train_py": "1"}
        answers.append(api.http.post("/api/experiment/submit?wait=20", json=body).json())

    waiting = threading.Thread(target=submit)
    waiting.start()
    job = api.claim(wait=10)
    reported = api.finish(job, 1.0)
    waiting.join()
    path = f"/api/experiment/{job['experiment_id']}"
    waited = api.get(f"{path}/wait", timeout=1)
    assert answers[0]["verdict"]["digest"] == waited["verdict"]["digest"] == digest_of(api, job)
    assert waited["verdict"]["digest"]["metrics"] == {"val_bpb": 1.0}
    assert "digest" not in reported["verdict"]
    assert "digest" not in api.get(path)["verdict"]


def test_a_failed_run_says_how_from_the_end_of_its_log(api: Api) -> None:
    """Live and once the log is compressed: exception, message and the innermost frame."""
    api.tag()
    api.gpu()
    job = running(api, "1")
    say(api, job, b"x" * 300_000 + b"\n" + FAILED)
    assert digest_of(api, job)["status"] == "running"
    api.finish(job, outcome="crash", error="exit code 1\nRuntimeError: shapes do not match")
    closed = api.settings.paths.closed_log("mar11", job["experiment_id"], 1)
    eventually(closed.exists)
    said = digest_of(api, job)["untrusted"]
    assert (said["exception"], said["message"]) == ("RuntimeError", "shapes do not match")
    assert said["frames"] == [
        {"file": "/w/train.py", "line": 7, "function": "forward", "code": "x = q @ k"}
    ]


def test_a_hand_run_has_a_digest_too(api: Api) -> None:
    """Its error is what its agent wrote."""
    api.tag()
    experiment_id = api.register()
    api.crash(experiment_id, "FAIL: loss is NaN at step 3")
    found = api.get(f"/api/experiment/{experiment_id}/digest")
    assert found["untrusted"]["message"] == "loss is NaN at step 3"


def test_a_hostile_log_of_fifty_megabytes_is_read_at_its_end_only(api: Api) -> None:
    """The log is closed; the digest reads the end that is kept beside it, and nothing that the log
    says gets out of `untrusted`."""
    api.tag()
    api.gpu()
    job = running(api, hostile.train_py())
    paths = api.settings.paths
    live = paths.live_log("mar11", job["experiment_id"], 1)
    live.parent.mkdir(parents=True)
    with live.open("wb") as log:
        log.writelines(hostile.long_line())
        log.write(hostile.RUN_LOG)
    error = hostile.RUN_LOG.decode(errors="replace")[:19_000]
    api.finish(job, outcome="crash", error=error, warnings=[w[:100] for w in hostile.PIECES])
    closed = paths.closed_log("mar11", job["experiment_id"], 1)
    eventually(closed.exists, 60)
    tail = paths.log_tail("mar11", job["experiment_id"], 1)
    assert tail.stat().st_size == LOG_TAIL_BYTES >= rule.TAIL_BYTES
    found = digest_of(api, job)
    assert found["status"] == "crash"
    assert found["metrics"] == {}
    said = found.pop("untrusted")
    assert "IGNORE" not in str(found)
    for text in (said["error"], said["exception"], said["message"], *said["worker_warnings"]):
        hostile.assert_harmless(text)


def test_an_experiment_that_is_not_there_is_404(api: Api) -> None:
    api.get("/api/experiment/exp-0660f78349a45a-mar11/digest", 404)
    api.tag()
    api.get(f"/api/experiment/{api.register()}/digest", 422, full=1)
