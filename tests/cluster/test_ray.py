"""Ray places the daemons: a head with two GPUs, and a node with two that loses its power.

The node runs in a PID namespace, so killing it kills all that runs on it at once. The GPUs are
those of the fake NVML; everything else is real.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.chaos.process_checks import marked
from bench.harness.ports import free_port
from gpu_worker import tree
from orchestrator.domain import FINISHED
from tests.e2e.conftest import System, eventually, stub

pytest.importorskip("ray", reason="the extra: uv run --extra ray pytest -m cluster")

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
FAKE_NVML = ROOT / "tests" / "worker" / "fake_nvml"
OWN_PROCESSES = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
PRELUDE = f"""
set -euo pipefail
export VIRTUAL_ENV={sys.prefix}
uv() {{
  if [ "$1" = sync ]; then (cd {ROOT} && command uv "$@" --dry-run --quiet); return; fi
  shift
  command uv run --active --no-sync --project {ROOT} "$@"
}}
"""


class Cluster:
    """A Ray cluster on this machine. What runs of ours has its home in its environment."""

    def __init__(self, folder: Path) -> None:
        self.system = System(folder)
        self.folder = folder
        self.home = folder / "home"
        # Sockets have short names.
        self.ray_folder = Path(tempfile.mkdtemp(prefix="ray-"))
        (folder / "nvml.json").write_text('{"gpus": 4}')
        of_ray = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "b" * 64,
            "RAY_TMPDIR": str(self.ray_folder),
            "RAY_gcs_rpc_server_reconnect_timeout_s": "1",
            "FAKE_NVML": str(folder / "nvml.json"),
            "PYTHONPATH": f"{FAKE_NVML}{os.pathsep}{ROOT}",
        }
        self._environment = os.environ | of_ray
        self.system.environment |= {
            "AUTORESEARCH_SANDBOX": "none",
            "AUTORESEARCH_DRAIN_TIMEOUT": "10",
            # Longer than a daemon takes to start on a busy machine.
            "AUTORESEARCH_LEASE_SECONDS": "6",
        }
        self.environment = self.system.environment | of_ray
        self.nodes: list[subprocess.Popen[bytes]] = []

    def head(self, gpus: str) -> None:
        port = str(free_port())
        self.environment["RAY_ADDRESS"] = f"127.0.0.1:{port}"
        self._start(gpus, "--head", "--port", port, "--include-dashboard=false")
        eventually(lambda: self.fleet("status").returncode == 0, 60, "the head")

    def node(self, gpus: str) -> subprocess.Popen[bytes]:
        """Another node, with an address of its own."""
        address = ("--address", self.environment["RAY_ADDRESS"], "--node-ip-address", "127.0.0.2")
        return self._start(gpus, *address, before=OWN_PROCESSES)

    def _start(
        self, gpus: str, *arguments: str, before: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        command = [
            *before, str(Path(sys.executable).with_name("ray")), "start", "--block", *arguments,
            "--num-cpus=0", f"--num-gpus={len(gpus.split(','))}", "--disable-usage-stats",
            f"--object-store-memory={80 * 1024**2}",
        ]  # fmt: skip
        with (self.folder / f"ray-{len(self.nodes)}.log").open("wb") as log:
            environment = self._environment | {"CUDA_VISIBLE_DEVICES": gpus}
            node = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.nodes.append(node)
        return node

    def bash(self, script: str) -> None:
        with (self.folder / "bash.log").open("wb") as log:
            done = subprocess.run(
                ["bash", "-c", PRELUDE + script],
                cwd=self.folder, env=self.environment, timeout=120, check=False,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        assert done.returncode == 0, script + (self.folder / "bash.log").read_text()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "orchestrator.cli", "fleet", "ray", *arguments]

    def fleet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments, "--json"),
            env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """An answer of the orchestrator whose address and token the environment has."""
        token = self.environment.get("AUTORESEARCH_TOKEN", "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = self.environment["AUTORESEARCH_ORCHESTRATOR"] + path
        answer = httpx.request(method, url, headers=headers, timeout=40, **more)
        assert answer.status_code in (200, 202), answer.text
        return answer

    def idle_gpus(self) -> list[str]:
        workers = self.call("GET", "/api/pool/list").json()["workers"]
        return sorted(w["id"].partition(":")[2] for w in workers if w["status"] == "idle")

    def rows(self) -> list[dict[str, Any]]:
        """The runs in their order, without the first, which the document submits."""
        found = self.call("GET", "/api/report/export?tag=mar11&limit=100").json()
        return list(found["rows"][1:])

    def daemons(self) -> list[int]:
        """The workers, their supervisors and runs: all but the orchestrator, which we started."""
        return [each.pid for each in marked(self.home) if b"gpu_worker" in command_line(each.pid)]

    def actors(self) -> list[int]:
        """Those of this cluster: they are below its nodes."""
        below = [pid for node in self.nodes for pid in tree.descendants(node.pid)]
        return [pid for pid in below if command_line(pid).startswith(b"ray::Worker")]

    def stop(self) -> None:
        self.system.stop()
        serving = [p.pid for p in marked(self.home) if b"\0serve\0" in command_line(p.pid)]
        for pid in serving:  # the document's, which ends its Valkey
            tree.kill(pid, signal.SIGTERM)
        eventually(lambda: not any(map(command_line, serving)), what="the orchestrator's end")
        for node in self.nodes:
            for pid in [*tree.descendants(node.pid), node.pid]:
                tree.kill(pid, signal.SIGKILL)
            node.wait()
        tree.sweep("AUTORESEARCH_HOME", str(self.home))
        for path in (*self.folder.glob("*.log"), *self.home.glob("logs/*.log")):
            print(f"== {path.name}\n{path.read_text(errors='replace')}")  # noqa: T201
        shutil.rmtree(self.ray_folder)


def command_line(pid: int) -> bytes:
    with suppress(OSError):  # it has ended
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.fixture
def cluster(tmp_path: Path, _clean_environment: None) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes the node's PID namespace")
def test_a_search_on_ray_decides_each_run_once_though_a_node_dies(cluster: Cluster) -> None:
    """By the commands of docs/cluster.md, in their order."""
    text = (ROOT / "docs" / "cluster.md").read_text("utf-8").partition("\n## Ray\n")[2]
    text = text.partition("\n## ")[0]
    begin, watch, down = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    port = str(free_port())
    cluster.environment["AUTORESEARCH_PORT"] = port
    (cluster.folder / "train.py").write_text(stub(2.0))
    cluster.head("0,1")
    cluster.bash(begin.replace("3111", port) + "env > environment")
    lines = (cluster.folder / "environment").read_text().splitlines()
    cluster.environment |= dict(line.split("=", 1) for line in lines if line.startswith("AUTOR"))
    with (cluster.folder / "watch.log").open("wb") as log:
        watching = subprocess.Popen(
            ["bash", "-c", PRELUDE + watch],
            cwd=cluster.folder, env=cluster.environment, stdout=log, start_new_session=True,
        )  # fmt: skip
    node = cluster.node("2,3")
    gpus = [f"GPU-{number}abc" for number in range(4)]
    eventually(lambda: cluster.idle_gpus() == gpus, 90, "a daemon on each GPU")
    os.killpg(watching.pid, signal.SIGINT)
    assert watching.wait(30) == 0

    # Four of them train when the node dies: two there, and two here, whose GPUs keep them.
    long = range(16, 20)
    pause = {"tag": "mar11", "reason": "until all are queued"}
    cluster.call("POST", "/api/steer/pause", json=pause)
    for number in range(40):
        source = stub(1.9 - number / 100, seconds=3 if number in long else 0.05)
        body = {"tag": "mar11", "hypothesis": "h", "train_py": source}
        cluster.call("POST", "/api/experiment/submit", json=body)
    cluster.call("POST", "/api/steer/resume", json=pause)
    running = ["running"] * len(long)
    eventually(lambda: [row["status"] for row in cluster.rows()][16:20] == running, what="all four")
    (actor, *_) = cluster.actors()
    node.kill()
    tree.kill(actor, signal.SIGKILL)
    eventually(lambda: all(row["status"] in FINISHED for row in cluster.rows()), 90, "all verdicts")
    rows = cluster.rows()
    assert len(rows) == 40
    assert all(row["val_bpb"] is not None for row in rows)
    assert sorted(row["attempts"] for row in rows)[-3:] == [1, 2, 2]
    journal = cluster.call("GET", "/api/report/journal?tag=mar11").text
    decided = [
        line["experiment_id"]
        for line in map(json.loads, journal.splitlines())
        if line["kind"] == "decided"
    ]
    assert sorted(decided)[1:] == [row["id"] for row in rows]
    cluster.bash("uv run autoresearch audit mar11")

    states = json.loads(cluster.fleet("status").stdout)
    assert sorted(each["state"] for each in states) == ["running", "running", "waiting", "waiting"]
    token = cluster.environment["AUTORESEARCH_TOKEN"]
    for place in (*cluster.ray_folder.rglob("*"), *Path("/proc").glob("[0-9]*/cmdline")):
        with suppress(OSError):  # a folder, a socket, a process that has ended
            assert token.encode() not in place.read_bytes(), place
    copies = cluster.ray_folder.glob("ray/session_*/runtime_resources/working_dir_files/*")
    assert list(copies) == []
    cluster.bash(down)
    assert cluster.daemons() == []
    eventually(lambda: not cluster.actors(), what="the end of the actors")
    assert json.loads(cluster.fleet("status").stdout) == []


def test_a_dead_head_stops_no_run_and_the_next_cluster_takes_it_over(cluster: Cluster) -> None:
    cluster.system.serve()
    cluster.environment["AUTORESEARCH_ORCHESTRATOR"] = cluster.system.url
    cluster.head("0")
    assert cluster.fleet("up").returncode == 0
    cluster.system.post("/api/experiment/setup", tag="t", time_budget_seconds=100)
    go = cluster.folder / "go"
    wait = f"""
import os, time
print("step", flush=True)
while not os.path.exists({str(go)!r}):
    time.sleep(0.02)
"""
    run = cluster.system.submit(wait + stub(2.0))
    cluster.system.training(run)
    daemons, actors = cluster.daemons(), cluster.actors()
    (gcs,) = [
        p for p in tree.descendants(cluster.nodes[0].pid) if b"/gcs_server" in command_line(p)
    ]
    tree.kill(gcs, signal.SIGKILL)
    eventually(lambda: not any(map(command_line, actors)), what="the end of Ray")
    ended_at = time.monotonic()
    cluster.head("0")
    # Longer than a daemon waits for the end of Ray, after that of its actor.
    eventually(lambda: time.monotonic() > ended_at + 6)
    assert cluster.daemons() == daemons
    assert cluster.fleet("up").returncode == 0
    eventually(lambda: set(daemons) - set(cluster.daemons()), what="another daemon")
    go.touch()
    decided = cluster.system.wait(run)
    assert (decided["status"], len(decided["attempts"])) == ("keep", 1)
    assert cluster.fleet("down").returncode == 0
    assert cluster.daemons() == []
