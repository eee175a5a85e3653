"""A daemon that an engine placed: its actor, the engine, and what it does when they end.

The actor is a process that does on request what an engine's actor does; `sleep` is the engine.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_worker import tree
from tests.worker.conftest import BLOCK, GPU_ID, WAIT, Host, eventually
from tests.worker.stub import Stub

pytestmark = pytest.mark.slow

ACTOR = f"""
import json, os, sys
from gpu_worker.placed import Placed
placed = Placed("w", ["--cpu", "--gpu-id", {GPU_ID!r}], dict(os.environ), int(sys.argv[1]))
for line in sys.stdin:
    print(json.dumps(getattr(placed, line.strip())()), flush=True)
"""


class Actor:
    def __init__(self, environment: dict[str, str], engine: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ACTOR, str(engine)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, method: str = "state") -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(method + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def kill(self) -> None:
        with self.process:
            self.process.kill()


@pytest.fixture
def engine() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def actor(host: Host, stub: Stub, engine: int) -> Iterator[Actor]:
    settings = {
        "home": host.home, "orchestrator": stub.url, "launcher": sys.executable, "check": "0",
        "lock_dir": host.home / "locks", "sandbox": "none", "free_space_bytes": "0",
    }  # fmt: skip
    variables = {f"AUTORESEARCH_{name.upper()}": str(value) for name, value in settings.items()}
    actor = Actor(os.environ | variables, engine)
    yield actor
    actor.kill()


def test_a_daemon_leaves_the_pool_when_its_actor_ends_while_the_engine_lives(
    actor: Actor, stub: Stub
) -> None:
    """The engine may give its GPU to another program."""
    stub.wait_for(lambda: GPU_ID in stub.gpus)
    daemon = actor.ask()["pid"]
    actor.kill()
    stub.wait_for(lambda: GPU_ID in stub.deregistered)
    eventually(lambda: not Path(f"/proc/{daemon}").exists())


def test_a_daemon_that_dies_is_started_again_and_adopts_its_run(
    actor: Actor, stub: Stub, host: Host
) -> None:
    run = stub.submit(WAIT + BLOCK)
    stub.wait_for(lambda: b"up" in stub.logs.get(run, b""))
    daemon = actor.ask()["pid"]
    tree.kill(daemon, signal.SIGKILL)
    eventually(lambda: actor.ask()["pid"] not in (daemon, None))
    host.release(run)
    assert stub.report(run)["outcome"] == "completed"


def test_a_daemon_that_drained_stays_away_until_it_is_started(actor: Actor, stub: Stub) -> None:
    stub.wait_for(lambda: GPU_ID in stub.gpus)
    actor.ask("drain")
    eventually(lambda: actor.ask("drain")["state"] == "ended")
    assert actor.ask()["exit_code"] == 0
    assert stub.deregistered == [GPU_ID]
    actor.ask("start")
    eventually(lambda: actor.ask()["pid"])
    assert actor.ask()["state"] == "running"


def test_a_daemon_that_cannot_serve_is_not_started_again_and_says_why(
    stub: Stub, actor: Actor
) -> None:
    stub.refuse_registration = True
    eventually(lambda: actor.ask()["state"] == "ended")
    state = actor.ask()
    assert state["exit_code"] == 2
    assert "the orchestrator does not take this worker" in state["said"]
