"""What a run can import: its workspace and the environment's packages, not the checkout."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_worker import workspace
from gpu_worker.settings import WorkerSettings
from tests.worker.conftest import BLOCK, Host
from tests.worker.stub import Stub

ROOT = Path(__file__).parents[2]
# Each is a module or package in this checkout, whose editable install puts it on sys.path.
CHECKOUT = ["corpus", "download", "orchestrator", "gpu_worker", "bench"]
TRY = f"""
import importlib.util, json, subprocess, sys
names = {[*CHECKOUT, "prepare", "httpx", "json"]}
print([name for name in names if importlib.util.find_spec(name)], flush=True)
if len(sys.argv) == 1:
    subprocess.run([sys.executable, __file__, "child"], cwd="/", check=True)
"""


@pytest.mark.parametrize("launcher", ["", sys.executable], ids=["uv", "python"])
def test_a_run_imports_its_workspace_and_the_packages_but_no_file_of_the_checkout(
    host: Host, stub: Stub, launcher: str
) -> None:
    """Nor do its child processes: a file beside train.py would change what an equal source does."""
    prepare = b"WORD = 'pinned'\n"
    sha256 = hashlib.sha256(prepare).hexdigest()
    stub.prepares[sha256] = prepare
    run = stub.submit(TRY + BLOCK, prepare_sha256=sha256)
    host.start(launcher=launcher, project=ROOT)
    assert stub.report(run)["outcome"] == "completed", stub.output(run)
    found = [line for line in stub.output(run).splitlines() if line.startswith("[")]
    assert found == ["['prepare', 'httpx', 'json']"] * 2


def test_only_the_checkouts_are_taken_out_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other folders of PYTHONPATH stay, and so does a sitecustomize of the environment."""
    project, other = tmp_path / "project", tmp_path / "other"
    for folder in (project, other):
        folder.mkdir()
        (folder / f"{folder.name}_helper.py").touch()
    (project / "pyproject.toml").touch()
    (other / "sitecustomize.py").write_text("import sys; sys.customized = True\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(project), str(other)]))
    environment = workspace.base_environment(WorkerSettings(project=project), "")
    program = (
        "import importlib.util as u, json, sys; names = ['project_helper', 'other_helper'];"
        "print(json.dumps([[bool(u.find_spec(n)) for n in names], sys.customized]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(ran.stdout) == [[False, True], True]
    assert ran.stderr == ""
