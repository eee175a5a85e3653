"""The commands that a person watches, in a real terminal: watch, log -f, submit --wait."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.harness.ports import free_port
from tests import hostile_log as hostile
from tests.e2e.conftest import System, eventually, stub
from tests.e2e.terminal import Terminal

pytestmark = pytest.mark.slow

INTERRUPT = "\x03"
Open = Callable[..., "Terminal"]


@pytest.fixture
def live(system: System) -> System:
    """A system with one worker and the tag `t`."""
    system.serve(free_port())
    system.post("/api/experiment/setup", tag="t", time_budget_seconds=5)
    system.worker()
    eventually(lambda: system.get("/api/pool/list")["idle"])
    return system


@pytest.fixture
def type_in(live: System) -> Iterator[Open]:
    """Run `autoresearch …` against it in a terminal."""
    opened: list[Terminal] = []

    def open_(*arguments: str, columns: int = 110, rows: int = 30) -> Terminal:
        environment = live.environment | {"AUTORESEARCH_ORCHESTRATOR": live.url}
        made = Terminal(arguments, environment, columns, rows)
        opened.append(made)
        return made

    yield open_
    for made in opened:
        made.close()


def held(bpb: float) -> str:
    """A train.py that has trained, and ends when `let_go` says so."""
    wait = "import os\nwhile not os.path.exists('go'): time.sleep(0.02)\nmeasured(BPB)"
    return stub(bpb).replace("measured(BPB)", wait)


def let_go(live: System) -> None:
    """End the run that is held."""
    for workspace in live.folder.glob("home/workers/*/runs/*/workspace"):
        (workspace / "go").touch()


def written(folder: Path, source: str) -> str:
    path = folder / "train.py"
    path.write_text(source)
    return str(path)


# ------------------------------------------------------------------------------------------ watch


def test_watch_shows_a_job_on_its_way_from_the_queue_to_its_verdict(
    live: System, type_in: Open
) -> None:
    """Without a key pressed: queue, GPU, progress, curve, verdict, best."""
    seen = type_in("watch", "t")
    seen.until("no result yet", "cpu-0", "idle")
    live.submit(held(1.25), description="deeper and wider")
    seen.until("training", "deeper and wider", "loss of exp-")
    live.submit(stub(1.5, seconds=0.1), description="waits its turn")
    seen.until("queued 1", "other: waits its turn")
    let_go(live)
    shown = seen.until("best 1.250000", "keep", "discard")
    assert "1 kept of 2" in shown
    seen.type(INTERRUPT)
    assert seen.ended() == 0
    assert "best 1.250000" in seen.shown


def test_watch_survives_a_restart_of_the_orchestrator_and_says_that_it_is_stale(
    live: System, type_in: Open
) -> None:
    seen = type_in("watch")
    seen.until("cpu-0", "idle")
    port = int(live.url.rpartition(":")[2])
    live.processes[0].kill()
    live.processes[0].wait()
    assert "cpu-0" in seen.until("STALE, as of")
    live.serve(port)
    live.submit(stub(1.125), description="after the restart")
    assert "STALE" not in seen.until("best 1.125000", "after the restart")
    seen.type(INTERRUPT)
    assert seen.ended() == 0


def test_watch_says_that_it_is_stale_when_the_orchestrator_hangs(
    live: System, type_in: Open
) -> None:
    """A stopped process closes no connection."""
    seen = type_in("watch")
    seen.until("cpu-0")
    live.processes[0].send_signal(signal.SIGSTOP)
    seen.until("STALE, as of", seconds=40)
    live.processes[0].send_signal(signal.SIGCONT)
    eventually(lambda: "STALE" not in seen.shown, 40)
    seen.type(INTERRUPT)
    assert seen.ended() == 0


def test_watch_fits_a_narrow_window_and_follows_its_size(live: System, type_in: Open) -> None:
    seen = type_in("watch", columns=40, rows=10)
    live.submit(stub(1.25), description="a description that is far too long for such a window")
    shown = seen.until("best 1.250000", "keep")
    assert "°C" not in shown
    seen.resize(120, 30)
    seen.until("memory", "util", live.url)
    seen.type(INTERRUPT)
    assert seen.ended() == 0


def test_watch_leaves_the_terminal_clean_on_sigterm(live: System, type_in: Open) -> None:
    seen = type_in("watch")
    seen.until("cpu-0")
    seen.process.terminate()
    assert seen.ended() == 0


def command(system: System, *arguments: str) -> "subprocess.Popen[str]":
    """A command whose output goes through a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", *arguments],
        env=system.environment | {"AUTORESEARCH_ORCHESTRATOR": system.url},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_watch_in_a_pipe_tells_line_by_line_what_happens(live: System) -> None:
    with command(live, "watch", "t") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert next(lines) == "no result yet\n"
        assert any("following" in line for line in lines)
        name = live.submit(stub(1.25))
        heard = [next(line for line in lines if word in line) for word in ("queued", "decided")]
        assert all(name in line for line in heard)
        assert "keep val_bpb 1.250000" in heard[-1]
        assert "\x1b" not in "".join(heard)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_watch_as_json_goes_on_after_the_event_that_was_seen_last(live: System) -> None:
    def objects(process: "subprocess.Popen[str]") -> Iterator[dict[str, object]]:
        assert process.stdout is not None
        return map(json.loads, iter(process.stdout.readline, ""))

    with command(live, "watch", "t", "--json") as process:
        assert next(objects(process)) == {"event": "live"}
        first = live.submit(stub(1.25))
        last = next(o for o in objects(process) if o["event"] == "decided")
        assert (last["subject"], last["status"]) == (first, "keep")
        process.terminate()
    second = live.submit(stub(1.125))
    live.wait(second)
    with command(live, "watch", "t", "--json", "--since", str(last["id"])) as process:
        seen = [next(objects(process)) for _ in range(5)]
        process.terminate()
    assert [o["event"] for o in seen] == ["live", "queued", "claimed", "started", "decided"]
    assert {o["subject"] for o in seen[1:]} == {second}


def test_watch_ends_when_nobody_reads_any_more(live: System) -> None:
    """`autoresearch watch | head -1`."""
    with command(live, "watch") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        live.submit(stub(1.25))
        live.submit(stub(1.5))
        assert process.wait(20) == 0


def test_watch_once_is_one_picture(live: System) -> None:
    live.wait(live.submit(stub(1.25), description="the only one"))
    with command(live, "watch", "--once") as process:
        shown, _ = process.communicate(timeout=20)
    assert "best 1.250000" in shown
    assert "the only one" in shown
    with command(live, "watch", "--once", "--json") as process:
        assert json.loads(process.communicate(timeout=20)[0])["summary"]["stats"]["kept"] == 1


# ---------------------------------------------------------------------------- a hostile run's words


def test_nothing_of_a_hostile_run_reaches_the_terminal(live: System, type_in: Open) -> None:
    """Neither its log nor the words of the agent that sent it."""
    words = hostile.RUN_LOG.decode(errors="ignore").replace("\0", "")[:2000]
    source = hostile.train_py(long=3_000_000, end="raise RuntimeError(open(__file__).read()[:600])")
    watching = type_in("watch")
    watching.until("cpu-0")
    name = live.submit(source, description=words, hypothesis=words, category=words[:60])
    following = type_in("log", "-f", name)
    assert following.process.wait(60) == 0
    eventually(lambda: "crash" in watching.shown)
    watching.type(INTERRUPT)
    assert watching.ended() == 0
    for made in (watching, following):
        made.ended()
        text = made.written.decode()
        for own in ("\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h", "\r\x1b[K", "\r\n"):
            text = text.replace(own, "")
        assert "\x1b]" not in text
        assert "\x1b[2J" not in text
        assert not {c for c in text if c in hostile.FORBIDDEN - {"\x1b"}}
    assert "␛]0;rm -rf ~␇" in following.written.decode()
    assert "more characters)" in following.written.decode()


def test_the_bytes_of_a_log_are_there_for_who_wants_them(live: System) -> None:
    name = live.submit(hostile.train_py())
    live.wait(name)
    with command(live, "log", name, "--raw") as process:
        assert process.stdout is not None
        raw = process.stdout.buffer.read()
    assert hostile.RUN_LOG in raw


# -------------------------------------------------------------------------------- log and --wait


def test_log_follows_to_the_verdict_and_over_a_restart(live: System, type_in: Open) -> None:
    name = live.submit(held(1.25))
    seen = type_in("log", "-f", name)
    seen.until("step 0000")
    port = int(live.url.rpartition(":")[2])
    live.processes[0].kill()
    live.processes[0].wait()
    seen.until("Waiting for it")
    live.serve(port)
    let_go(live)
    seen.until("val_bpb: 1.250000", f"{name} keep: val_bpb 1.250000", seconds=60)
    assert seen.ended() == 0


def test_submit_wait_shows_the_way_to_the_verdict_and_its_exit_code_tells_which(
    live: System, type_in: Open, tmp_path: Path
) -> None:
    live.submit(held(1.25))
    source = written(tmp_path, held(1.5))
    arguments = ("submit", source, "--tag", "t", "--hypothesis", "h", "--wait")
    seen = type_in(*arguments)
    seen.until("queued, position 1")
    let_go(live)
    seen.until("step", "s to train on cpu-0")
    let_go(live)
    seen.until("discard: val_bpb 1.500000, best before 1.250000")
    assert seen.ended() == 4
    crashing = type_in("submit", written(tmp_path, "raise SystemExit(3)"), *arguments[2:])
    crashing.until("crash")
    assert crashing.ended() == 1


def test_a_wait_whose_orchestrator_is_gone_says_so_and_not_how_the_run_stands(
    live: System, type_in: Open
) -> None:
    seen = type_in("wait", live.submit(held(1.25)), "--timeout", "6")
    seen.until("step")
    live.processes[0].kill()
    live.processes[0].wait()
    seen.until("no orchestrator answers", "it is asked again", "was running before")
    assert seen.ended() == 3
    live.serve(int(live.url.rpartition(":")[2]))  # which ends the Redis that was left running


def test_ctrl_c_while_waiting_leaves_the_run_alone_and_says_how_to_go_on(
    live: System, type_in: Open, tmp_path: Path
) -> None:
    source = written(tmp_path, stub(1.25, seconds=60))
    seen = type_in("submit", source, "--tag", "t", "--hypothesis", "h", "--wait")
    seen.until("step")
    seen.type(INTERRUPT)
    assert seen.ended() == 130
    shown = seen.until("goes on without you: `autoresearch wait exp-")
    name = shown.partition("autoresearch wait ")[2].partition("`")[0].replace("\n", "")
    assert live.get(f"/api/experiment/{name}")["status"] == "running"
