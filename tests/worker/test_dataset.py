"""The hash of what runs read, on a cache that prepare.py itself has made."""

import json
import shutil
from pathlib import Path

import pytest

from gpu_worker import dataset
from prepare import Tokenizer
from tests.worker.conftest import BLOCK, GPU_ID, WAIT, Host, eventually
from tests.worker.stub import Stub

CHECK = "print({answer!r})"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A tokenizer as prepare.py saves it, and records as it writes them."""
    folder = tmp_path / "cache"
    tokenizer = Tokenizer({bytes([byte]): byte for byte in range(256)})
    tokenizer.save(folder / "tokenizer")
    tokens = folder / "tokens" / tokenizer.digest[:16]
    tokens.mkdir(parents=True)
    for name in ("shard_00000", "shard_06542"):
        record = {"sha256": name.encode().hex(), "source_bytes": 1}
        (tokens / f"{name}.tokens.json").write_text(json.dumps(record))
    return folder


def change(cache: Path, name: str) -> None:
    record = next(cache.glob(f"tokens/[0-9a-f]*/{name}.tokens.json"))
    record.write_text(json.dumps({"sha256": "another", "source_bytes": 1}))


def test_the_hash_tells_training_data_and_tokenizers_apart(cache: Path, tmp_path: Path) -> None:
    first = dataset.digest(cache)
    assert first is not None
    copy = tmp_path / "copy"
    shutil.copytree(cache, copy)
    (copy / "tokens" / "older-tokenizer").mkdir()
    (copy / "tokens" / "older-tokenizer" / "shard_00000.tokens.json").write_text("{}")
    assert dataset.digest(copy) == first
    change(copy, "shard_00000")
    assert dataset.digest(copy) not in (None, first)
    assert dataset.digest(tmp_path / "nothing") is None


def test_data_that_change_after_their_check_are_checked_again_before_the_next_claim(
    host: Host, stub: Stub, cache: Path
) -> None:
    """Each result has the hash of the data that it was trained on, and the pool that of the GPU."""
    project = host.home / "project"
    project.mkdir()
    (project / "prepare.py").write_text(CHECK.format(answer='{"ok": true, "device": "cpu"}'))
    host.start(check="1", project=project, cache=cache, recheck_seconds=0.2, claim_wait_seconds=0.2)
    before = dataset.digest(cache)
    assert stub.report(stub.submit(BLOCK))["environment"]["data_sha256"] == before
    assert stub.gpus[GPU_ID]["data_sha256"] == before
    assert stub.gpus[GPU_ID]["data_folder"] == str(cache)
    change(cache, "shard_00000")
    eventually(lambda: "the training data changed since its check" in host.log)
    report = stub.report(stub.submit(BLOCK))
    assert report["environment"]["data_sha256"] == dataset.digest(cache) != before
    stub.wait_for(lambda: stub.gpus[GPU_ID]["data_sha256"] == dataset.digest(cache))


@pytest.mark.slow
def test_a_run_that_was_claimed_for_data_that_have_changed_meanwhile_does_not_start_on_others(
    host: Host, stub: Stub, cache: Path
) -> None:
    """A claim waits for a run, perhaps long after the data were looked at."""
    project = host.home / "project"
    project.mkdir()
    (project / "prepare.py").write_text(CHECK.format(answer='{"ok": true, "device": "cpu"}'))
    host.start(check="1", project=project, cache=cache, recheck_seconds=0.1, claim_wait_seconds=60)
    stub.wait_for(lambda: stub.count("/api/job/claim"))
    change(cache, "shard_06542")
    report = stub.report(stub.submit(BLOCK))
    assert report["outcome"] == "handed_back"
    assert report["error"] == "the training data changed since its check"
    report = stub.report(stub.submit(BLOCK))
    assert report["environment"]["data_sha256"] == dataset.digest(cache)


@pytest.mark.slow
def test_the_pool_knows_of_data_that_a_check_after_a_failed_run_found_before_the_next_claim(
    host: Host, stub: Stub, cache: Path
) -> None:
    """Else it would grant a run of a tag that is bound to the data before."""
    project = host.home / "project"
    project.mkdir()
    (project / "prepare.py").write_text(CHECK.format(answer='{"ok": true, "device": "cpu"}'))
    host.start(check="1", project=project, cache=cache)
    failing, following = stub.submit(WAIT + "raise SystemExit('its own')"), stub.submit(BLOCK)
    stub.wait_for(lambda: failing in stub.logs)
    change(cache, "shard_00000")
    stub.registration_seconds = 0.5
    host.release(failing)
    assert stub.report(failing)["outcome"] == "crash"
    stub.report(following)
    assert stub.granted_for[following] == dataset.digest(cache)


LACKS = """
import json, sys
if sys.argv[1] == "--check":
    problem = "There is no data. Run `uv run prepare.py` here."
    print(json.dumps({"ok": False, "problems": [problem]}))
else:
    sys.exit(f"error: There is no {sys.argv[2]}.")
"""


def test_a_worker_that_may_not_prepare_says_what_to_run_and_one_that_cannot_says_why(
    host: Host, stub: Stub
) -> None:
    """A source that is not there is no reason to take another one."""
    (host.home / "prepare.py").write_text(LACKS)
    start = {"check": "1", "project": host.home, "sandbox": "none", "recheck_seconds": 600}
    host.start(**start, gpu_id="may-not")
    host.start(**start, gpu_id="cannot", prepare="nowhere")
    eventually(lambda: "prepare.py ended with exit code 1" in host.log)
    assert "error: There is no nowhere." in host.log
    eventually(lambda: host.log.count("There is no data. Run `uv run prepare.py` here") == 2)
    assert host.log.count("preparing") == 1
    assert stub.calls == []
