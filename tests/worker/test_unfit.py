"""A sick host: its worker is unfit, says why, claims nothing, and serves again once it is well."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from gpu_worker import attempt, workspace
from gpu_worker.client import Client
from gpu_worker.folders import WorkerFolder
from gpu_worker.gpu import Cpu
from gpu_worker.pool_membership import PoolMembership
from gpu_worker.settings import WorkerSettings
from gpu_worker.shutdown import Shutdown
from gpu_worker.supervisor_client import SupervisorClient
from orchestrator import schemas
from tests.unit.test_prepare_data import words
from tests.worker.conftest import BLOCK, GPU_ID, WAIT, Host
from tests.worker.stub import LEASE_SECRET, Stub
from tests.worker.test_host import _project


def problem_of(stub: Stub) -> str:
    """The GPU's problem in the pool, once it has one."""
    return str(stub.wait_for(lambda: stub.gpus.get(GPU_ID, {}).get("problem")))


def becomes_well(stub: Stub) -> None:
    """It is fit again, and trains."""
    stub.wait_for(lambda: not stub.gpus[GPU_ID].get("problem"))
    assert stub.report(stub.submit(BLOCK))["outcome"] == "completed"


def test_a_run_that_cannot_be_written_is_handed_back_and_the_worker_unfit(
    host: Host, stub: Stub
) -> None:
    """The fault comes between claim and start: no loss is counted, and no other run is claimed."""
    host.start(recheck_seconds=0.2)
    stub.wait_for(lambda: stub.count("/api/job/claim"))
    runs = host.folder.path / "runs"

    def is_a_file() -> bool:
        runs.rmdir()
        try:
            runs.touch(exist_ok=False)
        except FileExistsError:  # the worker looks five times a second, and made the folder again
            return False
        return True

    stub.wait_for(is_a_file)
    run, other = stub.submit(BLOCK), stub.submit(BLOCK)
    assert stub.report(run)["outcome"] == "handed_back"
    assert "runs" in problem_of(stub)
    before = stub.count("/api/pool/heartbeat")
    stub.wait_for(lambda: stub.count("/api/pool/heartbeat") > before + 3)
    assert other not in stub.leases
    runs.unlink()
    assert stub.report(other)["outcome"] == "completed"
    becomes_well(stub)


def test_after_a_failure_to_start_the_worker_rests_and_looks_again(host: Host, stub: Stub) -> None:
    """Also where the disk takes other files, so that no run is claimed and lost at once again."""
    host.start(recheck_seconds=0.2)
    stub.wait_for(lambda: stub.count("/api/job/claim"))
    (host.folder.path / "runs" / "exp-1.1").touch()
    run = stub.submit(BLOCK)
    assert stub.report(run)["outcome"] == "handed_back"
    assert "a run could not be started" in problem_of(stub)
    becomes_well(stub)


def test_a_folder_that_is_deleted_is_made_again(host: Host, stub: Stub) -> None:
    host.start()
    stub.wait_for(lambda: stub.count("/api/job/claim"))
    shutil.rmtree(host.folder.path)
    assert stub.report(stub.submit(BLOCK))["outcome"] == "completed"


@pytest.mark.parametrize(
    ("options", "spoil", "problem"),
    [
        ("nr_inodes=50", "", "inodes free"),
        ("size=256k", "head -c 250k /dev/zero > $0/full", "No space left"),
        ("size=1m", "mount -o remount,ro $0", "Read-only file system"),
        ("size=1m", "", "None"),
    ],
)
def test_a_disk_that_takes_no_files_is_a_problem_before_any_run_is_claimed(
    tmp_path: Path, options: str, spoil: str, problem: str
) -> None:
    """Inodes, space and a read-only mount, on a real file system."""
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces here")
    ask = (
        "import sys; from pathlib import Path; from gpu_worker import folders, workspace;"
        "print(workspace.disk_problem(folders.WorkerFolder(Path(sys.argv[1])), 0))"
    )
    script = (
        f"mount -t tmpfs -o {options} none $0 && mkdir $0/runs $0/prepare || exit 1\n"
        f"{spoil}\n{sys.executable} -c '{ask}' $0"
    )
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, str(tmp_path)],
        check=True, capture_output=True, text=True,
        env={"PYTHONPATH": str(Path(workspace.__file__).parents[1]), "PATH": "/usr/sbin:/usr/bin"},
    )  # fmt: skip
    assert problem in done.stdout


def test_a_supervisor_that_can_no_longer_be_started_makes_the_worker_unfit(
    host: Host, stub: Stub
) -> None:
    """Its log cannot be opened. The run of the spare one goes on."""
    run = stub.submit(WAIT + BLOCK)
    host.start()
    stub.wait_for(lambda: run in stub.logs)
    stub.wait_for(lambda: stub.count("/api/job/renew"))
    end_spare(host)
    log = host.folder.supervisor_log
    log.unlink()
    log.mkdir()
    host.release(run)
    assert stub.report(run)["outcome"] == "completed"
    assert "no supervisor can be started" in problem_of(stub)
    log.rmdir()
    becomes_well(stub)


def end_spare(host: Host) -> None:
    """Kill the supervisor that waits for an order."""
    busy = {pid for run in host.folder.runs() for pid in host.processes_of(run.run)}
    busy.add(host.supervisor_of(host.folder.runs()[0].run))
    for pid, line in host.processes().items():
        if "gpu_worker.supervisor" in line and pid not in busy:
            status = Path(f"/proc/{pid}/status").read_text()
            parent = int(status.partition("PPid:")[2].split()[0])
            if parent not in busy:  # a guard is a child of its supervisor
                subprocess.run(["kill", "-9", str(pid)], check=True)


def test_a_launcher_that_disappears_is_the_host_s_fault(host: Host, stub: Stub) -> None:
    """The run cannot be started and goes back; `crash` would blame its train.py."""
    launcher = host.home / "python"
    launcher.symlink_to(sys.executable)
    host.start(check="1", project=_project(host), launcher=launcher, recheck_seconds=0.2)
    stub.wait_for(lambda: stub.count("/api/job/claim"))
    launcher.unlink()
    run = stub.submit(BLOCK)
    assert stub.report(run)["outcome"] == "handed_back"
    assert "to start runs with" in problem_of(stub)
    launcher.symlink_to(sys.executable)
    becomes_well(stub)


def test_a_run_that_fails_on_damaged_data_is_handed_back(host: Host, stub: Stub) -> None:
    """Its worker looks at its data again before it reports a crash, and recovers with them."""
    host.start(check="1", project=_project(host), recheck_seconds=0.2)
    fault = stub.submit("raise ValueError('its own')")
    assert stub.report(fault)["outcome"] == "crash"
    run = stub.submit(WAIT + "raise SystemExit('the tokens are damaged')")
    stub.wait_for(lambda: run in stub.logs)
    _project(host, "shard_00001 is damaged. `uv run prepare.py` makes it again.")
    host.release(run)
    report = stub.report(run)
    assert report["outcome"] == "handed_back"
    assert report["error"] == problem_of(stub)
    assert "`uv run prepare.py`" in report["error"]
    claims = stub.count("/api/job/claim")
    before = stub.count("/api/pool/heartbeat")
    stub.wait_for(lambda: stub.count("/api/pool/heartbeat") > before + 3)
    assert stub.count("/api/job/claim") == claims
    _project(host)
    becomes_well(stub)


LOADS = """
import prepare, torch
loader = prepare.make_dataloader(prepare.Tokenizer.load(), 2, 256, "train", torch.device("cpu"))
next(loader)
"""


MEASURED = "from autoresearch_run import measured\nmeasured(1.2345)\n"


@pytest.mark.slow  # it trains a tokenizer and starts torch six times
def test_a_cache_that_is_damaged_between_two_runs_costs_no_run(host: Host, stub: Stub) -> None:
    """The whole way with the real prepare.py: cut, handed back, unfit, healed, trained."""
    project = Path(workspace.__file__).parents[1]
    library, cache = host.home / "library", host.home / "cache"
    library.mkdir()
    for seed in range(40):
        (library / f"{seed}.txt").write_text(words(seed, 5000))
    env = os.environ | {"AUTORESEARCH_CACHE": str(cache)}
    make = [sys.executable, "prepare.py", "--source", str(library)]
    subprocess.run(make, cwd=project, env=env, check=True)
    pinned = (project / "prepare.py").read_bytes()
    prepare_sha256 = workspace.sha256(pinned)
    stub.prepares[prepare_sha256] = pinned
    host.start(check="1", project=project, cache=cache, recheck_seconds=1)

    def submit() -> str:
        return stub.submit(LOADS + MEASURED + BLOCK, prepare_sha256=prepare_sha256)

    assert stub.report(submit(), 90)["outcome"] == "completed"
    (tokens,) = cache.glob("tokens/*/shard_00000.tokens.npy")
    os.truncate(tokens, tokens.stat().st_size - 100)
    report = stub.report(submit(), 90)
    assert report["outcome"] == "handed_back"
    assert "shard_00000.parquet are missing or damaged" in problem_of(stub)
    assert "`uv run prepare.py`" in problem_of(stub)
    subprocess.run(make, cwd=project, env=env, check=True)
    stub.wait_for(lambda: not stub.gpus[GPU_ID].get("problem"), 90)
    assert stub.report(submit(), 90)["outcome"] == "completed"


def test_a_supervisor_that_dies_before_its_run_began_costs_the_run_nothing(
    stub: Stub, tmp_path: Path
) -> None:
    """The run is handed back, not lost, and the worker takes no other for now."""
    folder = WorkerFolder(tmp_path / "worker")
    folder.create()
    run = folder.run("exp-1", 1)
    run.workspace.mkdir(parents=True)
    stub.leases[run.run] = GPU_ID
    settings = WorkerSettings(home=tmp_path, lock_dir=tmp_path, check=False)
    job = schemas.Job(
        experiment_id="exp-1", tag="test", gpu_id=GPU_ID, epoch=1, seed=42, lease_seconds=10,
        time_budget_seconds=20, grace_seconds=20, train_py="", source_sha256="0" * 64,
        prepare_sha256=None, lease_secret=LEASE_SECRET,
    )  # fmt: skip
    run.job.write_text(job.model_dump_json())

    async def settle() -> str | None:
        client, shutdown = Client(stub.url, None), Shutdown()
        membership = PoolMembership(GPU_ID, Cpu(), client, settings, shutdown)

        async def check_host() -> None:
            raise AssertionError("the host is not asked: nothing of the run began")

        context = attempt.AttemptContext(
            gpu_id=GPU_ID, client=client, membership=membership, settings=settings,
            shutdown=shutdown, folder=folder, lock=tmp_path / "lock", sandbox=None,
            environment={}, check_host=check_host,
        )  # fmt: skip
        ours, theirs = socket.socketpair()
        theirs.close()
        dead = SupervisorClient(ours, subprocess.Popen(["true"]))  # noqa: ASYNC220
        await attempt.settle(attempt.UnreportedAttempt(job, run, dead), context)
        await anyio.to_thread.run_sync(dead.close)
        await client.close()
        return membership.host_problem

    assert "could not start its run" in str(anyio.run(settle))
    assert stub.finished[run.run]["outcome"] == "handed_back"
