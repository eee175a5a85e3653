"""The mirror against a real MLflow server, both of them killed and started again."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.harness.ports import free_port
from tests.e2e.conftest import System, eventually, stub

ROOT = Path(__file__).parents[2]
# Its job runners are ten processes that nothing here needs.
ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with MLflow's server and this project with its extra; MLflow is too large for
    everybody's. MLFLOW_TEST_PYTHON names one that is there already."""
    given = os.environ.get("MLFLOW_TEST_PYTHON")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("mlflow") / "venv"
    commands = (
        ["uv", "venv", "-q", str(folder)],
        ["uv", "pip", "install", "-q", "--python", str(folder), "mlflow>=3.1", "-e", ".[mlflow]"],
    )
    for command in commands:
        try:
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=400)
        except (OSError, subprocess.SubprocessError) as error:
            words = getattr(error, "stderr", None) or str(error).encode()
            pytest.skip(f"MLflow cannot be installed: {words.decode()[-300:]}")
    return folder / "bin" / "python"


class Server:
    """An MLflow server with its state in a folder."""

    def __init__(self, python: Path, folder: Path) -> None:
        folder.mkdir()
        self._command = [
            str(python), "-m", "mlflow", "server", "--host", "127.0.0.1",
            "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination", str(folder / "artifacts"), "--workers", "1",
        ]  # fmt: skip
        self._log = folder / "server.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "--port", str(self.port)], stdout=log, stderr=log,
                start_new_session=True, env=os.environ | ENVIRONMENT,
            )  # fmt: skip
        eventually(self._ready, 120, "MLflow")

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """With its workers, which are processes of their own."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None

    def runs(self, tag: str = "t") -> list[dict[str, Any]]:
        """All MLflow runs of a tag."""
        api = f"{self.url}/api/2.0/mlflow"
        name = f"autoresearch/{tag}"
        found = httpx.get(f"{api}/experiments/get-by-name", params={"experiment_name": name})
        if found.status_code == 404:
            return []
        body = {"experiment_ids": [found.json()["experiment"]["experiment_id"]]}
        runs = httpx.post(f"{api}/runs/search", json=body, timeout=30).json().get("runs", [])
        return [
            run["info"]
            | {t["key"]: t["value"] for t in run["data"]["tags"]}
            | {m["key"]: m["value"] for m in run["data"].get("metrics", ())}
            for run in runs
        ]

    def ids(self) -> list[str]:
        """Experiments whose MLflow run is complete, each as often as it is there."""
        return sorted(r["autoresearch.id"] for r in self.runs() if r["status"] != "RUNNING")


@pytest.fixture
def mlflow(python: Path, tmp_path: Path) -> Iterator[Server]:
    server = Server(python, tmp_path / "mlflow")
    server.start()
    yield server
    server.kill()


def mirror(
    system: System, python: Path, server: Server, *arguments: str
) -> "subprocess.Popen[bytes]":
    with (system.folder / "mirror.log").open("ab") as log:
        return subprocess.Popen(
            [str(python), "-m", "orchestrator.cli", "mirror", "mlflow", "--tracking-uri",
             server.url, *arguments],
            env=system.environment | {"AUTORESEARCH_ORCHESTRATOR": system.url},
            stdout=log, stderr=log, cwd=ROOT,
        )  # fmt: skip


def decided(system: System, val_bpb: float | None, **fields: Any) -> str:
    """An experiment by hand, from registration to verdict."""
    body = {"tag": "t", "hypothesis": "h", "description": "d", "category": "other",
            "commit_sha": "c", "diff_summary": ""} | fields  # fmt: skip
    name = str(system.post("/api/experiment/register", **body)["experiment_id"])
    if val_bpb is None:
        system.post("/api/experiment/crash", experiment_id=name, error="out of luck")
    else:
        system.post("/api/experiment/complete", experiment_id=name, val_bpb=val_bpb)
    return name


def test_every_decided_run_is_one_mlflow_run_whatever_is_killed(
    system: System, python: Path, mlflow: Server
) -> None:
    """Mirror, MLflow and orchestrator are killed in turn; at last each run is there once."""
    port = free_port()
    orchestrator = system.serve(port)
    system.post("/api/experiment/setup", tag="t")
    names = [decided(system, 1.0, description="the baseline"), decided(system, None)]

    assert mirror(system, python, mlflow, "--once").wait(120) == 0
    first, crashed = sorted(mlflow.runs(), key=lambda run: run["autoresearch.id"])
    assert (first["val_bpb"], first["status"]) == (1.0, "FINISHED")
    assert (first["run_name"], first["autoresearch.status"]) == ("the baseline", "keep")
    assert crashed["status"] == "FAILED"
    assert "out of luck" in crashed["mlflow.note.content"]
    assert mirror(system, python, mlflow, "--once").wait(120) == 0
    assert mlflow.ids() == sorted(names)

    following = mirror(system, python, mlflow)
    names.append(decided(system, 0.9))
    eventually(lambda: mlflow.ids() == sorted(names), 60, "the third run")
    following.kill()
    following.wait()

    names.append(decided(system, 0.8))
    mlflow.kill()
    following = mirror(system, python, mlflow)
    names.append(decided(system, 0.7))
    mlflow.start()
    eventually(lambda: mlflow.ids() == sorted(names), 90, "the runs after MLflow's restart")

    orchestrator.kill()
    orchestrator.wait()
    system.serve(port)
    names.append(decided(system, 0.6))
    eventually(
        lambda: mlflow.ids() == sorted(names), 60, "the run after the orchestrator's restart"
    )
    following.terminate()
    assert following.wait(30) == 0

    for path in (system.folder / "home" / "mirrors").glob("*.json"):
        path.unlink()
    following = mirror(system, python, mlflow)
    names.append(decided(system, 0.5))
    eventually(
        lambda: mlflow.ids() == sorted(names), 60, "the run of a mirror that forgot its place"
    )
    following.terminate()
    assert following.wait(30) == 0
    assert len(mlflow.runs()) == len(names)


def test_the_learning_curve_and_the_source_go_along(
    system: System, python: Path, mlflow: Server
) -> None:
    system.serve()
    system.post("/api/experiment/setup", tag="t", time_budget_seconds=5)
    system.worker()
    name = system.submit(stub(1.25, seconds=1))
    system.wait(name)
    assert mirror(system, python, mlflow, "--once", "--sources").wait(120) == 0
    [run] = mlflow.runs()
    api = f"{mlflow.url}/api/2.0/mlflow"
    query = {"run_id": run["run_id"], "metric_key": "loss"}
    points = httpx.get(f"{api}/metrics/get-history", params=query).json()["metrics"]
    curve = system.get(f"/api/experiment/{name}")["curve"]
    assert [(p["step"], p["value"]) for p in points] == [(p["step"], p["loss"]) for p in curve]
    files = httpx.get(f"{api}/artifacts/list", params={"run_id": run["run_id"]}).json()["files"]
    assert [file["path"] for file in files] == ["train.py"]
