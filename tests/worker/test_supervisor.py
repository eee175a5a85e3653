"""One run under its supervisor, as real processes, in both kinds of isolation."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from gpu_worker import channel, lock, tree
from gpu_worker.channel import Order, Result
from gpu_worker.folders import RunFolder, WorkerFolder
from gpu_worker.supervisor_client import SupervisorClient
from tests.worker.conftest import eventually

pytestmark = pytest.mark.anyio

# Leaves the session, the parent and the marked environment behind, and ignores SIGTERM. `{word}`
# is in its command line, by which a test finds it.
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


class Bench:
    """Starts one run under a supervisor and looks at it."""

    def __init__(self, path: Path, sandbox: str) -> None:
        self.worker = WorkerFolder(path)
        self.worker.create()
        self.folder = self.worker.run("exp-1", 1)
        self.folder.workspace.mkdir(parents=True)
        self.word = f"escapee-of-{path.name}-{os.getpid()}"
        self.lock_path = lock.lock_path(path / "locks", "gpu")
        self._sandbox = sandbox
        self.supervisor: SupervisorClient | None = None
        self.abandoned: list[subprocess.Popen[bytes]] = []

    def start(self, script: str, **changes: Any) -> SupervisorClient:
        (self.folder.workspace / "train.py").write_text(script.format(word=self.word))
        order: dict[str, Any] = {
            "run": self.folder.run,
            "folder": str(self.folder.path),
            "workspace": str(self.folder.workspace),
            "journal": str(self.worker.journal),
            "lock": str(self.lock_path),
            "argv": [sys.executable, "train.py"],
            "env": dict(os.environ) | {"AUTORESEARCH_WORKSPACE": str(self.folder.workspace)},
            "isolation": self._sandbox,
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
        """As if the worker had been killed: its end of the connection closes."""
        assert self.supervisor is not None
        assert self.supervisor._process is not None
        self.supervisor._connection.close()
        self.abandoned.append(self.supervisor._process)
        self.supervisor = None

    @property
    def log(self) -> bytes:
        return self.folder.log.read_bytes() if self.folder.log.exists() else b""

    def said(self, words: bytes) -> None:
        eventually(lambda: words in self.log)

    def alive(self) -> list[str]:
        """Command lines of what is alive of the run, marked or escaped."""
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
def bench(tmp_path: Path, sandbox: str) -> Iterator[Bench]:
    bench = Bench(tmp_path, sandbox)
    yield bench
    tree.sweep("AUTORESEARCH_WORKSPACE", str(bench.folder.workspace))
    if bench.supervisor is not None:
        bench.supervisor.close()
    for process in bench.abandoned:
        process.wait()
    assert bench.alive() == []
    errors = bench.worker.supervisor_log
    assert not errors.exists() or errors.read_text() == ""


async def end_of(supervisor: SupervisorClient, seconds: float = 10.0) -> Result:
    with anyio.fail_after(seconds):
        while message := await supervisor.next_message():
            if message["event"] == "ended":
                return Result.from_json(message["result"].encode())
    raise AssertionError("the supervisor went without a word")


async def test_a_run_is_logged_from_its_first_byte_and_its_exit_code_told(bench: Bench) -> None:
    """Both streams go to the log, and the same result lies on disk afterwards."""
    result = await end_of(
        bench.start("import sys; print('out'); sys.stdout.flush(); sys.exit('err')")
    )
    assert (result.reason, result.exit_code) == ("exited", 1)
    assert bench.log == b"out\nerr\n"
    eventually(bench.folder.result.exists)
    assert Result.from_json(bench.folder.result.read_bytes()) == result
    events = [json.loads(line)["event"] for line in bench.worker.journal.read_text().splitlines()]
    assert events == ["started", "ended"]


async def test_a_result_that_is_settled_at_once_does_not_burden_the_disk(bench: Bench) -> None:
    """Only what the worker could not deliver has to outlive the two processes."""
    supervisor = bench.start("")
    await end_of(supervisor)
    supervisor.settled()
    await anyio.to_thread.run_sync(supervisor.close)
    bench.supervisor = None
    assert not bench.folder.result.exists()


async def test_a_run_has_no_input_and_a_session_of_its_own(bench: Bench) -> None:
    """Nothing that it reads or signals can reach a terminal of ours."""
    script = "import os, sys; print(repr(sys.stdin.read()), os.getsid(0) == {})"
    await end_of(bench.start(script.format(os.getsid(0)).replace("{", "{{").replace("}", "}}")))
    assert bench.log == b"'' False\n"


async def test_a_run_killed_by_a_signal_reads_128_and_the_signal(bench: Bench) -> None:
    """As a shell tells it; SIGKILL from elsewhere is how the kernel ends a memory hog."""
    result = await end_of(bench.start("import os; os.kill(os.getpid(), 9)"))
    assert (result.reason, result.exit_code) == ("exited", 137)


async def test_a_launcher_that_is_not_there_is_told_in_the_log(bench: Bench) -> None:
    """The run fails with a reason, not with silence."""
    result = await end_of(bench.start("", argv=["/no/such/launcher", "train.py"]))
    assert result.exit_code != 0
    assert b"/no/such/launcher" in bench.log


async def test_what_escaped_is_dead_when_the_run_has_ended(bench: Bench) -> None:
    """A daemonised grandchild without our environment does not survive a normal end."""
    result = await end_of(bench.start(ESCAPE))
    assert (result.reason, result.exit_code) == ("exited", 0)
    assert bench.log == b"escaped\n"
    assert bench.alive() == []


async def test_a_hung_run_is_asked_at_its_deadline_and_can_have_a_last_word(bench: Bench) -> None:
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
    result = await end_of(bench.start(script, deadline_seconds=0.7, kill_after_seconds=5.0))
    assert (result.reason, bench.log) == ("deadline", b"up\nbye\n")
    assert result.seconds < 4


async def test_a_run_that_ignores_sigterm_is_killed_with_all_that_escaped(bench: Bench) -> None:
    """The whole tree is dead shortly after deadline and patience."""
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + ESCAPE + SLEEP
    result = await end_of(bench.start(ignoring, deadline_seconds=0.5))
    assert result.reason == "deadline"
    assert result.seconds < 5
    assert bench.alive() == []


async def test_a_supervisor_that_is_killed_takes_its_tree_along(bench: Bench) -> None:
    """Also what had left session, parent and environment behind."""
    supervisor = bench.start(ESCAPE + SLEEP)
    bench.said(b"escaped")
    assert len(bench.alive()) >= 2
    supervisor.kill()
    eventually(lambda: bench.alive() == [])


async def test_a_guard_that_is_killed_costs_only_its_run(bench: Bench) -> None:
    """The supervisor inherits the orphans and ends them."""
    supervisor = bench.start(ESCAPE + SLEEP)
    bench.said(b"escaped")
    pid = supervisor._pid
    guard = next(p for p in tree.descendants(pid))
    os.kill(guard, signal.SIGKILL)
    result = await end_of(supervisor)
    assert (result.reason, result.exit_code) == ("exited", 137)
    assert bench.alive() == []


async def test_a_run_whose_worker_is_gone_for_a_lease_is_killed(bench: Bench) -> None:
    """Without a polite pause: the run may be somebody else's now. The result stays on disk."""
    bench.start(ESCAPE + SLEEP, orphan_seconds=0.6, kill_after_seconds=30.0)
    bench.said(b"escaped")
    bench.abandon()
    eventually(bench.folder.result.exists)
    assert Result.from_json(bench.folder.result.read_bytes()).reason == "orphaned"
    assert bench.alive() == []


async def test_a_worker_that_stops_ticking_counts_as_gone(bench: Bench) -> None:
    """A worker that hangs holds its connection open, but nobody renews the lease."""
    supervisor = bench.start(SLEEP, orphan_seconds=0.6)
    assert (await end_of(supervisor)).reason == "orphaned"


async def test_a_new_worker_takes_over_the_run_and_the_lock(bench: Bench) -> None:
    """The run does not notice, and the lock is never free in between."""
    bench.start("import time; time.sleep(0.8); print('done')")
    eventually(bench.folder.socket.exists)
    assert SupervisorClient.adopt(bench.folder) is None, "it has a worker already"
    bench.abandon()
    supervisor, held = eventually(lambda: SupervisorClient.adopt(bench.folder))
    bench.supervisor = supervisor
    with pytest.raises(lock.LockBusy):
        lock.take(bench.lock_path)
    result = await end_of(supervisor)
    assert (result.reason, result.exit_code, bench.log) == ("exited", 0, b"done\n")
    await anyio.to_thread.run_sync(supervisor.close)
    bench.supervisor = None
    with pytest.raises(lock.LockBusy):  # we still have it
        lock.take(bench.lock_path)
    os.close(held)
    os.close(eventually(lambda: _try_lock(bench.lock_path)))


def _try_lock(path: Path) -> int | None:
    try:
        return lock.take(path)
    except lock.LockBusy:
        return None


async def test_a_stop_is_polite_unless_it_says_now(bench: Bench) -> None:
    """`now` overrules the time that a polite stop was giving."""
    supervisor = bench.start(
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\n"
        + SLEEP,
        kill_after_seconds=30.0,
    )
    bench.said(b"up")
    supervisor.stop("cancelled", now=False)
    await anyio.sleep(0.2)
    assert bench.alive() != []
    supervisor.stop("handed_back", now=True)
    result = await end_of(supervisor)
    assert (result.reason, result.stop) == ("stopped", "cancelled"), "the first reason stands"


async def test_sigterm_to_the_supervisor_ends_the_run_in_order(bench: Bench) -> None:
    """As on the host's shutdown: the tree is dead and the result says why."""
    supervisor = bench.start(SLEEP)
    eventually(bench.alive)
    os.kill(supervisor._pid, signal.SIGTERM)
    assert (await end_of(supervisor)).reason == "terminated"


async def test_a_flood_of_output_neither_fills_the_disk_nor_blocks_the_run(bench: Bench) -> None:
    """Forty times the cap goes through; head and tail are kept."""
    script = """
import sys
sys.stdout.write("first\\n")
for _ in range(40):
    sys.stdout.write("x" * 1024 * 1024)
sys.stdout.write("\\nlast\\n")
"""
    result = await end_of(bench.start(script))
    assert result.exit_code == 0
    assert result.dropped_bytes > 38 * 1024 * 1024
    assert len(bench.log) < 1024 * 1024 + 100
    assert bench.log.startswith(b"first\n")
    assert bench.log.endswith(b"\nlast\n")


async def test_a_supervisor_without_an_order_ends_with_its_worker(bench: Bench) -> None:
    """The one that is started ahead of time must not be left over."""
    held = lock.take(bench.lock_path)
    supervisor = SupervisorClient.start(held, bench.worker.supervisor_log)
    os.close(held)
    assert supervisor.alive
    await anyio.to_thread.run_sync(supervisor.close)
    assert not supervisor.alive
    os.close(lock.take(bench.lock_path))


async def test_the_lock_is_held_until_the_last_process_of_the_run_is_gone(bench: Bench) -> None:
    """Worker and supervisor both killed: nobody gets the GPU before the tree is dead."""
    supervisor = bench.start(ESCAPE + SLEEP)
    bench.said(b"escaped")
    os.kill(supervisor._pid, signal.SIGKILL)
    os.close(eventually(lambda: _try_lock(bench.lock_path)))
    assert bench.alive() == []


def test_a_deep_home_is_no_obstacle_to_the_socket(tmp_path: Path) -> None:
    """A Unix socket's address is short, a path need not be."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    socket = RunFolder(deep).socket
    with channel.listen(socket) as listener, channel.connect(socket) as connection:
        accepted, _ = listener.accept()
        accepted.close()
        assert connection.recv(1) == b""


def test_sweeping_ends_what_carries_the_mark_and_nothing_else(tmp_path: Path) -> None:
    """The last resort for a run that has lost supervisor and guard."""
    sleep = [sys.executable, "-c", SLEEP]
    env = dict(os.environ)
    marked = subprocess.Popen(sleep, env=env | {"AUTORESEARCH_WORKSPACE": str(tmp_path)})
    other = subprocess.Popen(sleep, env=env | {"AUTORESEARCH_WORKSPACE": f"{tmp_path}/x"})
    time.sleep(0.2)
    assert tree.sweep("AUTORESEARCH_WORKSPACE", str(tmp_path), timeout=5) == []
    assert marked.wait(timeout=5) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()
