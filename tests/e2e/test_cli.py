"""The command line against the real system: real processes, and a train.py that takes moments."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from tests.conftest import Api
from tests.e2e.conftest import eventually

STUB = """
import os, time
from autoresearch_run import measured
MATRIX_LR = 0.04
WARMDOWN_FRACTION = 0.5
SECONDS = {seconds}
print("begin", flush=True)
for i in range(10):
    time.sleep(SECONDS / 10)
    print(f"\\rstep {{i:05d}} ({{10 * i:5.1f}}%) | loss: {{5 - i / 10:.6f}} | lrm: 1.00 | dt: 1ms"
          " | tok/sec: 1 | mfu: 1.0% | epoch: 1 | remaining: 1s", end="", flush=True)
{then}
measured(1 + abs(MATRIX_LR - 0.05))
print("\\n---")
print(f"val_bpb: {{1 + abs(MATRIX_LR - 0.05):.6f}}")
"""
PREFIX = [sys.executable, "-m", "orchestrator.cli"]


def stub(seconds: float = 0.05, then: str = "") -> str:
    return STUB.format(seconds=seconds, then=then)


def alive(home: Path) -> list[str]:
    """Command lines of the processes that belong to this home."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and str(home).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has just ended, or is another user's
    return found


@dataclass
class Shell:
    """Runs `autoresearch` as one would at a terminal, in a folder and with a home of its own."""

    folder: Path
    url: str = ""

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def environment(self) -> dict[str, str]:
        clean = {n: v for n, v in os.environ.items() if not n.startswith("AUTORESEARCH_")}
        clean.pop("REDIS_URL", None)
        mine = {
            "HOME": str(self.home),
            "PORT": "0",
            "GPU": "cpu",
            "GPU_ID": f"cpu-{os.getpid()}-{self.folder.name}",
            "LAUNCHER": sys.executable,
            "CHECK": "false",
            "SANDBOX": "none",
            "LOCK_DIR": str(self.folder / "locks"),
            "DRAIN_TIMEOUT": "1",
            "HEARTBEAT_SECONDS": "0.5",
            "ORCHESTRATOR": self.url,
        }
        return clean | {f"AUTORESEARCH_{n}": v for n, v in mine.items()}

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        with (self.folder / "stderr.txt").open("ab") as errors:
            return subprocess.Popen(
                [*PREFIX, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def run(self, *arguments: str, code: int = 0) -> str:
        """The command in this process, which saves its start; what it wrote to stdout."""
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
            patch.chdir(self.folder)
            for name in os.environ.keys() - self.environment.keys():
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            got = main(arguments)
        out.seek(0)
        written = out.read()
        assert got == code, (arguments, written)
        return written

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code))

    def write(self, content: str, name: str = "train.py") -> str:
        (self.folder / name).write_text(content)
        return name

    def up(self) -> "subprocess.Popen[str]":
        process = self.start("up", "--json")
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (self.folder / "stderr.txt").read_text()
        self.url = json.loads(line)["url"]
        return process


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A running system, which must end in order and leave nothing behind."""
    made = Shell(tmp_path_factory.mktemp("cli"))
    with made.up() as process:
        made.run("setup", "t", "--time-budget", "5")
        yield made
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    assert eventually(lambda: not alive(made.home))


def test_an_agents_way_from_submit_to_the_best_source(shell: Shell) -> None:
    """Submit, wait, read the verdict and the log, go on from the best."""
    shell.run("setup", "way")
    first = shell.json(
        "submit", shell.write(stub()), "--tag", "way", "--hypothesis", "baseline", "--wait"
    )
    assert (first["status"], first["val_bpb"]) == ("keep", 1.01)
    better = stub().replace("0.04", "0.045")
    line = shell.run(
        "submit", shell.write(better), "--tag", "way", "--hypothesis", "higher rate", "--wait",
        "--category", "optimizer", "--diff-summary", "MATRIX_LR up", "--parent", first["id"],
    )  # fmt: skip
    assert "keep: val_bpb 1.005000, best before 1.010000" in line
    best = shell.json("best", "way", "--source", "best.py")
    assert (
        (shell.folder / "best.py").read_text()
        == better
        == shell.run("best", "way", "--source", "-")
    )
    assert best["experiment"]["parent_id"] == first["id"]
    assert "val_bpb: 1.005000" in shell.run("log", best["best"]["experiment_id"])
    assert "1.005000" in shell.run("history", "way")
    assert "2 kept" in shell.run("status", "way")
    assert shell.json("export", "way", "--tsv", "r.tsv")["count"] == 2
    assert (shell.folder / "r.tsv").read_text().count("\n") == 3
    assert shell.json("status")["pool"]["total"] == 1


def test_a_crash_is_1_and_its_log_tells_why(shell: Shell) -> None:
    source = shell.write(stub(then="raise RuntimeError('out of luck')"))
    result = shell.json("submit", source, "--tag", "t", "--hypothesis", "h", "--wait", code=1)
    assert result["status"] == "crash"
    assert "out of luck" in shell.run("log", result["id"])
    assert "out of luck" in shell.run("status", result["id"])


def test_log_follows_a_run_to_its_end(shell: Shell) -> None:
    source = shell.write(stub(seconds=2))
    queued = shell.json("submit", source, "--tag", "t", "--hypothesis", "slow")
    followed = shell.run("log", "-f", queued["experiment_id"])
    assert followed.startswith("begin")
    assert followed.rstrip().endswith("val_bpb: 1.010000")
    assert followed == shell.run("log", queued["experiment_id"])


def test_cancel_ends_a_run_and_wait_says_so(shell: Shell) -> None:
    source = shell.write(stub(seconds=60))
    name = shell.json("submit", source, "--tag", "t", "--hypothesis", "long")["experiment_id"]
    eventually(lambda: shell.json("status", name)["status"] == "running")
    assert "still running" in shell.json("wait", name, "--timeout", "0.1", code=5)["error"]
    assert shell.json("cancel", name)["cancelling"]
    assert shell.json("wait", name, code=1)["status"] == "cancelled"


@pytest.mark.parametrize("name", ["", "exp-1/../../pool/list", "exp-1?x", "exp-1\r"])
def test_what_is_no_id_is_refused_before_it_is_a_path(shell: Shell, name: str) -> None:
    for command in (["wait"], ["log"], ["cancel"], ["requeue", "-r", "x"]):
        refused = shell.json(*command, name, code=2)
        assert "is no experiment's id" in refused["error"], command


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1"])
def test_a_wait_takes_a_number_of_seconds(shell: Shell, seconds: str) -> None:
    refused = shell.json("wait", "exp-1", "--timeout", seconds, code=2)
    assert "--timeout: give a number of seconds" in refused["error"]


def test_refusals_say_what_to_do(shell: Shell) -> None:
    source = shell.write(stub() + "\n# once\n")
    submit = ("submit", source, "--hypothesis", "h")
    unknown = shell.json(*submit, "--tag", "way2", code=1)
    assert "autoresearch setup way2" in unknown["error"]
    assert "t" in unknown["tags"]
    shell.run("setup", "once")
    shell.run(*submit, "--tag", "once", "--wait")
    assert "--repeat" in shell.json(*submit, "--tag", "once", code=1)["error"]
    shell.run(*submit, "--tag", "once", "--repeat", "--wait", code=4)
    broken = shell.write("print(", "broken.py")
    refused = shell.json("submit", broken, "--tag", "t", "--hypothesis", "h", code=2)
    assert "line 1" in refused["error"]
    assert "exp-none" in shell.json("log", "exp-none", code=1)["error"]
    shell.run("setup", "empty")
    assert "no result yet" in shell.json("best", "empty", code=1)["error"]
    port = shell.url.rpartition(":")[2]
    taken = shell.json("serve", "--port", port, code=2)
    assert "another autoresearch orchestrator" in taken["error"]


def test_a_killed_worker_and_a_killed_orchestrator_come_back(shell: Shell) -> None:
    def pid_of(words: str) -> int | None:
        for process in Path("/proc").iterdir():
            try:
                mine = str(shell.home).encode() in (process / "environ").read_bytes()
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if mine and words in line and "orchestrator.cli" in line:
                return int(process.name)
        return None

    for words in ("worker --gpu", "serve --listen-fd"):
        killed = eventually(lambda words=words: pid_of(words))
        os.kill(killed, signal.SIGKILL)
        eventually(lambda words=words, old=killed: pid_of(words) not in (None, old))
    source = shell.write(stub() + "\n# after all that\n")
    shell.run("setup", "killed")
    result = shell.json("submit", source, "--tag", "killed", "--hypothesis", "h", "--wait")
    assert result["val_bpb"] == 1.01


def test_a_backup_of_a_running_system_is_restored_elsewhere(shell: Shell, tmp_path: Path) -> None:
    """Audited before and after, and the best is the same; nothing of it needs an orchestrator."""
    shell.run("setup", "kept")
    source = shell.write(stub() + "\n# before the backup\n")
    shell.run("submit", source, "--tag", "kept", "--hypothesis", "h", "--wait")
    [report] = shell.json("audit", "kept")
    assert report["differences"] == []
    assert shell.run("audit", "kept") == "kept: 1 decision, 1 experiment: all as the journal says\n"
    best = shell.json("best", "kept")["best"]
    file = tmp_path / "night.tar.gz"
    assert shell.json("backup", str(file))["files"] > 1
    assert "exists already" in shell.json("backup", str(file), code=1)["error"]
    other = ("--home", str(tmp_path / "other"))
    assert "holds no state" in shell.json("audit", *other, code=1)["error"]
    shell.run("restore", str(file), *other)
    assert {"tag": "kept", **report} in shell.json("audit", *other)
    assert "holds experiments already" in shell.json("restore", str(file), *other, code=1)["error"]
    restored = Shell(tmp_path)
    with restored.start("serve", "--json", *other) as process:
        assert process.stdout is not None
        restored.url = json.loads(process.stdout.readline())["url"]
        assert restored.json("best", "kept")["best"] == best
        process.send_signal(signal.SIGINT)
    [line, *_] = shell.run("export", "kept", "--journal", "-").splitlines()
    assert json.loads(line)["kind"] == "setup"


def test_nothing_outlives_a_killed_up(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with shell.up() as process:
        process.kill()
    assert eventually(lambda: not alive(shell.home))
    log = (shell.home / "logs" / "orchestrator.log").read_text()
    assert log.rstrip().endswith("stopped")


def test_serve_ends_in_order_on_ctrl_c(tmp_path: Path) -> None:
    """SIGTERM, which `up` sends it, is seen where a whole system ends."""
    shell = Shell(tmp_path)
    with shell.start("serve", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["url"].startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    assert not alive(shell.home)


@pytest.mark.parametrize(
    ("command", "code"), [("serve", 2), pytest.param("up", 1, marks=pytest.mark.slow)]
)
def test_a_home_that_is_deleted_ends_its_system_with_the_reason(
    tmp_path: Path, command: str, code: int
) -> None:
    """Nothing would be kept from then on, and no process is left, nor a new empty system begun."""
    shell = Shell(tmp_path)
    with shell.start(command, "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        if command == "up":
            eventually(lambda: "registered with" in (tmp_path / "stderr.txt").read_text())
        shutil.rmtree(shell.home)
        assert process.wait(timeout=60) == code
        said = process.stdout.read() + (tmp_path / "stderr.txt").read_text()
    assert eventually(lambda: not alive(shell.home))
    assert "was deleted, moved or replaced" in said
    assert not (shell.home / "redis").exists()


def test_a_submission_that_nobody_will_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], api: Api
) -> None:
    shell = Shell(tmp_path, api.url)
    api.tag("t")
    shell.run("submit", shell.write(stub()), "--tag", "t", "--hypothesis", "h")
    assert "no worker takes runs now" in capsys.readouterr().err
    api.gpu()
    shell.run("submit", shell.write(stub(1)), "--tag", "t", "--hypothesis", "h")
    assert capsys.readouterr().err == ""


def test_the_demo_leaves_a_table_a_chart_and_the_best_source(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.write(stub())
    (tmp_path / "results.tsv").write_text("somebody's own\n")
    said = shell.json(
        "demo", "--experiments", "3", "--budget", "2", "--tag", "d", "--train-py", "train.py"
    )
    assert (said["decided"], said["tag"]) == (3, "d")
    assert said["experiments"][0]["description"] == "baseline"
    assert len({e["source_sha256"] for e in said["experiments"]}) == 3
    assert (tmp_path / "results.tsv").read_text().count("\n") == 4
    assert (tmp_path / "results.tsv~").read_text() == "somebody's own\n"
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")
    assert said["best_val_bpb"] == min(e["val_bpb"] for e in said["experiments"])
    assert "MATRIX_LR" in (tmp_path / "best_train.py").read_text()
    assert not alive(shell.home)


@pytest.mark.slow
def test_two_demos_at_once_share_a_home_and_both_end(tmp_path: Path) -> None:
    """They have one CPU: the second waits for it, or is served by the first one's worker."""
    shell = Shell(tmp_path)
    (tmp_path / "train.py").write_text(stub())
    arguments = ("demo", "--experiments", "2", "--budget", "2", "--train-py", "train.py")
    demos = [shell.start(*arguments, "--json") for _ in range(2)]
    done = [json.loads(demo.communicate(timeout=120)[0]) for demo in demos]
    assert [demo.returncode for demo in demos] == [0, 0], (tmp_path / "stderr.txt").read_text()
    assert [each["decided"] for each in done] == [2, 2]
    assert done[0]["tag"] != done[1]["tag"]
    assert len(list((shell.home / "logs").glob("demo-*-orchestrator.log"))) == 2


@pytest.mark.slow
def test_a_demo_trains_no_run_of_another_search(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.write(stub())
    with shell.start("serve", "--json") as process:
        assert process.stdout is not None
        shell.url = json.loads(process.stdout.readline())["url"]
        shell.run("setup", "mine")
        submitted = shell.json("submit", "train.py", "--tag", "mine", "--hypothesis", "h")
        demo = ("demo", "--experiments", "1", "--budget", "2", "--train-py", "train.py")
        assert "tag mine has runs to train" in shell.json(*demo, code=1)["error"]
        assert shell.json("status", submitted["experiment_id"])["attempts"] == []
        process.send_signal(signal.SIGINT)


def test_a_demo_whose_baseline_fails_shows_its_log_and_is_1(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.write(stub(then="raise RuntimeError('out of luck')"))
    said = shell.run(
        "demo", "--experiments", "3", "--budget", "2", "--train-py", "train.py", code=1
    )
    assert "crash" in said


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_demo_that_is_interrupted_keeps_what_it_has_and_leaves_nothing_running(
    tmp_path: Path, number: signal.Signals
) -> None:
    shell = Shell(tmp_path)
    shell.write(stub() + "\nif MATRIX_LR != 0.04 or WARMDOWN_FRACTION != 0.5: time.sleep(60)\n")
    errors = tmp_path / "stderr.txt"
    arguments = ("demo", "--experiments", "3", "--budget", "2", "--train-py", "train.py", "--json")
    with shell.start(*arguments) as process:
        eventually(lambda: "[1/3] keep" in errors.read_text(), seconds=60)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    done, failure = (json.loads(line) for line in said.splitlines())
    assert done["decided"] == 1
    assert "1 of 3 experiments are decided and kept" in failure["error"]
    assert (tmp_path / "results.tsv").exists()
    assert not alive(shell.home)
