"""Whatever lies in an attempt's folder costs that attempt only: the daemon settles it, or reports
it lost and keeps its files, and serves on."""

import json
import os
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest
from hypothesis import Phase, given, settings, strategies as st

from gpu_worker.channel import EndReason, Result, StopReason
from gpu_worker.daemon import Daemon
from gpu_worker.folders import RunFolder, WorkerFolder
from gpu_worker.gpu import Cpu
from gpu_worker.settings import WorkerSettings
from orchestrator import schemas
from tests.worker.conftest import BLOCK, GPU_ID, WAIT, Host, end, eventually
from tests.worker.stub import LEASE_SECRET, Stub


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


# What a file can be instead of a file: each makes the path into something else.
NO_FILES: dict[str, Callable[[Path], Any]] = {
    "missing": lambda _path: None,
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "link to itself": lambda path: path.symlink_to(path.name),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "socket": _socket,
    "huge": _huge,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
RESULT = json.loads(Result("exited", 0, 1.0, 1.0).to_json())
# A result of which some fields hold anything; unkillable processes would quarantine the GPU.
RESULTS = st.dictionaries(
    st.sampled_from(sorted(RESULT.keys() - {"unkillable"})), JSON, max_size=3
).map(lambda wrong: json.dumps(RESULT | wrong).encode()) | st.builds(
    lambda reason, stop: Result(reason, 0, 1.0, 1.0, stop).to_json(),
    st.sampled_from(get_args(EndReason)),
    st.sampled_from(get_args(StopReason)),
)
NO_FILE = st.sampled_from(sorted(NO_FILES))
FILES = st.fixed_dictionaries(
    {
        "result": st.binary() | RESULTS | JSON.map(json.dumps).map(str.encode) | NO_FILE,
        # A huge log has its own test.
        "log": st.binary() | st.just(BLOCK.encode()) | NO_FILE.filter("huge".__ne__),
        "measures": st.binary() | NO_FILE,
        "job": st.just(None) | st.just(None) | st.binary() | NO_FILE.filter("missing".__ne__),
    }
)


def leave(folder: RunFolder, files: dict[str, Any]) -> None:
    """An attempt that ended, with these files; a job None is whole."""
    folder.workspace.mkdir(parents=True)
    experiment, _, epoch = folder.run.rpartition(".")
    job = schemas.Job(
        experiment_id=experiment, tag="test", gpu_id=GPU_ID, epoch=int(epoch), seed=42,
        time_budget_seconds=20, grace_seconds=20, lease_seconds=10, train_py="",
        source_sha256="0" * 64, prepare_sha256=None, lease_secret=LEASE_SECRET,
    )  # fmt: skip
    for name, content in files.items():
        path: Path = getattr(folder, name)
        if isinstance(content, str):
            NO_FILES[content](path)
        else:
            path.write_bytes(job.model_dump_json().encode() if content is None else content)


@settings(max_examples=5, phases=[Phase.generate])
@given(st.lists(FILES, min_size=16, max_size=16))
def test_whatever_an_attempt_left_it_is_reported_and_the_worker_serves_on(
    leftovers: list[dict[str, Any]],
) -> None:
    """Each one whose job can be read is reported, in a report that the orchestrator accepts."""
    stub = Stub()
    with tempfile.TemporaryDirectory() as home:
        folder = WorkerFolder(WorkerSettings(home=home).paths.worker_dir(GPU_ID))
        runs = [folder.run(f"exp-{number}", 1) for number in range(len(leftovers))]
        owed = set()
        for run, files in zip(runs, leftovers, strict=True):
            leave(run, files)
            lease_lost = '"lease_lost"' in str(files["result"])  # another worker may have it
            if files["job"] is None and not lease_lost:
                owed.add(run.run)
            stub.leases[run.run] = GPU_ID
        stub.start()
        worker = WorkerSettings(
            home=home, orchestrator=stub.url, launcher="python", lock_dir=f"{home}/locks",
            gpu="cpu", check=False, free_space_bytes=0, claim_wait_seconds=0, sandbox="none",
        )  # fmt: skip

        async def serve() -> int:
            daemon = Daemon(worker, Cpu(), GPU_ID)

            async def drain_once_it_serves() -> None:
                with anyio.fail_after(60):
                    while not stub.count("/api/job/claim"):  # noqa: ASYNC110 - the stub's thread
                        await anyio.sleep(0.005)
                daemon._shutdown.drain()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(drain_once_it_serves)
                return await daemon.serve()

        try:
            assert anyio.run(serve) == 0
        finally:
            stub.stop()
        assert stub.violations == []
        assert set(stub.finished) >= owed
        assert folder.runs() == []


# What a train.py does to its own attempt's files; whether its result is lost for that.
SABOTAGE = {
    "a pipe for a log": ("os.remove('../output.log'); os.mkfifo('../output.log')", True),
    "a folder for a log": ("os.remove('../output.log'); os.mkdir('../output.log')", True),
    "a loop for a log": (
        "os.remove('../output.log'); os.symlink('output.log', '../output.log')", True,
    ),
    "a folder for a job": ("os.remove('../job.json'); os.mkdir('../job.json')", False),
    "an endless result": ("os.symlink('/dev/zero', '../result.json')", False),
    "no folder": ("import shutil; shutil.rmtree('..', ignore_errors=True)", False),
}  # fmt: skip


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_run_that_spoils_its_own_files_ends_alone(host: Host, stub: Stub, name: str) -> None:
    """Where no wall keeps it from them. The same daemon trains the next run; what it could not
    settle is kept, with a traceback."""
    sabotage, lost = SABOTAGE[name]
    worker = host.start(sandbox="none")
    run = stub.submit(f"import os\n{BLOCK}\n{sabotage}")
    after = stub.submit(BLOCK)
    assert stub.report(after)["outcome"] == "completed"
    assert stub.report(run)["outcome"] == ("lost" if lost else stub.finished[run]["outcome"])
    if lost:
        assert f"{run}: its worker could not settle it" in host.log
        assert "Traceback" in host.log
        kept = eventually(lambda: list(host.folder.path.glob(f"runs/{run}.kept/workspace")))
        assert (kept[0] / "train.py").exists()
    assert end(worker) == 0
    assert host.folder.runs() == []


def test_a_log_that_grows_beyond_its_cap_is_sent_no_further(host: Host, stub: Stub) -> None:
    """A sparse file of a terabyte would occupy worker and orchestrator for hours."""
    host.start(log_limit_bytes=2**20)
    run = stub.submit("import os\nos.truncate('../output.log', 2**40)")
    assert stub.report(run)["outcome"] == "crash"
    assert len(stub.logs[run]) <= 2**20 + 1024
    assert stub.report(stub.submit(BLOCK))["outcome"] == "completed"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_run_whose_report_is_refused_is_lost_and_not_forgotten(
    host: Host, stub: Stub, status: int
) -> None:
    """Without a report its lease would run out; the files that explain it are kept."""
    stub.report_status = status
    run = stub.submit(BLOCK)
    worker = host.start()
    assert stub.report(run)["outcome"] == "lost"
    assert "not this report" in host.log
    eventually(lambda: list(host.folder.path.glob(f"runs/{run}.kept")))
    stub.report_status = 200
    assert stub.report(stub.submit(BLOCK))["outcome"] == "completed"
    assert end(worker) == 0


def test_a_worker_starts_beside_a_job_that_it_cannot_read(host: Host, stub: Stub) -> None:
    """The job of an attempt is lost with a power cut, and with it the secret of its lease, which
    runs out."""
    run = stub.submit(WAIT)
    worker = host.start()
    stub.wait_for(lambda: run in stub.logs)
    end(worker, signal.SIGKILL)
    host.run_folder(run).job.write_bytes(b"")
    host.release(run)
    eventually(host.run_folder(run).result.exists)
    host.start()
    assert stub.report(stub.submit(BLOCK))["outcome"] == "completed"
    assert run not in stub.finished
    assert host.folder.path.joinpath("runs", f"{run}.kept", "result.json").exists()


def test_a_worker_adopts_no_supervisor_that_talks_nonsense(host: Host, stub: Stub) -> None:
    """A run has put its own socket in the place of its supervisor's."""
    run = stub.submit(IMPOSTOR)
    worker = host.start(sandbox="none")
    stub.wait_for(lambda: b"listening" in stub.logs.get(run, b""))
    end(worker, signal.SIGKILL)
    host.start()
    assert stub.report(run)["outcome"] == "lost"
    assert "Traceback" in host.log
    assert stub.report(stub.submit(BLOCK))["outcome"] == "completed"


IMPOSTOR = """
import os, socket
os.chdir("..")
os.remove("supervisor.sock")
listener = socket.socket(socket.AF_UNIX)
listener.bind("supervisor.sock")
listener.listen()
print("listening", flush=True)
connection, _ = listener.accept()
lock = os.open("job.json", os.O_RDONLY)
socket.send_fds(connection, [b"nonsense\\n"], [lock])
while True:
    pass
"""
