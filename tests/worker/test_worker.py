"""A worker without faults: join the pool, train what it claims, report, leave."""

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from tests import hostile_log as hostile
from tests.worker.conftest import BLOCK, GPU_ID, SLEEP, WAIT, Host, end, eventually
from tests.worker.fork_server import ForkServer
from tests.worker.stub import Json, Stub

PROGRESS = "print('step 1 ( 50.0%) | loss: 3.0', end='\\r')\n"
# A prepare.py that measures what it is told to, in today's way and in the older one.
PREPARE = """
import sys
def evaluate_bpb(value):
    sys.modules["autoresearch_run"].measured(value)
"""
OLDER_PREPARE = """
import os
def evaluate_bpb(value):
    with open(os.environ["AUTORESEARCH_MEASURES"], "a") as file:
        file.write(f"{value!r}\\n")
"""
MEASURE = "from prepare import evaluate_bpb\nevaluate_bpb(1.2345001)\n"
UNMEASURED = BLOCK.replace("1.2345", "0.1")
FAIL = "raise ValueError('the reason')\n"

# train.py, the outcome that must be reported for it, and words that its error must have.
SCRIPTS = {
    "good": (PROGRESS + BLOCK, "completed", ""),
    "no_result": ("print('hello')", "crash", "without a result block"),
    "two_results": (BLOCK.replace("1.2345", "9.9") + BLOCK, "completed", ""),
    "measured": (BLOCK + MEASURE + UNMEASURED, "completed", ""),
    "older_measured": (BLOCK + MEASURE + UNMEASURED, "completed", ""),
    "pinned_unmeasured": (MEASURE + UNMEASURED, "crash", "measured 1.234500"),
    "older_unmeasured": (MEASURE + UNMEASURED, "crash", "measured 1.234500"),
    "pinned_never_measured": ("import prepare\n" + BLOCK, "crash", "has not been called"),
    "older_never_measured": ("import prepare\n" + BLOCK, "completed", ""),
    "pinned_without_nonce": (
        "import os\nos.write(5, b'1.2345\\n' + b'0' * 32 + b' 1.2345\\n')\n" + BLOCK,
        "crash",
        "has not been called",
    ),
    "older_measures_in_a_pipe": (
        "import os\nos.mkfifo(os.environ['AUTORESEARCH_MEASURES'])\n" + BLOCK,
        "completed",
        "",
    ),
    "hostile": (hostile.train_py(val_bpb=1.2345, long=hostile.LONG_LINE_BYTES), "completed", ""),
    "nan": (BLOCK.replace("1.234500", "nan"), "crash", "val_bpb is 'nan'"),
    "zero": (BLOCK.replace("1.234500", "0.0"), "crash", "above 0"),
    "absurd": (BLOCK.replace("1.234500", "1234567"), "crash", "val_bpb is '1234567'"),
    "decimal_comma": (BLOCK.replace("1.234500", "1,234500"), "crash", "val_bpb is '1,234500'"),
    "fake_block_early": (BLOCK + FAIL, "crash", "ValueError: the reason"),
    "exception": (FAIL, "crash", "Traceback (most recent call last)"),
    "exit_code": ("import sys; sys.exit(3)", "crash", "exit code 3"),
    "oom_killed": ("import os; os.kill(os.getpid(), 9)", "crash", "likely out of memory"),
    "cuda_oom": ("raise RuntimeError('CUDA out of memory. Tried')", "crash", "out of GPU memory"),
    "junk": (
        "import os\nos.write(1, bytes(range(256)) * 100 + b'\\x1b[31m' + b'x' * 50_000_000)\n"
        "print()" + BLOCK,
        "completed",
        "",
    ),
}


@dataclass
class Shared:
    """One worker for all tests of this module that do not end it."""

    stub: Stub
    host: Host
    runs: dict[str, str]  # the scripts' names -> their runs

    def report(self, name: str) -> Json:
        return self.stub.report(self.runs[name], 60)


def _submit(stub: Stub, name: str, script: str) -> str:
    """Queue a script, with the kind of prepare.py that its name begins with."""
    kinds = {"older": OLDER_PREPARE, "pinned": PREPARE, "measured": PREPARE}
    prepare = kinds.get(name.partition("_")[0])
    if prepare is None:
        return stub.submit(script)
    sha256 = hashlib.sha256(prepare.encode()).hexdigest()
    stub.prepares[sha256] = prepare.encode()
    return stub.submit(script, prepare_sha256=sha256)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Iterator[Shared]:
    stub = Stub()
    stub.start()
    host = Host(tmp_path_factory.mktemp("shared"), stub, fork_server)
    runs = {name: _submit(stub, name, script) for name, (script, _, _) in SCRIPTS.items()}
    worker = host.start(log_limit_bytes=1024 * 1024, token="secret", cache=host.home / "cache")
    yield Shared(stub, host, runs)
    assert end(worker) == 0
    stub.stop()
    assert stub.violations == []
    # A settled run leaves no folder, no process and no traceback.
    assert host.processes() == {}
    assert host.folder.runs() == []
    assert host.folder.supervisor_log.read_text() == ""


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_kind_of_train_py_has_its_outcome(shared: Shared, name: str) -> None:
    """Good or bad, it is reported once, with a reason that a person understands."""
    _, outcome, words = SCRIPTS[name]
    report = shared.report(name)
    assert report["outcome"] == outcome, report
    assert words in report["error"]
    assert (report["metrics"] is not None) == (outcome == "completed")


def test_a_report_carries_metrics_curve_and_environment(shared: Shared) -> None:
    """Everything that the record of an experiment keeps."""
    report = shared.report("good")
    assert report["metrics"] == {
        "val_bpb": 1.2345,
        "peak_vram_mb": 100.5,
        "training_seconds": 0.1,
        "total_tokens_m": 1.5,
        "mfu_percent": 12.5,
        "num_steps": 10,
        "num_params_m": 0.3,
        "depth": 2,
    }
    assert report["curve"] == [{"step": 1, "percent": 50.0, "loss": 3.0}]
    assert report["environment"]["gpu_name"].startswith("CPU")
    assert report["exit_code"] == 0
    assert report["environment"]["sandbox"] == "strict"
    assert shared.stub.gpus[GPU_ID]["sandbox"] == "strict"


def test_the_last_of_two_results_counts_with_a_warning(shared: Shared) -> None:
    """The first one read 9.9."""
    report = shared.report("two_results")
    assert report["metrics"]["val_bpb"] == 1.2345
    assert "2 result blocks" in report["warnings"][0]


@pytest.mark.parametrize("name", ["measured", "older_measured", "hostile"])
def test_the_measured_result_counts_whatever_else_is_printed(shared: Shared, name: str) -> None:
    """A block that a library prints, before or after, is not what prepare.py measured."""
    assert shared.report(name)["metrics"]["val_bpb"] == 1.2345


def test_the_whole_log_arrives(shared: Shared) -> None:
    """Byte for byte, also if it is no text."""
    warning = shared.report("junk")["warnings"][0]
    assert shared.stub.output(shared.runs["no_result"]) == "hello\n"
    log = bytes(shared.stub.logs[shared.runs["junk"]])
    assert log.startswith(bytes(range(256)) * 100)
    assert log.endswith(b"depth: 2\n")
    assert len(log) < 1024 * 1024 + 100
    assert "left out of the log" in warning


def test_runs_follow_each_other_without_overlap(shared: Shared) -> None:
    """The journal shows one run at a time on this GPU."""
    shared.report(list(SCRIPTS)[-1])
    lines = shared.host.folder.journal.read_text().splitlines()
    entries = [json.loads(line) for line in lines][: 2 * len(SCRIPTS)]
    assert [entry["event"] for entry in entries] == ["started", "ended"] * len(SCRIPTS)
    times = [entry["monotonic"] for entry in entries]
    assert times == sorted(times)


def test_a_run_gets_its_budget_seed_and_name_and_no_secrets(shared: Shared) -> None:
    """The environment is the contract with prepare.py and train.py."""
    host, stub = shared.host, shared.stub
    run = stub.submit("import json, os; print(json.dumps(dict(os.environ)))", seed=7)
    stub.report(run)
    env = json.loads(stub.output(run))
    assert env["AUTORESEARCH_TIME_BUDGET"] == "20"
    assert env["AUTORESEARCH_SEED"] == "7"
    assert env["AUTORESEARCH_RUN"] == run
    assert env["AUTORESEARCH_CACHE"] == str(host.home / "cache")
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert env["PYTHONUNBUFFERED"] == "1"
    assert "AUTORESEARCH_TOKEN" not in env
    assert "AUTORESEARCH_PROFILE" not in env


def test_a_run_gets_the_prepare_py_that_its_tag_pinned(shared: Shared) -> None:
    """Fetched once, kept by hash, and fetched again when the kept file was changed."""
    host, stub = shared.host, shared.stub
    prepare = b"WORD = 'pinned'\r\n"
    sha256 = hashlib.sha256(prepare).hexdigest()
    stub.prepares[sha256] = prepare
    script = "import prepare; print(prepare.WORD)"
    run = stub.submit(script, prepare_sha256=sha256)
    stub.report(run)
    assert stub.output(run) == "pinned\n"
    cached = host.folder.prepare(sha256)
    assert cached.read_bytes() == prepare
    cached.write_bytes(b"WORD = 'poisoned'")
    again = stub.submit(script, prepare_sha256=sha256)
    stub.report(again)
    assert stub.output(again) == "pinned\n"


def test_a_prepare_py_with_another_hash_keeps_the_run_from_starting(shared: Shared) -> None:
    """It is given back as lost, and nothing of it is executed."""
    host, stub = shared.host, shared.stub
    stub.prepares["a" * 64] = b"print('not what was pinned')"
    run = stub.submit("print('ran')", prepare_sha256="a" * 64)
    unknown = stub.submit("print('ran')", prepare_sha256="b" * 64)
    forged = stub.submit("print('ran')", source_sha256="c" * 64)
    assert stub.report(run)["outcome"] == "lost"
    assert "pinned prepare.py aaaaaaaaaaaa" in stub.report(run)["error"]
    assert "cannot be had" in stub.report(unknown)["error"]
    assert "another hash" in stub.report(forged)["error"]
    journal = host.folder.journal.read_text()
    for each in (run, unknown, forged):
        assert each not in journal


def test_a_hung_run_times_out_with_its_log(shared: Shared) -> None:
    """It is killed at budget + grace, and its output is kept."""
    host, stub = shared.host, shared.stub
    run = stub.submit(SLEEP, time_budget_seconds=0.3, grace_seconds=0.3)
    report = stub.report(run)
    assert report["outcome"] == "timeout"
    assert "\nThe last output:\nup" in report["error"]
    assert stub.output(run) == "up\n"
    assert host.processes_of(run) == {}


def test_a_cancelled_run_is_stopped(shared: Shared) -> None:
    """The answer to a renewal says so."""
    host, stub = shared.host, shared.stub
    run = stub.submit(SLEEP)
    stub.wait_for(lambda: run in stub.logs)
    stub.cancelled.add(run)
    assert stub.report(run)["outcome"] == "cancelled"
    assert host.processes_of(run) == {}


def test_log_and_curve_are_seen_while_the_run_goes_on(shared: Shared) -> None:
    """A person who follows the run need not wait for its end."""
    stub = shared.stub
    run = stub.submit(PROGRESS + "print()\n" + SLEEP)
    stub.wait_for(lambda: stub.curves.get(run))
    assert run not in stub.finished
    assert stub.curves[run][0]["loss"] == 3.0
    stub.cancelled.add(run)
    stub.report(run)


def test_while_a_run_goes_on_its_renewals_are_the_heartbeats(host: Host, stub: Stub) -> None:
    """They carry the GPU's health. A change, such as a drain, is still reported at once."""
    stub.heartbeat_seconds = 0.5
    run = stub.submit(SLEEP)
    worker = host.start(drain_timeout=60)
    stub.wait_for(lambda: stub.count("/api/job/renew") > 2)
    before = stub.count("/api/pool/heartbeat")
    stub.wait_for(lambda: stub.count("/api/job/renew") > 8)
    assert stub.count("/api/pool/heartbeat") <= before + 1
    assert all(body["health"] is not None for path, body in stub.calls[-5:] if "renew" in path)
    worker.send_signal(signal.SIGTERM)
    stub.wait_for(lambda: stub.gpus[GPU_ID].get("draining"))
    stub.cancelled.add(run)
    assert worker.wait(20) == 0


def test_a_gpu_that_the_pool_has_forgotten_registers_again_while_it_trains(
    shared: Shared,
) -> None:
    """The answer to a renewal says that the GPU is unknown."""
    stub = shared.stub
    run = stub.submit(SLEEP)
    stub.wait_for(lambda: stub.count("/api/job/renew") > 2)
    before = stub.count("/api/pool/register")
    stub.gpus.clear()
    stub.wait_for(lambda: stub.count("/api/pool/register") > before)
    stub.cancelled.add(run)
    assert stub.report(run)["outcome"] == "cancelled"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_idle_worker_leaves_at_once_on_a_signal(
    host: Host, stub: Stub, number: signal.Signals
) -> None:
    """It does not wait for the long poll; it reports the drain and leaves the pool."""
    worker = host.start(claim_wait_seconds=60)
    stub.wait_for(lambda: stub.count("/api/job/claim"))
    assert end(worker, number) == 0
    heartbeats = [body for path, body in stub.calls if path == "/api/pool/heartbeat"]
    assert heartbeats[-1]["draining"]
    assert stub.deregistered == [GPU_ID]


def test_a_draining_worker_finishes_its_run_and_takes_no_other(host: Host, stub: Stub) -> None:
    """The result counts, the next job stays in the queue."""
    run = stub.submit(WAIT + BLOCK)
    stub.submit(BLOCK)
    worker = host.start()
    stub.wait_for(lambda: run in stub.logs)
    worker.send_signal(signal.SIGTERM)
    stub.wait_for(lambda: stub.is_draining(GPU_ID))
    host.release(run)
    assert worker.wait() == 0
    assert stub.finished[run]["outcome"] == "completed"
    assert len(stub.jobs) == 1


def test_a_drain_that_takes_too_long_hands_the_run_back(host: Host, stub: Stub) -> None:
    """Its tree is dead, another worker may have the run, and the exit code is 0."""
    run = stub.submit(SLEEP)
    worker = host.start(drain_timeout=0.2)
    stub.wait_for(lambda: run in stub.logs)
    assert end(worker) == 0
    assert stub.finished[run]["outcome"] == "handed_back"
    assert stub.deregistered == [GPU_ID]
    assert host.processes() == {}


def test_a_worker_that_is_asked_to_leave_after_its_run_gives_it_all_its_time(
    host: Host, stub: Stub
) -> None:
    """SIGUSR1 is sent long before the end; a SIGTERM after it still hands the run back."""
    runs = [stub.submit(WAIT + BLOCK), stub.submit(SLEEP)]
    for run in runs:
        worker = host.start(drain_timeout=0)
        stub.wait_for(lambda run=run: run in stub.logs)
        worker.send_signal(signal.SIGUSR1)
        stub.wait_for(lambda: stub.is_draining(GPU_ID))
        host.release(run) if run == runs[0] else worker.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
    assert [stub.finished[run]["outcome"] for run in runs] == ["completed", "handed_back"]


@pytest.mark.parametrize("first", ["the run", "its supervisor"])
def test_a_sigterm_to_all_processes_of_a_worker_hands_its_run_back(
    host: Host, stub: Stub, first: str
) -> None:
    """As systemd and Slurm end a service. A run that the signal kills has not failed."""
    run = stub.submit(SLEEP)
    worker = host.start(drain_timeout=60)
    stub.wait_for(lambda: run in stub.logs)
    pids = host.processes_of(run) if first == "the run" else [host.supervisor_of(run)]
    for pid in pids:
        with suppress(ProcessLookupError):  # one that ended with another
            os.kill(pid, signal.SIGTERM)
    assert end(worker) == 0
    assert stub.finished[run]["outcome"] == "handed_back"


def test_a_second_interrupt_stops_at_once(host: Host, stub: Stub) -> None:
    """It waits neither for the drain's time nor for the run's reaction to SIGTERM."""
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP
    run = stub.submit(stubborn)
    worker = host.start(drain_timeout=60, kill_after_seconds=60)
    stub.wait_for(lambda: run in stub.logs)
    worker.send_signal(signal.SIGINT)
    eventually(lambda: "draining" in host.log)
    assert end(worker, signal.SIGINT) == 130
    assert stub.finished[run]["outcome"] == "handed_back"
    assert host.processes() == {}


def test_a_job_that_was_on_its_way_when_the_drain_began_is_handed_back(
    host: Host, stub: Stub
) -> None:
    """A claim that the drain cut short is sent once more, so that no lease is left behind."""
    stub.delay_grants_until_drain = True
    run = stub.submit(BLOCK)
    worker = host.start()
    stub.wait_for(lambda: run in stub.leases)
    assert end(worker) == 0
    assert stub.finished[run]["outcome"] == "handed_back"


def test_several_cpu_workers_share_a_host(host: Host, stub: Stub) -> None:
    """Their names tell them apart."""
    runs = [stub.submit(WAIT + BLOCK) for _ in range(2)]
    for name in ("one", "two"):
        host.start(gpu_id=name)
    stub.wait_for(lambda: all(run in stub.logs for run in runs))
    host.release(*runs)
    for run in runs:
        stub.report(run)
    assert set(stub.leases.values()) == {"one", "two"}


def test_a_second_worker_of_one_gpu_does_not_start(shared: Shared) -> None:
    """Two runs on one GPU would falsify both results."""
    shared.stub.wait_for(lambda: shared.stub.count("/api/pool/register"))
    second = shared.host.start(drain_timeout=0, kill_after_seconds=0)
    assert second.wait(timeout=15) == 2
    assert "is held by another worker" in shared.host.log


def test_a_worker_waits_for_one_that_is_leaving(host: Host, stub: Stub) -> None:
    """As after kill -9 of `up`: its worker ends its run while the next `up` runs already."""
    last = stub.submit(WAIT + BLOCK)
    leaving = host.start()
    stub.wait_for(lambda: last in stub.logs)
    leaving.send_signal(signal.SIGTERM)
    host.start()
    eventually(lambda: "waiting for up to" in host.log)
    host.release(last)
    following = stub.submit(BLOCK)
    stub.report(following)
    assert stub.finished[last]["outcome"] == "completed"
    assert leaving.wait(timeout=15) == 0


def test_invalid_settings_are_named(host: Host) -> None:
    """One line per mistake, and an exit code that says not to try again."""
    worker = host.start("--gpu", "seven", orchestrator="localhost:3111")
    assert worker.wait(timeout=15) == 2
    assert "--gpu (AUTORESEARCH_GPU): " in host.log
    assert "--orchestrator (AUTORESEARCH_ORCHESTRATOR): " in host.log
