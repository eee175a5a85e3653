"""Children: started again with back-off, stopped in order, never left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.cli.run import process
from orchestrator.cli.run.supervisor import Program, Supervisor

# Says READY, then lives on; `%s` is what it does at SIGTERM.
LIVE_ON = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: %s)
print("READY", flush=True)
while True:
    time.sleep(0.02)
"""


class Family:
    """A supervisor with what it said and heard, and a clock that can be put forward."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.heard: list[str] = []
        self.ahead = 0.0
        self.supervisor = Supervisor(
            lambda name, line: self.said.append(f"{name} {line}"),
            lambda name, line: self.heard.append(f"{name} {line}"),
            dict(os.environ),
            clock=lambda: time.monotonic() + self.ahead,
        )

    def start(self, code: str, name: str = "child") -> None:
        command = [sys.executable, "-c", code]
        self.supervisor.start(Program(name, command, self.folder / f"{name}.log"))

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, (self.said, self.heard)
            self.supervisor.poll()
            time.sleep(0.01)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    made = Family(tmp_path)
    yield made
    made.supervisor.close()


def test_what_a_child_prints_is_heard_and_stays_in_its_log(family: Family) -> None:
    family.start("print('one', flush=True); print('two', end='')")
    family.until(lambda: bool(family.supervisor.hopeless()))
    assert family.heard == ["child one"]
    assert (family.folder / "child.log").read_text() == "one\ntwo"


def test_a_child_that_fails_is_started_again_later_each_time(family: Family) -> None:
    family.start("raise SystemExit(7)")
    for count, wait in enumerate(("0.5", "1", "2", "4"), start=1):
        family.until(lambda count=count: len(family.said) == count)  # type: ignore[misc]
        assert family.said[-1] == f"child ended with exit code 7; starting it again in {wait} s"
        family.ahead += float(wait)
    assert family.supervisor.hopeless() == []


def test_a_child_that_had_run_for_long_is_started_again_soon(family: Family) -> None:
    # Long enough to be seen running before it ends.
    family.start("import time; time.sleep(0.3); raise SystemExit(7)")
    family.until(lambda: len(family.said) == 1)
    family.ahead += 1
    family.until(lambda: family.supervisor.running() != [])
    family.ahead += 1000
    family.until(lambda: len(family.said) == 2)
    assert family.said[-1].endswith("in 0.5 s")


@pytest.mark.parametrize(
    ("code", "words"), [(0, "ended; it is not"), (2, "cannot run as configured; it is not")]
)
def test_a_child_that_is_done_or_misconfigured_is_not_started_again(
    family: Family, code: int, words: str
) -> None:
    family.start(f"raise SystemExit({code})")
    family.until(lambda: bool(family.said))
    assert words in family.said[0]
    assert family.supervisor.hopeless() == ["child"]


def test_stop_asks_and_waits(family: Family) -> None:
    family.start(LIVE_ON % "sys.exit(0)")
    family.until(lambda: family.heard == ["child READY"])
    family.supervisor.stop(["child"], seconds=10)
    assert family.supervisor.running() == []
    assert family.said == []


def test_a_hurry_interrupts_twice(family: Family) -> None:
    """The first SIGINT may be taken for "drain", which SIGTERM has asked for already."""
    count = "n = []; count = lambda *_: n.append(1) or len(n) < 2 or sys.exit(0)\n"
    code = LIVE_ON % "None"
    code = code.replace("print(", f"{count}signal.signal(signal.SIGINT, count)\nprint(")
    family.start(code)
    family.until(lambda: family.heard == ["child READY"])
    family.supervisor.stop(["child"], seconds=60, hurry=lambda: True)
    assert family.supervisor.running() == []
    assert family.said == []


def test_a_child_that_will_not_end_is_killed(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cli.run.supervisor._HURRIED_SECONDS", 0.2)
    stubborn = LIVE_ON % "None"
    family.start(stubborn.replace("print(", "signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint("))
    family.until(lambda: family.heard == ["child READY"])
    family.supervisor.stop(["child"], seconds=0.1)
    assert family.supervisor.running() == []
    assert family.said == ["child does not end and is killed"]


def test_a_terminals_ctrl_c_does_not_reach_children(family: Family) -> None:
    family.start("import os, time; print(os.getpid() == os.getsid(0), flush=True); time.sleep(30)")
    family.until(lambda: family.heard == ["child True"])


OWNER = """
import os, sys, time
from pathlib import Path
from orchestrator.cli.run.supervisor import Program, Supervisor
supervisor = Supervisor(print, print, dict(os.environ))
code = (
    "import signal, sys, time; from orchestrator.cli.run import process;"
    "signal.signal(signal.SIGTERM, lambda *_: (print('asked', flush=True), sys.exit(0)));"
    "process.watch_parent(); print('READY', flush=True); time.sleep(60)"
)
supervisor.start(Program("child", [sys.executable, "-c", code], Path(sys.argv[1])))
time.sleep(60)
"""


def test_children_end_in_order_when_their_owner_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    with subprocess.Popen([sys.executable, "-c", OWNER, str(log)]) as owner:
        wait_for_text(log, "READY")
        owner.send_signal(signal.SIGKILL)
    wait_for_text(log, "asked")


STOPPED = """
import contextlib, signal
from orchestrator.cli.run.process import interruptible
with contextlib.suppress(KeyboardInterrupt), interruptible():
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
        print("cleaned up")
"""


def test_a_second_signal_does_not_interrupt_the_cleanup_after_the_first() -> None:
    ended = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"cleaned up\n", b"")


def test_the_watch_of_the_parent_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a child starts in turn has another standard input, which may end at any time."""
    monkeypatch.setenv(process.PARENT_PIPE, "other")
    process.watch_parent()
    assert process.PARENT_PIPE not in os.environ


def wait_for_text(path: Path, text: str) -> None:
    deadline = time.monotonic() + 10
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < deadline, f"{text} did not appear"
        time.sleep(0.02)
