"""Training data that are missing or on a share, with the real prepare.py and real processes.

All tests here are slow: each starts torch a few times, and the first one trains a tokenizer.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_worker import dataset, workspace
from tests.unit.test_prepare_data import words
from tests.worker.conftest import BLOCK, Host, eventually
from tests.worker.stub import Stub

PROJECT = Path(workspace.__file__).parents[1]
DAEMONS = 2

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    for seed in range(40):
        (folder / f"{seed}.txt").write_text(words(seed, 5000))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first test that needs data here makes them."""
    return tmp_path_factory.mktemp("data") / "cache"


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file with its number on the disk and the time of its last change."""
    found = {path: path.stat() for path in folder.rglob("*")}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in found.items()}


def test_daemons_of_one_host_without_data_prepare_them_once_and_again_after_a_damage(
    host: Host, stub: Stub, library: Path, cache: Path
) -> None:
    for number in range(DAEMONS):
        host.start(
            gpu_id=f"test-host:{number}", check="1", project=PROJECT, cache=cache,
            prepare=library, recheck_seconds=0.2, sandbox="none",
        )  # fmt: skip
    stub.wait_for(lambda: len(stub.gpus) == DAEMONS, 180)
    assert host.log.count("Ready. Train with") >= 1
    output = (host.home / "worker.err").read_text()
    assert output.count("tokenizer: training") == 1
    assert output.count("tokens: tokenizing") == 2, "one shard to train on, one to validate"
    assert {gpu["data_sha256"] for gpu in stub.gpus.values()} == {dataset.digest(cache)}
    assert stub.report(stub.submit(BLOCK))["outcome"] == "completed"
    (tokens,) = cache.glob("tokens/*/shard_00000.tokens.npy")
    os.truncate(tokens, tokens.stat().st_size - 100)
    assert stub.report(stub.submit("raise SystemExit(1)"), 90)["outcome"] == "handed_back"
    eventually(lambda: host.log.count("tokens: tokenizing shard_00000") == 2, 90)
    stub.wait_for(lambda: not any(gpu.get("problem") for gpu in stub.gpus.values()), 90)


def read_only(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command where `folder`, $0, is mounted read-only."""
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces here")
    script = f"mount --bind $0 $0 && mount -o remount,bind,ro $0 || exit 99\n{command}"
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, str(folder)],
        check=False, capture_output=True, text=True, cwd=PROJECT,
        env=os.environ | {"AUTORESEARCH_CACHE": str(folder)},
    )  # fmt: skip


def test_a_share_that_is_read_only_is_enough_if_its_data_lack_nothing(
    library: Path, cache: Path, tmp_path: Path
) -> None:
    """prepare.py then writes nothing, the host check passes and a run loads. What is missing is
    made elsewhere, and prepare.py says so."""
    make = [sys.executable, "prepare.py", "--source", str(library)]
    env = os.environ | {"AUTORESEARCH_CACHE": str(cache)}
    if not cache.exists():  # else by the first test's workers
        subprocess.run(make, cwd=PROJECT, env=env, check=True)
    load = (
        "import prepare, torch; prepare.check(); "
        "print(next(prepare.make_dataloader(prepare.Tokenizer.load(), 2, 256, 'train',"
        " torch.device('cpu')))[0].shape)"
    )
    before = files(cache)
    used = read_only(cache, f'{shlex.join(make)} && {sys.executable} -c "{load}"')
    assert used.returncode == 0, used.stdout + used.stderr
    assert "Ready." in used.stdout
    assert '"ok": true' in used.stdout
    assert files(cache) == before

    share = tmp_path / "share"
    shutil.copytree(cache, share)
    next(share.glob("tokens/*/shard_00000.tokens.npy")).unlink()
    used = read_only(share, shlex.join(make))
    assert used.returncode == 1
    assert "run prepare.py elsewhere for what it lacks" in used.stdout
    assert "Read-only file system" in used.stderr
    assert "Traceback" not in used.stderr
