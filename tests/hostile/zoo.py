"""Hostile train.py files, a world for them to attack, and how to see that one has succeeded.

attacks/ has one file per attack. ATTACKS says which sandbox levels hold it; the table in
docs/security.md is made of it. An attack that a level does not hold must be seen to succeed there:
otherwise its test shows nothing.
"""

import hashlib
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpu_worker import tree
from gpu_worker.folders import RunFolder
from gpu_worker.isolation import Level
from orchestrator.valkey import server_binary
from tests.worker.conftest import Host, eventually
from tests.worker.stub import Json, Stub

FOLDER = Path(__file__).with_name("attacks")
TOKEN = "secret-token-of-the-worker"
# How the zoo's prepare.py measures; a plain 1.25 that no attack can reach honestly.
PREPARE = """
import sys
def evaluate_bpb():
    sys.modules["autoresearch_run"].measured(1.25)
"""
HONEST = "import prepare\nprepare.evaluate_bpb()\nprint('---\\nval_bpb: 1.250000')\n"


class World:
    """What a worker's host has beside a run, for attacks to reach."""

    def __init__(self, host: Host, stub: Stub) -> None:
        self.host, self.stub = host, stub
        home = host.home
        self.word = f"left-by-{home.name}-{time.monotonic_ns()}"
        self.cache = home / "cache"
        for name in ("data/shard_00000.parquet", "tokenizer/ranks.tiktoken"):
            path = self.cache / name
            path.parent.mkdir(parents=True)
            path.write_bytes(b"as prepared")
        rows = self.cache / "tokens" / "0" / "validation_1x1.npy"
        rows.parent.mkdir(parents=True)
        rows.write_bytes(bytes(range(256)))
        record = {"sha256": hashlib.sha256(bytes(range(256))).hexdigest()}
        rows.with_suffix(".json").write_text(json.dumps(record))
        self.checkout = home / "checkout" / "supervisor.py"
        self.checkout.parent.mkdir()
        self.checkout.write_text("# of the worker\n")
        self.secret = home / "huggingface" / "token"
        self.secret.parent.mkdir()
        self.secret.write_text("hf_secret-of-the-user")
        self.other = RunFolder(home / "other" / "exp-other.1")
        self.other.workspace.mkdir(parents=True)
        self.other.log.write_text("---\nval_bpb: 1.250000\n")
        self.other.measures.write_text("1.25\n")
        self._serve()
        self.before = self._contents()

    def _serve(self) -> None:
        self.received: list[bytes] = []
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self._abstract = socket.socket(socket.AF_UNIX)
        self._abstract.bind("\0" + self.word)
        self._abstract.listen()
        for listener in (self._tcp, self._abstract):
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        self.valkey_socket = self.host.home / "valkey.sock"
        self._valkey = subprocess.Popen(
            [
                *(server_binary(), "--port", "0", "--unixsocket", str(self.valkey_socket)),
                *("--save", "", "--dir", str(self.host.home)),
            ],
            stdout=subprocess.DEVNULL,
        )
        eventually(self._valkey_answers)
        self.ask_valkey(b"SET champion 1.25\r\n")

    def _valkey_answers(self) -> bool:
        """The socket's file is there before the server listens on it."""
        try:
            return self.ask_valkey(b"PING\r\n") == b"+PONG\r\n"
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                self.received.append(connection.recv(100))

    def ask_valkey(self, command: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.valkey_socket))
            client.sendall(command)
            return client.recv(1000)

    def _contents(self) -> dict[Path, bytes]:
        folders = (self.cache, self.checkout.parent, self.other.path)
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files}

    def changed(self, folder: Path) -> bool:
        """True if a file below `folder` is not as it was."""
        now = self._contents()
        paths = [path for path in {*now, *self.before} if path.is_relative_to(folder)]
        return any(now.get(path) != self.before.get(path) for path in paths)

    def targets(self) -> dict[str, str]:
        """What an attacker would find out by looking around."""
        return {
            "abstract_socket": self.word,
            "cache": str(self.cache),
            "other_run": str(self.other.path),
            "port": str(self._tcp.getsockname()[1]),
            "secret_file": str(self.secret),
            "supervisor_py": str(self.checkout),
            "valkey_socket": str(self.valkey_socket),
            "word": self.word,
        }

    def attack(self, name: str) -> "Outcome":
        """Run the attack as a train.py."""
        source = (FOLDER / f"{name}.py").read_text()
        filled = f"TARGETS: dict[str, str] = {self.targets()!r}"
        return self.run(source.replace("TARGETS: dict[str, str] = {}", filled))

    def run(self, source: str) -> "Outcome":
        sha256 = hashlib.sha256(PREPARE.encode()).hexdigest()
        self.stub.prepares[sha256] = PREPARE.encode()
        run = self.stub.submit(source, prepare_sha256=sha256)
        report = self.stub.report(run, 60)
        return Outcome(report, self.stub.output(run) if run in self.stub.logs else "")

    def left(self) -> list[int]:
        """Processes with the world's word in their command line."""
        found = []
        for pid in tree._processes():
            try:
                if self.word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
            except OSError:
                continue
        return found

    def close(self) -> None:
        for pid in self.left():
            tree.kill(pid, signal.SIGKILL)
        for folder in ("/tmp", "/dev/shm", "/var/tmp"):
            Path(folder, self.word).unlink(missing_ok=True)
        for listener in (self._tcp, self._abstract):
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._valkey.kill()
        self._valkey.wait()


@dataclass
class Outcome:
    report: Json
    log: str

    def says(self, words: str) -> bool:
        return words in self.log or words in self.report["error"]

    @property
    def kept(self) -> bool:
        return bool(self.report["metrics"] and self.report["metrics"]["val_bpb"] == 0.001)


@dataclass
class Attack:
    """`what` is a line of the table; `levels` hold it; `succeeded` looks at what it has done."""

    what: str
    levels: tuple[Level, ...]
    succeeded: Callable[[World, Outcome], bool]
    cost: Literal["", "slow"] = ""
    fatal: bool = False  # may kill the worker
    cgroup: bool = False  # held by a cgroup, where one can be made


def _poisoned(world: World, _: Outcome) -> bool:
    """True if a later, harmless run finds what the attack left in its compile cache."""
    path = "os.environ['AUTORESEARCH_CACHE'] + '/compiled/inductor/fxgraph/entry'"
    return world.run(f"import os\nprint('found', os.path.exists({path}))\n").says("found True")


ALL: tuple[Level, ...] = ("strict", "pid", "none")
NAMESPACE: tuple[Level, ...] = ("strict", "pid")
STRICT: tuple[Level, ...] = ("strict",)

ATTACKS = {
    "valkey": Attack(
        "empty the orchestrator's Valkey through its Unix socket",
        STRICT,
        lambda world, _: b"1.25" not in world.ask_valkey(b"GET champion\r\n"),
    ),
    "checkout": Attack(
        "change the worker's own code in the checkout",
        STRICT,
        lambda world, _: world.changed(world.checkout.parent),
    ),
    "environ": Attack(
        "read the token in the environment of another process",
        NAMESPACE,
        lambda _, outcome: outcome.says(TOKEN),
    ),
    "secrets": Attack(
        "read keys in files of the user",
        STRICT,
        lambda _, outcome: outcome.says("hf_secret-of-the-user"),
    ),
    "other_run": Attack(
        "write another run's log and measures",
        STRICT,
        lambda world, _: world.changed(world.other.path),
    ),
    "validation_rows": Attack(
        "replace the cached validation rows and their hash",
        STRICT,
        lambda world, _: world.changed(world.cache / "tokens"),
    ),
    "training_data": Attack(
        "change the training data and the tokenizer",
        STRICT,
        lambda world, _: world.changed(world.cache / "data"),
    ),
    "compile_cache": Attack(
        "leave code in the compile cache, which a later run executes", STRICT, _poisoned
    ),
    "prepare_py": Attack(
        "rewrite the pinned `prepare.py` in its workspace",
        STRICT,
        lambda _, outcome: outcome.kept,
    ),
    "forged_block": Attack(
        "print a result without a measure", ALL, lambda _, outcome: outcome.kept
    ),
    "outlive": Attack(
        "leave a process behind and kill supervisor and worker",
        NAMESPACE,
        lambda world, _: bool(world.left()),
        fatal=True,
    ),
    "debugger": Attack(
        "control a process outside with ptrace, or its namespace's first",
        STRICT,
        lambda _, outcome: outcome.says("attached"),
    ),
    "namespaces": Attack(
        "become root of a namespace of its own",
        STRICT,
        lambda _, outcome: outcome.says("unshared"),
    ),
    "network": Attack(
        "reach the network, this host's services and abstract sockets",
        STRICT,
        lambda world, _: bool(world.received),
    ),
    "left_files": Attack(
        "leave files for a later run in `/tmp`, `/var/tmp` and `/dev/shm`",
        STRICT,
        lambda world, _: Path("/tmp", world.word).exists() or Path("/dev/shm", world.word).exists(),
    ),
    "full_disk": Attack(
        "fill the disk (over its quota, it is stopped)",
        STRICT,
        lambda _, outcome: outcome.says("filled"),
        cost="slow",
    ),
    "many_files": Attack(
        "use up the inodes (over its quota, it is stopped)",
        STRICT,
        lambda _, outcome: outcome.says("filled"),
        cost="slow",
    ),
    "fork_bomb": Attack(
        "start thousands of processes (over its quota, it is stopped)",
        STRICT,
        lambda _, outcome: outcome.says("bombed"),
        cost="slow",
    ),
    "memory": Attack(
        "use up the memory (stopped where the worker may make cgroups, see below)",
        STRICT,
        lambda _, outcome: outcome.says("eaten"),
        cost="slow",
        cgroup=True,
    ),
}


def table() -> str:
    """The table of docs/security.md."""
    rows = ["| a run tries to | strict | pid | none |", "|---|---|---|---|"]
    for attack in ATTACKS.values():
        held = ["held" if level in attack.levels else "**possible**" for level in ALL]
        rows.append(f"| {attack.what} | {' | '.join(held)} |")
    return "\n".join(rows)
