"""Slurm places the daemons: two nodes, one of which dies, ends of time, preemption."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.harness.ports import free_port
from orchestrator.cli.errors import CommandError
from orchestrator.cli.fleet.slurm import _signal
from tests.cluster.slurm_cluster import FAKE_NVML, PATH, ROOT, Cluster
from tests.e2e.conftest import System, eventually, stub
from tests.e2e.faults import decisions, embedded_url, outcomes

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        not all(shutil.which(each, path=PATH) for each in ("slurmctld", "munged", "bwrap")),
        reason="needs Debian's slurm-wlm, munge and bubblewrap",
    ),
]

TOKEN = "the-orchestrators-secret"
EXPERIMENTS = 40
PRELUDE = """
set -euo pipefail
hostname() { echo 127.0.0.1; }
trap 'kill %1; wait' EXIT
"""


@pytest.fixture(scope="module")
def _cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    running = Cluster(getattr(request, "param", "linuxproc"))
    yield running
    running.close()


@pytest.fixture
def cluster(_cluster: Cluster, system: System) -> Iterator[Cluster]:
    """A cluster without jobs, whose commands and jobs have the system's settings."""
    system.environment |= _cluster.environment | {"PYTHONPATH": str(ROOT)}
    yield _cluster
    _cluster.clear()


def fleet(system: System, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "fleet", "slurm", *arguments],
        cwd=system.folder, env=system.environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def with_gpus(system: System) -> None:
    (system.folder / "nvml.json").write_text(json.dumps({"gpus": 4}))
    system.environment |= {
        "FAKE_NVML": str(system.folder / "nvml.json"),
        "PYTHONPATH": f"{FAKE_NVML}:{ROOT}",
        "AUTORESEARCH_SANDBOX": "none",
    }


def up(system: System, *arguments: str, array: int = 1) -> list[str]:
    """The tasks of a fleet on the CPU, once it has joined the pool."""
    flags = ("--cpu", "--time", "60", "--array", str(array), "--orchestrator", system.url)
    flags += ("--gpus-per-node", "2")  # so that each is on a node of its own
    idle = system.get("/api/pool/list")["idle"] + array
    job = fleet(system, "up", "--json", *flags, *arguments)["job"]
    eventually(lambda: system.get("/api/pool/list")["idle"] == idle, 60, "the fleet")
    return [f"{job}_{number}" for number in range(array)]


def held(system: System, bpb: float = 0.9) -> str:
    """A train.py that ends once there is a file `go`. It needs a sandbox that shows it."""
    wait = f"while not os.path.exists({str(system.folder / 'go')!r}): time.sleep(0.1)"
    return f"import os, time\nprint('step', flush=True)\n{wait}\n" + stub(bpb)


def draining(system: System) -> None:
    """Return once a worker takes no new run."""

    def found() -> bool:
        return "draining" in {w["status"] for w in system.get("/api/pool/list")["workers"]}

    eventually(found, 100, "a worker that drains")


def task_of(system: System, experiment_id: str) -> str:
    """The task that trains it."""
    system.training(experiment_id)
    workers = system.get("/api/pool/list")["workers"]
    (found,) = (w for w in workers if w["current_experiment_id"] == experiment_id)
    return str(found["placement"]).removeprefix("slurm ")


def test_forty_experiments_are_decided_once_though_a_node_dies(
    cluster: Cluster, system: System
) -> None:
    """Each task has two GPUs, and a daemon for each. `status` knows which is whose, and `down`
    leaves no process."""
    with_gpus(system)
    system.serve()
    system.post("/api/experiment/setup", tag="t")
    flags = ("--gpus-per-node", "2", "--time", "60", "--orchestrator", system.url, "--array", "2")
    fleet(system, "up", *flags, "--json")
    eventually(lambda: system.get("/api/pool/list")["idle"] == 4, 60, "the fleet")

    tasks = fleet(system, "status", "--orchestrator", system.url, "--json")
    gpus = {task["node"]: {gpu["id"].partition(":")[2] for gpu in task["gpus"]} for task in tasks}
    assert gpus == {"n1": {"GPU-0abc", "GPU-1abc"}, "n2": {"GPU-2abc", "GPU-3abc"}}

    def trained() -> dict[str, str]:
        """Which experiment is on which node."""
        workers = system.get("/api/pool/list")["workers"]
        node = {f"slurm {task['task']}": task["node"] for task in tasks}
        return {w["current_experiment_id"]: node[w["placement"]] for w in workers}

    # In the middle, four runs that wait: one for each GPU.
    sources = [stub(2 - n / 100, 0.4, f"number {n}") for n in range(EXPERIMENTS)]
    sources[16:20] = (held(system, 1.8 - n / 100) for n in range(4))
    with ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(system.submit, sources))
    eventually(lambda: trained().keys() == set(ids[16:20]), 60, "the runs that wait")
    victims = [each for each, node in trained().items() if node == "n1"]
    cluster.kill("n1")
    (system.folder / "go").touch()

    eventually(lambda: len(decisions(embedded_url(system))) == EXPERIMENTS, 60, "all verdicts")
    assert decisions(embedded_url(system)) == dict.fromkeys(ids, 1)
    with httpx.Client(base_url=system.url) as http:
        found = {each: http.get(f"/api/experiment/{each}").json()["attempts"] for each in ids}
    ends = {each: [attempt["outcome"] for attempt in attempts] for each, attempts in found.items()}
    assert {each[-1] for each in ends.values()} == {"completed"}
    assert [ends[each] for each in victims] == [["expired", "completed"]] * 2
    fleet(system, "down", "--json")
    assert cluster.processes() == {}
    assert cluster.call("squeue", "-h") == ""


def test_a_task_whose_time_nears_its_end_takes_no_new_run(cluster: Cluster, system: System) -> None:
    """Its present one has half of that time to end, and is not handed back. (Slurm looks every 30 s
    and signals up to 30 s early, so a task of one minute could be told before it has a run.)"""
    system.serve()
    system.post("/api/experiment/setup", tag="t")
    (task,) = up(system, "--sandbox", "none", "--time", "2")
    present, next_one = system.submit(held(system)), system.submit(stub(0.8))
    draining(system)
    (system.folder / "go").touch()
    assert system.wait(present)["status"] == "keep"
    eventually(lambda: cluster.state(task) in ("", "COMPLETED"), what="the end of the task")
    assert system.get(f"/api/experiment/{next_one}")["status"] == "queued"


@pytest.mark.parametrize(
    ("_cluster", "how"),
    [("linuxproc", "scontrol requeue"), ("pgid", "preemption")],
    indirect=["_cluster"],
)
def test_a_task_that_slurm_takes_away_hands_its_run_back(
    cluster: Cluster, system: System, how: str
) -> None:
    """Slurm sends SIGTERM to all processes of the task, the run's too, or to the worker alone.
    Neither is a loss."""
    system.serve()
    system.post("/api/experiment/setup", tag="t")
    up(system, array=2)
    experiment_id = system.submit(stub(0.9, 4))
    task = task_of(system, experiment_id)
    if how == "preemption":
        node = cluster.call("squeue", "-h", "-j", task, "-o", "%N")
        urgent = ("--partition=urgent", "--exclusive", f"--nodelist={node}", "--output=/dev/null")
        cluster.call("sbatch", *urgent, "--wrap=sleep 60")
    else:
        cluster.call("scontrol", "requeue", task)
    assert system.wait(experiment_id)["status"] == "keep"
    assert outcomes(system, experiment_id) == ["handed_back", "completed"]
    eventually(lambda: cluster.state(task) == "PENDING", what="the task in Slurm's queue")


def test_down_gives_runs_the_time_that_it_is_told_and_hands_the_others_back(
    cluster: Cluster, system: System
) -> None:
    """Of the fleet that is named, and of no other."""
    system.serve()
    system.post("/api/experiment/setup", tag="t")
    flags = ("--sandbox", "none", "--label")
    labels = {up(system, *flags, label)[0]: label for label in ("one", "other")}
    short, long = system.submit(held(system)), system.submit(stub(0.8, 100))
    first, second = (labels[task_of(system, each)] for each in (short, long))
    with ThreadPoolExecutor() as threads:
        told = ("--label", first, "--drain-timeout", "600")
        down = threads.submit(fleet, system, "down", "--json", *told)
        draining(system)
        (system.folder / "go").touch()
        down.result()
    assert (outcomes(system, short), outcomes(system, long)) == (["completed"], [None])
    fleet(system, "down", "--json", "--label", second, "--drain-timeout", "0")
    assert outcomes(system, long) == ["handed_back"]
    assert cluster.processes() == {}


def test_a_task_that_has_just_ended_needs_no_signal(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    job = cluster.call("sbatch", "--parsable", "--array=0", "--output=/dev/null", "--wrap=true")
    eventually(lambda: cluster.state(f"{job}_0") in ("", "COMPLETED"), what="the end of the task")
    _signal({f"{job}_0"}, "--batch", "--signal=USR1")
    with pytest.raises(CommandError, match=r"scancel failed: .*nonsense"):
        _signal({"nonsense"})


def test_the_token_reaches_the_workers_and_is_in_no_command_line(
    cluster: Cluster, system: System
) -> None:
    system.environment["AUTORESEARCH_TOKEN"] = TOKEN
    flags = ("--cpu", "--time", "60", "--orchestrator", "http://127.0.0.1:9")
    job = fleet(system, "up", "--json", *flags)["job"]

    def worker() -> int | None:
        return next((pid for pid, line in cluster.processes().items() if "--cpu" in line), None)

    pid = eventually(worker, what="the worker")
    assert f"AUTORESEARCH_TOKEN={TOKEN}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    seen = [*cluster.processes().values(), cluster.call("scontrol", "show", "job", "-d", job)]
    seen.append(cluster.call("scontrol", "write", "batch_script", job, "-"))
    assert f"JobId={job}" in seen[-2]
    assert "exec" in seen[-1]
    assert TOKEN not in "".join(seen)


def test_the_ten_lines_of_the_document_lead_to_a_verdict(cluster: Cluster, system: System) -> None:
    with_gpus(system)
    uv, port = system.folder / "uv", str(free_port())
    uv.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} -m orchestrator.cli "$@"\n')
    uv.chmod(0o755)
    (system.folder / "train.py").write_text(stub(1.25))
    document = (ROOT / "docs" / "cluster.md").read_text("utf-8")
    section = document.partition("\n## Slurm\n")[2].partition("\n## ")[0]
    (lines,) = re.findall(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert lines.count("\n") <= 10
    done = subprocess.run(
        ["bash", "-c", PRELUDE + lines.replace("3111", port)],
        cwd=system.folder, capture_output=True, text=True, timeout=120, check=False,
        env=system.environment | {"AUTORESEARCH_PORT": port, "PATH": f"{uv.parent}:{PATH}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "keep: val_bpb 1.250000" in done.stdout
    assert done.stdout.count(":GPU-") == 4
    assert cluster.processes() == {}
