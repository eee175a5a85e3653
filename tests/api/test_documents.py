"""Every curl of program.md and docs/steering.md runs, in its order, against a running service."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Api

ROOT = Path(__file__).parents[2]
# A request that is refused fails the block; variables live on from block to block.
PRELUDE = """
set -euo pipefail
curl() { command curl --fail-with-body "$@"; }
[ ! -f state ] || source ./state
"""
EPILOGUE = """
declare -p API TAG ID BEST GPU ID2 NOTE 2>/dev/null >state || true
"""


def blocks_of(document: str) -> list[str]:
    text = (ROOT / document).read_text("utf-8")
    return re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


class Shell:
    """An agent's shell in a folder of its own, with a train.py in it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        (folder / "train.py").write_text("print('baseline')\n")
        (folder / "state").write_text(f"declare -x API={url}\n")

    def run(self, block: str) -> str:
        done = subprocess.run(
            ["bash", "-c", PRELUDE + block + EPILOGUE],
            cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def remember(self, name: str, value: str) -> None:
        with (self.folder / "state").open("a") as state:
            state.write(f"declare -x {name}={value}\n")


def train(api: Api, experiment_id: str, val_bpb: float) -> None:
    """What a worker does with the job."""
    job = api.claim()
    assert job["experiment_id"] == experiment_id
    lease = {k: job[k] for k in ("experiment_id", "gpu_id", "epoch", "lease_secret")}
    chunk = {"offset": 0, "data": base64.b64encode(b"step 1\n---\n").decode()}
    api.post("/api/job/progress", log=chunk, **lease)
    api.finish(job, val_bpb)


@pytest.mark.skipif(not shutil.which("jq"), reason="program.md's commands use jq")
@pytest.mark.skipif(not shutil.which("curl"), reason="program.md's commands use curl")
def test_every_command_of_program_md_works_in_order(api: Api, tmp_path: Path) -> None:
    """Queue loop and hand-run loop, as an agent would type them."""
    api.gpu()
    shell = Shell(tmp_path, api.url)
    ran = 0
    val_bpb = 1.0
    for block in blocks_of("program.md"):
        output = shell.run(block)
        ran += block.count("curl -s")
        if "/api/experiment/submit" in block:
            experiment_id = json.loads(output)["experiment_id"]
            shell.remember("ID", experiment_id)
            train(api, experiment_id, val_bpb)
            val_bpb += 0.1
    assert ran >= 24
    assert (tmp_path / "train.py").read_text() == "print('baseline')\n"
    lines = (tmp_path / "results.tsv").read_text().splitlines()
    assert [line.split("\t")[3] for line in lines[1:]] == ["keep", "discard", "keep", "crash"]
    assert api.get("/api/pool/list")["idle"] == 1


@pytest.mark.skipif(not shutil.which("jq"), reason="the skill's commands use jq")
@pytest.mark.skipif(not shutil.which("curl"), reason="the skill's commands use curl")
def test_every_command_of_the_skill_works_in_order(api: Api, tmp_path: Path) -> None:
    """The ready file for coding agents: each block as an agent would type it."""
    api.gpu()
    shell = Shell(tmp_path, api.url)
    val_bpb = 1.0
    for block in blocks_of("skills/autoresearch/SKILL.md"):
        output = shell.run(block)
        if "/api/experiment/submit" in block:
            experiment_id = json.loads(output)["experiment_id"]
            shell.remember("ID", experiment_id)
            train(api, experiment_id, val_bpb)
            val_bpb -= 0.1
    assert json.loads(output)["metrics"] == {"val_bpb": 0.9}
    assert "# Where the search mar11 stands" in shell.run(
        blocks_of("skills/autoresearch/SKILL.md")[1]
    )


@pytest.mark.skipif(not shutil.which("jq"), reason="the brief's commands use jq")
@pytest.mark.skipif(not shutil.which("curl"), reason="the brief's commands use curl")
def test_every_command_of_a_brief_works(api: Api, tmp_path: Path) -> None:
    """What an agent without context is told to type, typed."""
    api.gpu()
    api.tag()
    job = api.submit("print('best')")
    train(api, job, 1.0)
    text = api.get("/api/report/brief", tag="mar11")["text"]
    commands = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
    shell = Shell(tmp_path, api.url)
    shell.remember("ID", job)
    output = shell.run(commands.replace("-o train.py", "-o train.py; echo >> train.py"))
    assert '"status": "queued"' in output or '"status":"queued"' in output
    assert "# Where the search mar11 stands" in output


@pytest.mark.skipif(not shutil.which("jq"), reason="the document's commands use jq")
@pytest.mark.skipif(not shutil.which("curl"), reason="the document's commands use curl")
def test_every_command_of_the_steering_document_works_in_order(api: Api, tmp_path: Path) -> None:
    """As a person would type them, about one experiment: queued, trained, and cancelled when its
    repeat is queued."""
    api.tag()
    api.gpu()
    shell = Shell(tmp_path, api.url)
    experiment_id = api.submit("1")
    shell.remember("ID", experiment_id)
    ran = 0
    for block in blocks_of("docs/steering.md"):
        if "/requeue" in block:
            train(api, experiment_id, 1.0)
        output = shell.run(block)
        ran += block.count("curl -s")
        if "/requeue" in block:
            repeat = json.loads(output)
            assert repeat["repeat_of"] == experiment_id
            shell.remember("ID", repeat["experiment_id"])
    assert ran >= 15
    told = [entry["action"] for entry in api.get("/api/steer/ledger")["entries"]]
    assert sorted(set(told)) == [
        "cancel", "drain", "drop-note", "note", "pause", "priority", "race", "requeue", "resume",
        "set-strategy", "undrain",
    ]  # fmt: skip
    assert api.get(f"/api/experiment/{repeat['experiment_id']}")["status"] == "cancelled"


def test_the_original_manual_s_loop_by_hand_works_with_bare_curl(api: Api) -> None:
    """setup, register, acquire, complete, crash, adapt, release: one curl each, no header."""
    api.gpu()

    def curl(path: str, body: str) -> dict[str, object]:
        done = subprocess.run(
            ["curl", "-sS", "-d", body, api.url + path], capture_output=True, check=True
        )
        answer: dict[str, object] = json.loads(done.stdout)
        assert "title" not in answer, answer
        return answer

    curl("/api/experiment/setup", '{"tag": "mar11"}')
    register = (
        '{"tag": "mar11", "hypothesis": "h", "description": "d", "category": "optimizer",'
        ' "commit_sha": "abc1234", "diff_summary": "s"}'
    )
    first = curl("/api/experiment/register", register)
    assert first["status"] == "registered"
    held = curl("/api/pool/acquire", json.dumps({"experiment_id": first["experiment_id"]}))
    assert held == {"acquired": True, "gpu_id": "gpu-0", "gpu_index": 0, "reason": None}
    verdict = curl(
        "/api/experiment/complete",
        json.dumps(
            {
                "experiment_id": first["experiment_id"], "val_bpb": 0.9979, "peak_vram_mb": 45060.2,
                "training_seconds": 300.1, "total_tokens_m": 499.6, "mfu_percent": 39.8,
                "num_steps": 953, "num_params_m": 50.3, "depth": 8,
            }
        ),
    )  # fmt: skip
    assert (verdict["status"], verdict["action"]) == ("keep", "keep_commit")
    second = curl("/api/experiment/register", register)
    crash = curl(
        "/api/experiment/crash",
        json.dumps({"experiment_id": second["experiment_id"], "error": "CUDA out of memory"}),
    )
    assert (crash["status"], crash["should_abort"], crash["action"]) == (
        "crash", False, "git_reset",
    )  # fmt: skip
    for path in (
        "/api/experiment/history", "/api/experiment/best", "/api/experiment/near-misses",
        "/api/search/strategy", "/api/search/adapt", "/api/search/suggest",
        "/api/report/summary", "/api/report/tsv",
    ):  # fmt: skip
        curl(path, '{"tag": "mar11"}')
    curl("/api/search/set-strategy", '{"tag": "mar11", "mode": "exploit", "reason": "r"}')
    both = {"experiment_a": first["experiment_id"], "experiment_b": second["experiment_id"]}
    assert curl("/api/report/diff", json.dumps(both))["delta_bpb"] == -0.9979
    assert curl("/api/pool/release", '{"gpu_id": "gpu-0"}') == {"released": True}
    curl("/api/pool/heartbeat", '{"gpu_id": "gpu-0"}')
    curl("/api/gpu/gpu-0/health", "{}")
    curl("/api/pool/deregister", '{"gpu_id": "gpu-0"}')
