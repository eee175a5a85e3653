"""One run under its supervisor, as real processes, at every sandbox level."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from gpu_worker import channel, isolation, lock, tree
from gpu_worker.channel import Order, Result
from gpu_worker.folders import RunFolder, WorkerFolder
from gpu_worker.supervisor_client import SupervisorClient
from tests.worker.conftest import eventually, works

pytestmark = pytest.mark.anyio

# Forks a process that leaves its session, parent and environment, and ignores SIGTERM. A test finds
# it by `{word}` in its command line.
ESCAPE = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        sleep = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
        os.execve(sys.executable, [sys.executable, "-c", sleep, "{word}"], {{}})
    os._exit(0)
os.wait()
print("escaped", flush=True)
"""
SLEEP = "import time; time.sleep(60)\n"


class SupervisedRun:
    """Starts one run under a supervisor and inspects it."""

    def __init__(self, path: Path, level: isolation.Level) -> None:
        self.worker = WorkerFolder(path)
        self.worker.create()
        self.folder = self.worker.run("exp-1", 1)
        self.folder.workspace.mkdir(parents=True)
        self.folder.compiled.mkdir()
        self.word = f"escaped-from-{path.name}-{os.getpid()}"
        self.lock_path = lock.lock_path(path / "locks", "gpu")
        sandbox = works(level)
        assert sandbox is not None
        self._sandbox = sandbox
        self.wrap = partial(sandbox.wrap, info_fd=tree.INFO_FD, seccomp_fd=tree.SECCOMP_FD)
        self.supervisor: SupervisorClient | None = None
        self.abandoned: list[subprocess.Popen[bytes]] = []

    def start(self, script: str, **changes: Any) -> SupervisorClient:
        (self.folder.workspace / "train.py").write_text(script.format(word=self.word))
        argv = changes.pop("argv", [sys.executable, "train.py"])
        order: dict[str, Any] = {
            "run": self.folder.run,
            "folder": str(self.folder.path),
            "workspace": str(self.folder.workspace),
            "journal": str(self.worker.journal),
            "lock": str(self.lock_path),
            "argv": self.wrap(argv, self.folder.workspace),
            "env": dict(os.environ) | {"AUTORESEARCH_WORKSPACE": str(self.folder.workspace)},
            "level": self._sandbox.level,
            "deadline_seconds": 30.0,
            "kill_after_seconds": 0.3,
            "orphan_seconds": 30.0,
            "log_limit_bytes": 1024 * 1024,
            **changes,
        }
        held = lock.take(self.lock_path)
        self.supervisor = SupervisorClient.start(held, self.worker.supervisor_log)
        os.close(held)
        self.supervisor.order(Order(**order))
        return self.supervisor

    def abandon(self) -> None:
        """As if the worker were killed: its end of the connection closes."""
        assert self.supervisor is not None
        assert self.supervisor._process is not None
        self.supervisor._connection.close()
        self.abandoned.append(self.supervisor._process)
        self.supervisor = None

    @property
    def log(self) -> bytes:
        return self.folder.log.read_bytes() if self.folder.log.exists() else b""

    def wait_for_output(self, words: bytes) -> None:
        """Wait until the run has printed `words`; its worker ticks meanwhile."""

        def printed() -> bool:
            if self.supervisor is not None:
                self.supervisor.tick()
            return words in self.log

        eventually(printed)

    def alive(self) -> list[str]:
        """Command lines of the run's living processes, those that escaped among them."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with_marker = tree._has(
                    int(entry.name), f"AUTORESEARCH_WORKSPACE={self.folder.workspace}".encode()
                )
                try:
                    line = (entry / "cmdline").read_bytes().decode()
                except OSError:
                    continue
                if with_marker or self.word in line:
                    found.append(line.replace("\0", " "))
        return found


@pytest.fixture
def run(tmp_path: Path, level: isolation.Level) -> Iterator[SupervisedRun]:
    run = SupervisedRun(tmp_path, level)
    yield run
    tree.sweep("AUTORESEARCH_WORKSPACE", str(run.folder.workspace))
    if run.supervisor is not None:
        run.supervisor.close()
    for process in run.abandoned:
        process.wait()
    assert run.alive() == []
    errors = run.worker.supervisor_log
    assert not errors.exists() or errors.read_text() == ""


async def end_of(supervisor: SupervisorClient, seconds: float = 30.0) -> Result:
    with anyio.fail_after(seconds):
        while message := await supervisor.next_message():
            if message["event"] == "ended":
                result = Result.read(message["result"].encode())
                assert result is not None
                return result
    raise AssertionError("the supervisor ended without a message")


async def test_a_run_is_logged_from_its_first_byte_and_its_exit_code_reported(
    run: SupervisedRun,
) -> None:
    """Both streams go to the log, and the same result is on disk afterwards."""
    result = await end_of(
        run.start("import sys; print('out'); sys.stdout.flush(); sys.exit('err')")
    )
    assert (result.reason, result.exit_code) == ("exited", 1)
    assert run.log == b"out\nerr\n"
    eventually(run.folder.result.exists)
    assert Result.read(run.folder.result.read_bytes()) == result
    events = [json.loads(line)["event"] for line in run.worker.journal.read_text().splitlines()]
    assert events == ["started", "ended"]


async def test_a_result_that_is_settled_at_once_is_not_written_to_disk(run: SupervisedRun) -> None:
    """Only a result that the worker could not deliver must outlive both processes."""
    supervisor = run.start("")
    await end_of(supervisor)
    supervisor.settled()
    await anyio.to_thread.run_sync(supervisor.close)
    run.supervisor = None
    assert not run.folder.result.exists()


async def test_a_run_has_no_input_and_a_session_of_its_own(run: SupervisedRun) -> None:
    """It cannot read from a terminal of ours or signal it."""
    script = "import os, sys; print(repr(sys.stdin.read()), os.getsid(0) == {})"
    await end_of(run.start(script.format(os.getsid(0)).replace("{", "{{").replace("}", "}}")))
    assert run.log == b"'' False\n"


async def test_a_run_killed_by_a_signal_reads_128_and_the_signal(run: SupervisedRun) -> None:
    """As in a shell. The kernel uses SIGKILL when memory runs out."""
    result = await end_of(run.start("import os; os.kill(os.getpid(), 9)"))
    assert (result.reason, result.exit_code) == ("exited", 137)


async def test_a_missing_launcher_is_named_in_the_log(run: SupervisedRun) -> None:
    """The run fails with a reason."""
    result = await end_of(run.start("", argv=["/no/such/launcher", "train.py"]))
    assert result.exit_code != 0
    assert b"/no/such/launcher" in run.log


async def test_an_escaped_process_is_dead_when_the_run_has_ended(run: SupervisedRun) -> None:
    """A daemonised grandchild without our environment does not survive a normal end."""
    result = await end_of(run.start(ESCAPE))
    assert (result.reason, result.exit_code) == ("exited", 0)
    assert run.log == b"escaped\n"
    assert run.alive() == []


async def test_a_hung_run_gets_sigterm_at_its_deadline_and_can_react(run: SupervisedRun) -> None:
    """SIGTERM reaches the run itself, also inside a namespace."""
    script = """
import signal, sys, time
def bye(*_):
    print("bye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
print("up", flush=True)
time.sleep(60)
"""
    result = await end_of(run.start(script, deadline_seconds=2.0, kill_after_seconds=5.0))
    assert (result.reason, run.log) == ("deadline", b"up\nbye\n")
    assert result.seconds < 5.3


async def test_a_run_that_ignores_sigterm_is_killed_with_all_that_escaped(
    run: SupervisedRun,
) -> None:
    """The whole tree is dead shortly after deadline and SIGKILL."""
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + ESCAPE + SLEEP
    result = await end_of(run.start(ignoring, deadline_seconds=0.5))
    assert result.reason == "deadline"
    assert result.seconds < 5
    assert run.alive() == []


async def test_the_tree_of_a_killed_supervisor_is_killed(run: SupervisedRun) -> None:
    """Also a process that had left session, parent and environment."""
    supervisor = run.start(ESCAPE + SLEEP)
    run.wait_for_output(b"escaped")
    assert len(run.alive()) >= 2
    supervisor.kill()
    eventually(lambda: run.alive() == [])


async def test_a_guard_that_is_killed_costs_only_its_run(run: SupervisedRun) -> None:
    """The supervisor becomes the parent of the orphans and kills them."""
    supervisor = run.start(ESCAPE + SLEEP)
    run.wait_for_output(b"escaped")
    pid = supervisor._pid
    guard = next(p for p in tree.descendants(pid))
    os.kill(guard, signal.SIGKILL)
    result = await end_of(supervisor)
    assert (result.reason, result.exit_code) == ("exited", 137)
    assert run.alive() == []


async def test_a_run_whose_worker_is_gone_for_a_lease_is_killed(run: SupervisedRun) -> None:
    """Without SIGTERM: another worker may have the run now. The result stays on disk."""
    run.start(ESCAPE + SLEEP, orphan_seconds=0.6, kill_after_seconds=30.0)
    run.wait_for_output(b"escaped")
    run.abandon()
    eventually(run.folder.result.exists)
    result = Result.read(run.folder.result.read_bytes())
    assert result is not None
    assert result.reason == "orphaned"
    assert run.alive() == []


async def test_a_worker_that_stops_ticking_counts_as_gone(run: SupervisedRun) -> None:
    """A worker that hangs holds its connection open, but nobody renews the lease."""
    supervisor = run.start(SLEEP, orphan_seconds=0.6)
    assert (await end_of(supervisor)).reason == "orphaned"


async def test_a_new_worker_takes_over_the_run_and_the_lock(run: SupervisedRun) -> None:
    """The run does not notice, and the lock is never free in between."""
    script = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)\nprint('done')"
    run.start(script)
    eventually(run.folder.socket.exists)
    assert SupervisorClient.adopt(run.folder) is None, "it has a worker already"
    run.abandon()
    supervisor, held = eventually(lambda: SupervisorClient.adopt(run.folder))
    run.supervisor = supervisor
    with pytest.raises(lock.LockBusy):
        lock.take(run.lock_path)
    (run.folder.workspace / "go").touch()
    result = await end_of(supervisor)
    assert (result.reason, result.exit_code, run.log) == ("exited", 0, b"done\n")
    await anyio.to_thread.run_sync(supervisor.close)
    run.supervisor = None
    with pytest.raises(lock.LockBusy):  # we still have it
        lock.take(run.lock_path)
    os.close(held)
    os.close(eventually(lambda: _try_lock(run.lock_path)))


def _try_lock(path: Path) -> int | None:
    try:
        return lock.take(path)
    except lock.LockBusy:
        return None


async def test_a_stop_sends_sigterm_first_unless_it_says_now(run: SupervisedRun) -> None:
    """A second stop with `now` ends the time that the first one gave."""
    supervisor = run.start(
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\n"
        + SLEEP,
        kill_after_seconds=30.0,
    )
    run.wait_for_output(b"up")
    supervisor.stop("cancelled", now=False)
    await anyio.sleep(0.2)
    assert run.alive() != []
    supervisor.stop("handed_back", now=True)
    result = await end_of(supervisor)
    assert (result.reason, result.stop) == ("stopped", "cancelled"), "the first reason stands"


@pytest.mark.slow
@pytest.mark.parametrize("level", ["strict"], indirect=True)
async def test_a_run_that_exceeds_a_limit_while_it_is_stopped_is_killed_at_once(
    run: SupervisedRun,
) -> None:
    script = """
import os, signal, time
def fill(*_):
    for number in range(51_000):
        os.mkdir(str(number))
    time.sleep(60)
signal.signal(signal.SIGTERM, fill)
print("up", flush=True)
time.sleep(60)
"""
    supervisor = run.start(script, kill_after_seconds=600.0)
    run.wait_for_output(b"up")
    supervisor.stop("cancelled", now=False)
    result = await end_of(supervisor)
    assert (result.reason, result.stop) == ("stopped", "cancelled")
    assert "files" in result.excess


async def test_sigterm_to_the_supervisor_ends_the_run_in_order(run: SupervisedRun) -> None:
    """As at the host's shutdown: the tree is dead and the result says why."""
    supervisor = run.start(SLEEP)
    eventually(run.alive)
    os.kill(supervisor._pid, signal.SIGTERM)
    assert (await end_of(supervisor)).reason == "terminated"


async def test_a_flood_of_output_neither_fills_the_disk_nor_blocks_the_run(
    run: SupervisedRun,
) -> None:
    """Forty times the cap goes through; head and tail are kept."""
    script = """
import sys
sys.stdout.write("first\\n")
for _ in range(40):
    sys.stdout.write("x" * 1024 * 1024)
sys.stdout.write("\\nlast\\n")
"""
    result = await end_of(run.start(script))
    assert result.exit_code == 0
    assert result.dropped_bytes > 38 * 1024 * 1024
    assert len(run.log) < 1024 * 1024 + 100
    assert run.log.startswith(b"first\n")
    assert run.log.endswith(b"\nlast\n")


async def test_a_flood_of_measures_does_not_keep_a_run_from_being_stopped(
    run: SupervisedRun,
) -> None:
    """Eight processes send faster than the supervisor reads."""
    flood = "import os\nfor _ in range(3): os.fork()\nwhile True: os.write(5, b'\\n' * 65536)"
    assert (await end_of(run.start(flood, deadline_seconds=2.0))).reason == "deadline"


# Measures {} as evaluate_bpb does, through the descriptor that entry.py reads.
MEASURE = "import os; os.write(5, os.read(5, 64) + b' {}\\n')\n"
SAVE = "open('checkpoint.safetensors', 'w').write('weights')\n"
LINK = "os.symlink('/etc/passwd', 'checkpoint.safetensors')\n"


def again(
    run: SupervisedRun, script: str, below: float = 2.0, seconds: float = 30.0
) -> dict[str, Any]:
    """An order's fields for a second measurement by `script`."""
    argv = run.wrap([sys.executable, "-c", script], read_only=(run.folder.checkpoint,))
    return {"verify_argv": argv, "verify_below": below, "verify_seconds": seconds}


async def test_a_run_below_the_best_that_saved_its_model_is_measured_once_more(
    run: SupervisedRun,
) -> None:
    """By another process after all of the run's are dead; what it prints is not the run's."""
    look = f"assert open({str(run.folder.checkpoint)!r}).read() == 'weights'; print('---')\n"
    supervisor = run.start(
        MEASURE.format(1.5) + SAVE + ESCAPE, **again(run, look + MEASURE.format(1.6))
    )
    result = await end_of(supervisor)
    assert (result.reason, result.exit_code, result.measures) == ("exited", 0, [1.5])
    assert (result.verified, result.verify_exit) == (1.6, 0)
    assert run.log == b"escaped\n"
    assert run.alive() == []


@pytest.mark.parametrize(
    ("script", "below"),
    [
        (MEASURE.format(1.5) + SAVE, 1.5),
        (MEASURE.format(1.5), 2.0),
        (MEASURE.format(1.5) + LINK, 2.0),
        (SAVE, 2.0),
        (MEASURE.format(1.5) + SAVE + "raise SystemExit(1)\n", 2.0),
    ],
    ids=["no better", "no model", "a link for a model", "no measure", "failed"],
)
async def test_no_other_run_is_measured_once_more(
    run: SupervisedRun, script: str, below: float
) -> None:
    result = await end_of(run.start(script, **again(run, "print('run')", below)))
    assert (result.verified, result.verify_exit) == (None, None)
    assert not run.folder.verify_log.exists()


async def test_a_second_measurement_without_space_for_its_log_ends_no_run(
    run: SupervisedRun,
) -> None:
    run.folder.verify_log.mkdir()  # so that it cannot be opened
    result = await end_of(run.start(MEASURE.format(1.5) + SAVE, **again(run, "print('run')")))
    assert (result.reason, result.exit_code, result.measures) == ("exited", 0, [1.5])
    assert (result.verify_exit, result.verify_output) == (-1, "Is a directory")


async def test_a_second_measurement_that_hangs_or_fails_ends_no_run(run: SupervisedRun) -> None:
    """It has a time of its own, and its last words are told."""
    good, hang = MEASURE.format(1.5) + SAVE, "print('loading', flush=True)\n" + SLEEP
    result = await end_of(run.start(good, **again(run, hang, seconds=2.0)))
    assert (result.reason, result.exit_code, result.measures) == ("exited", 0, [1.5])
    assert result.verify_exit not in (None, 0)
    assert (result.verified, result.verify_output) == (None, "loading")


async def test_a_supervisor_without_an_order_ends_with_its_worker(run: SupervisedRun) -> None:
    """The spare supervisor must not be left over."""
    held = lock.take(run.lock_path)
    supervisor = SupervisorClient.start(held, run.worker.supervisor_log)
    os.close(held)
    assert supervisor.alive
    await anyio.to_thread.run_sync(supervisor.close)
    assert not supervisor.alive
    os.close(lock.take(run.lock_path))


async def test_the_lock_is_held_until_the_last_process_of_the_run_is_gone(
    run: SupervisedRun,
) -> None:
    """Worker and supervisor both killed: the GPU is not free before the tree is dead."""
    supervisor = run.start(ESCAPE + SLEEP)
    run.wait_for_output(b"escaped")
    os.kill(supervisor._pid, signal.SIGKILL)
    os.close(eventually(lambda: _try_lock(run.lock_path)))
    assert run.alive() == []


def test_an_order_of_an_older_worker_is_read_without_the_fields_that_are_gone() -> None:
    """A daemon that was started before an upgrade of its checkout."""
    order = Order("exp-1.1", "", "", "", "", [], {}, 1.0, 1.0, 1.0, 1, verify_argv=[])
    worker, supervisor = socket.socketpair()
    with worker, supervisor:
        worker.sendall(channel.encode({"order": order._asdict() | {"isolation": "direct"}}))
        assert channel.receive_order(supervisor) == order


def test_the_socket_works_in_a_deep_home(tmp_path: Path) -> None:
    """A Unix socket's address is limited, a path may be longer."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    path = RunFolder(deep).socket
    with channel.listen(path) as listener, channel.connect(path) as connection:
        accepted, _ = listener.accept()
        accepted.close()
        assert connection.recv(1) == b""


def test_a_sweep_kills_the_marked_processes_and_no_others(tmp_path: Path) -> None:
    """For a run that has lost supervisor and guard."""
    sleep = [sys.executable, "-c", SLEEP]
    env = dict(os.environ)
    marked = subprocess.Popen(sleep, env=env | {"AUTORESEARCH_WORKSPACE": str(tmp_path)})
    other = subprocess.Popen(sleep, env=env | {"AUTORESEARCH_WORKSPACE": f"{tmp_path}/x"})
    assert tree.sweep("AUTORESEARCH_WORKSPACE", str(tmp_path), timeout=5) == []
    assert marked.wait(timeout=5) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()
