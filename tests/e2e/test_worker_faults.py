"""Workers that are killed or paused, a GPU that fails, and runs that hang or leave children.

tests/worker/test_faults.py has these faults and more against a stub orchestrator.
"""

import json
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from gpu_worker import isolation
from tests.e2e.conftest import System, eventually, stub
from tests.e2e.faults import decisions, embedded_url, outcomes
from tests.e2e.test_main_job import marked
from tests.worker.conftest import works

pytestmark = pytest.mark.slow

FAKE_NVML = Path(__file__).parents[1] / "worker" / "fake_nvml"

# Forks a daemon: new session, two forks, no environment, no open file, SIGTERM ignored. `{word}` in
# its command line identifies it.
ESCAPE = """
import os, sys
print("step", flush=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 1024)
        sleep = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(90)"
        os.execve(sys.executable, [sys.executable, "-c", sleep, {word!r}], {{}})
    os._exit(0)
os.wait()
"""


def test_a_worker_and_its_orchestrator_killed_at_once_lose_nothing(system: System) -> None:
    """Both restart: the run is adopted and decided with one attempt."""
    orchestrator = system.serve(AUTORESEARCH_LEASE_SECONDS="20")
    port = int(system.url.rsplit(":", 1)[1])
    worker = system.worker()
    system.post("/api/experiment/setup", tag="t")
    experiment_id = system.submit(stub(0.9, 6))
    system.training(experiment_id)
    for process in (orchestrator, worker):
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    system.worker()
    system.serve(port, AUTORESEARCH_LEASE_SECONDS="20")
    assert system.wait(experiment_id)["status"] == "keep"
    assert outcomes(system, experiment_id) == ["completed"]
    assert decisions(embedded_url(system)) == {experiment_id: 1}


def test_a_worker_paused_for_longer_than_a_lease_loses_its_run_and_serves_again(
    system: System,
) -> None:
    """Its tree dies during the pause, and another worker finishes the run. Its requests get 409
    when it wakes; then it takes the next job."""
    system.serve()
    worker = system.worker("cpu-0")
    system.post("/api/experiment/setup", tag="t")
    experiment_id = system.submit(stub(0.9, 4))
    system.training(experiment_id)
    os.kill(worker.pid, signal.SIGSTOP)
    marker = f"AUTORESEARCH_RUN={experiment_id}.1".encode()
    eventually(lambda: not marked(marker), what="the end of the tree")
    other = system.worker("cpu-1")
    assert system.wait(experiment_id)["status"] == "keep"
    other.terminate()
    assert other.wait(30) == 0
    os.kill(worker.pid, signal.SIGCONT)
    assert system.wait(system.submit(stub(0.8)))["gpu_id"] == "cpu-0"
    assert outcomes(system, experiment_id) == ["expired", "completed"]
    assert set(decisions(embedded_url(system)).values()) == {1}
    assert "the lease is lost" in system.logs() or "is dropped" in system.logs()


def test_a_hung_training_is_killed_at_its_deadline_with_its_log_kept(system: System) -> None:
    """It ignores SIGTERM. Its status is timeout, and the GPU trains the next run."""
    system.serve(AUTORESEARCH_GRACE_SECONDS="0.5")
    system.worker()
    system.post("/api/experiment/setup", tag="t", time_budget_seconds=1)
    hung = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    hung += "print('step one', flush=True); time.sleep(90)\n"
    experiment_id = system.submit(hung)
    found = system.wait(experiment_id)
    assert (found["status"], len(found["attempts"])) == ("timeout", 1)
    assert "over its budget of 1 s" in found["error"]
    log = httpx.get(f"{system.url}/api/experiment/{experiment_id}/log").text
    assert log == "step one\n"
    assert not marked(f"AUTORESEARCH_RUN={experiment_id}.1".encode())
    assert system.wait(system.submit(stub(0.9, 0)))["status"] == "keep"


def test_a_gpu_that_is_lost_is_quarantined_in_the_pool_and_its_job_requeued(
    system: System, tmp_path: Path
) -> None:
    """An Xid of the hardware comes during a run. Another worker takes the job. The GPU gets no
    other, even if NVML reports no fault any more."""
    state = tmp_path / "nvml.json"
    state.write_text("{}")
    system.serve()
    system.start(
        "worker", "--gpu", "0", "--gpu-id", "lost", "--orchestrator", system.url,
        FAKE_NVML=str(state), PYTHONPATH=str(FAKE_NVML),
    )  # fmt: skip
    system.post("/api/experiment/setup", tag="t", mix_models=True)
    experiment_id = system.submit(stub(0.9, 4))
    system.training(experiment_id)
    (tmp_path / "new").write_text(json.dumps({"xids": [79]}))
    (tmp_path / "new").replace(state)

    def quarantine() -> str | None:
        (worker,) = system.get("/api/pool/list")["workers"]
        return str(worker["problem"]) if worker["status"] == "quarantined" else None

    assert "Xid 79" in eventually(quarantine, what="the quarantine")
    eventually(
        lambda: system.get(f"/api/experiment/{experiment_id}")["status"] == "queued",
        what="the job's return to the queue",
    )
    system.worker("well")
    found = system.wait(experiment_id)
    assert (found["status"], found["gpu_id"]) == ("keep", "well")
    assert outcomes(system, experiment_id) == ["lost", "completed"]
    pool = {w["id"]: w["status"] for w in system.get("/api/pool/list")["workers"]}
    assert pool["lost"] == "quarantined"


@pytest.mark.parametrize("level", ["strict", "pid", "none"])
@pytest.mark.parametrize("end", ["by itself", "by its deadline"])
def test_no_child_that_escaped_is_alive_ten_seconds_after_the_end_of_its_run(
    system: System, level: isolation.Level, end: str
) -> None:
    """A process that a run forks does not use the GPU during the next run."""
    if works(level) is None:
        pytest.skip(f"no sandbox {level} here")
    word = f"escaped-{level}-{os.getpid()}-{system.folder.name}"
    system.serve(AUTORESEARCH_GRACE_SECONDS="1")
    system.worker(AUTORESEARCH_SANDBOX=level)
    system.post("/api/experiment/setup", tag="t", time_budget_seconds=2)
    last = "import time; time.sleep(90)"
    if end == "by itself":
        last = "from autoresearch_run import measured\nmeasured(0.9)\nprint('---\\nval_bpb: 0.9')"
    experiment_id = system.submit(ESCAPE.format(word=word) + "import time; time.sleep(1)\n" + last)
    seen = eventually(lambda: running_with(word), what="the child")
    assert seen
    found = system.wait(experiment_id)
    ended = time.monotonic()
    assert found["status"] == ("keep" if end == "by itself" else "timeout")
    eventually(lambda: not running_with(word), 10, "the child's end")
    assert time.monotonic() - ended < 10


def running_with(word: str) -> list[str]:
    """Processes with the word in their command line, except this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes() and path.parent.name != str(os.getpid()):
                found.append(path.parent.name)
        except OSError:
            continue
    return found
