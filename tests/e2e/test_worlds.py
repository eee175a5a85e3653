"""Every command in worlds where the first thing that it does fails: one line, and no traceback."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.app import COMMANDS
from tests.conftest import Api

STRANGER = 54_321  # a user id without an entry in /etc/passwd
TRAIN = 'MATRIX_LR = 0.04\nprint("\\n---\\nval_bpb: 1.250000")\n'
TRACES = ("Traceback (most recent", "Exception ignored", "Logging error")
WITH_A_HOME = ("demo", "up", "serve", "worker", "gpu_worker", "audit", "backup", "restore")


@dataclass
class World:
    """Where cases run; `home` None leaves HOME and AUTORESEARCH_HOME out."""

    home: str | None = "{case}"  # a home of its own for each
    spec: dict[str, Any] = field(default_factory=dict)
    remedy: str = ""  # what a command that needs a home must say


WORLDS = {
    "a home below a folder that cannot be written": World("/proc/1/home", {}, "AUTORESEARCH_HOME"),
    "a home that is a file": World("{base}/file", {}, "AUTORESEARCH_HOME"),
    "another user's home": World("{base}/others", {"user": STRANGER}, "AUTORESEARCH_HOME"),
    "no home and no name": World(None, {"user": STRANGER}, "AUTORESEARCH_HOME"),
    "a working directory that was deleted": World(spec={"gone": True}),
    "a stdout that lacks most characters": World(spec={"encoding": "ascii"}),
    "no stdin": World(spec={"stdin": "closed"}),
    "no stdout": World(spec={"stdout": "closed"}),
    "a full stdout": World(spec={"stdout": "/dev/full"}),
}


@dataclass
class Table:
    """The commands of the table, in one world, with an orchestrator that has some results."""

    base: Path
    url: str
    ids: tuple[str, str]

    def arguments(self) -> dict[str, list[str]]:
        one, two = self.ids
        train = str(self.base / "train.py")
        because = ["-r", "because"]
        return {
            "demo": ["--cpu", "--experiments", "1", "--train-py", train], "up": ["--port", "0"],
            "serve": ["--port", "0"], "worker": [], "setup": ["neu"], "best": ["t"],
            "submit": [train, "--tag", "t", "--hypothesis", "größer"], "status": [],
            "watch": ["t", "--once"], "log": [one], "wait": [one], "cancel": [one],
            "requeue": [one, *because], "priority": [one, "3", *because], "notes": ["t"],
            "pause": ["t", *because], "resume": ["t", *because], "note": ["t", "naïve"],
            "race": ["t", *because],
            "drain": ["g", *because], "undrain": ["g", *because], "ledger": [], "history": ["t"],
            "export": ["t", "--format", "jsonl"], "chart": ["t"], "diff": [one, two], "mcp": [],
            "token": ["list"], "audit": [], "backup": ["b.tar.gz"], "restore": ["b.tar.gz"],
            "doctor": [], "fleet": ["ray", "status"],
            "mirror": ["mlflow", "--tracking-uri", "http://127.0.0.1:9", "--once"],
            "gpu_worker": [], "prepare.py": ["--source", train],
        }  # fmt: skip

    def case(self, number: int, command: str, world: World) -> dict[str, Any]:
        program = (
            [command] if command in ("gpu_worker", "prepare.py") else ["autoresearch", command]
        )
        home = world.home and world.home.format(base=self.base, case=self.base / f"home-{number}")
        variables = {
            "ORCHESTRATOR": self.url, "GPU": "cpu", "GPU_ID": f"cpu-{number}", "CHECK": "false",
            "LAUNCHER": sys.executable, "ISOLATION": "direct", "DRAIN_TIMEOUT": "0",
            "LOCK_DIR": str(self.base / "locks"), "FREE_SPACE_BYTES": "0",
        }  # fmt: skip
        environment = {f"AUTORESEARCH_{name}": value for name, value in variables.items()}
        environment |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())}
        if home:
            environment |= {"HOME": str(self.base), "AUTORESEARCH_HOME": home}
            environment |= {"AUTORESEARCH_CACHE": f"{home}/cache"}
        ready = {"up": "takes runs", "worker": "registered", "gpu_worker": "registered"}
        ready["serve"] = f"{home}/redis/server.pid"
        return {
            "argv": [*program, *self.arguments()[command]],
            "env": environment,
            "cwd": str(self.base / f"cwd-{number}"),
            "out": str(self.base / f"{number}.out"),
            "err": str(self.base / f"{number}.err"),
            "ready": ready.get(command),
            **world.spec,
        }

    def check(self, rows: list[tuple[str, str]]) -> None:
        """Run each command in its world, and look at how it ends."""
        rows = [(w, c) for w, c in rows if os.getuid() == 0 or "user" not in WORLDS[w].spec]
        cases = [self.case(n, command, WORLDS[world]) for n, (world, command) in enumerate(rows)]
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("worlds.py"))],
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
            input=json.dumps(cases).encode() + b"\n",
            stdout=subprocess.PIPE,
            check=True,
        )
        codes = [json.loads(line) for line in done.stdout.splitlines()]
        for (world, command), case, code in zip(rows, cases, codes, strict=True):
            files = [Path(case[name]) for name in ("out", "err")]
            said = "".join(p.read_text(errors="replace") for p in files if p.is_file())
            told = f"{command} in {world}: {code}\n{said}"
            assert code in (0, 1, 2), told
            assert not any(words in said for words in TRACES), told
            assert not code or said or case.get("stdout"), told
            if WORLDS[world].remedy and command in WITH_A_HOME:
                assert code == 2 or (code == 1 and command in ("audit", "backup")), told
                assert WORLDS[world].remedy in said, told


@pytest.fixture
def table(api: Api) -> Iterator[Table]:
    # Not tmp_path, which no other user can enter.
    base = Path(tempfile.mkdtemp(prefix="worlds-"))
    base.chmod(0o755)
    (base / "train.py").write_text(TRAIN)
    (base / "file").write_text("")
    (base / "others" / "redis").mkdir(parents=True)
    (base / "others").chmod(0o700)
    (base / "locks").mkdir()
    (base / "locks").chmod(0o1777)
    tag = api.tag("t")
    ids = [api.register(tag, description=f"größer → {i}", hypothesis="naïve") for i in range(2)]
    for bpb, experiment_id in enumerate(ids, 1):
        api.complete(experiment_id, float(bpb))
    yield Table(base, api.url, (ids[0], ids[1]))
    shutil.rmtree(base)


def test_the_table_has_every_command(table: Table) -> None:
    assert table.arguments().keys() == {*COMMANDS, "gpu_worker", "prepare.py"}


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_every_command_ends_without_a_traceback_in(world: str, table: Table) -> None:
    table.check([(world, command) for command in table.arguments()])


def test_the_first_thing_that_a_command_does_with_the_world_may_fail(table: Table) -> None:
    homes = [world for world in WORLDS if WORLDS[world].remedy]
    table.check(
        [(world, command) for world in homes for command in ("audit", "worker")]
        + [(world, "history") for world in WORLDS if world not in homes]
    )
