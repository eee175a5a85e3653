"""The doctor: each finding says what to do, and only a failure is exit code 1."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gpu_worker import devices
from gpu_worker.devices import Listed
from gpu_worker.gpu import Device, DeviceError, host_name
from gpu_worker.hostcheck import HostCheck
from gpu_worker.settings import WorkerSettings
from orchestrator import schemas
from orchestrator.cli import main
from orchestrator.cli.client import Client
from orchestrator.cli.run import doctor as checks
from orchestrator.cli.run.doctor import Finding, Subject
from orchestrator.cli.run.process import listen
from orchestrator.settings import Settings
from tests.conftest import Api


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    client = cast("Client", SimpleNamespace(alive=lambda: False, url="http://nowhere"))
    return Subject(
        Settings(home=tmp_path, port=0), WorkerSettings(home=tmp_path, cache=tmp_path), client
    )


def only(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_only_a_failure_is_exit_code_1(
    state: Any, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = Finding("thing", state, "is so", "do this")
    monkeypatch.setattr(checks, "CHECKS", [lambda _: iter([finding])])
    assert main(["doctor"]) == code
    assert "do this" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == code
    said = json.loads(capsys.readouterr().out)
    assert said == {"ok": code == 0, "checks": [vars(finding)]}


def test_a_machine_without_a_gpu_is_warned_of_and_a_broken_driver_fails(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "load_nvml", lambda: None)
    assert only(checks.gpu(subject)).state == "warn"

    def broken() -> None:
        raise DeviceError("the NVIDIA driver does not work")

    monkeypatch.setattr(devices, "load_nvml", broken)
    finding = only(checks.gpu(subject))
    assert finding.state == "fail"
    assert "nvidia-smi" in finding.todo
    monkeypatch.setattr(devices, "load_nvml", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "all")
    finding = only(checks.gpu(subject))
    assert finding.state == "fail"
    assert "unset" in finding.todo


def test_each_gpu_is_named_and_an_occupied_one_warned_of(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nvidia(_: object, index: int, mig: int | None) -> SimpleNamespace:
        device = Device(index, f"gpu-{index}", "H200", vram_mb=1024 * 140, driver_version="1.2")
        return SimpleNamespace(device=device, obstacle=lambda: "pid 7 computes" if index else None)

    monkeypatch.setattr(devices, "load_nvml", object)
    monkeypatch.setattr(devices, "usable", lambda: [Listed(0, "GPU-0"), Listed(1, "GPU-1")])
    monkeypatch.setattr(checks, "Nvidia", nvidia)
    free, busy = checks.gpu(subject)
    assert (free.state, free.text) == ("ok", "0: H200, 140 GiB, driver 1.2")
    assert busy.state == "warn"
    assert "pid 7" in busy.text


def test_a_missing_launcher_fails(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "pip install uv" in only(checks.launcher(subject)).todo


def test_missing_training_data_are_named_with_the_cure(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As prepare.py says it, with nothing else to do."""
    answer = HostCheck(ok=False, problems=["No data. Run `uv run prepare.py`.", "No tokenizer."])
    monkeypatch.setattr(checks, "check_training", lambda _: answer)
    found = list(checks.training(subject))
    assert [f.text for f in found] == answer.problems
    assert all(f.state == "fail" and not f.todo for f in found)
    fit = HostCheck(ok=True, torch_version="2.9", device="cpu", device_name="cpu", profile="cpu")
    monkeypatch.setattr(checks, "check_training", lambda _: fit)
    assert only(checks.training(subject)).state == "ok"


def test_a_folder_without_prepare_py_is_no_checkout(tmp_path: Path, subject: Subject) -> None:
    elsewhere = Subject(subject.settings, WorkerSettings(project=tmp_path), subject.client)
    assert "--project" in only(checks.training(elsewhere)).text


def test_an_environment_that_was_never_installed_is_told_and_not_created(
    tmp_path: Path, subject: Subject
) -> None:
    for name in ("prepare.py", "pyproject.toml"):
        (tmp_path / name).write_text("")
    worker = WorkerSettings(project=tmp_path)
    finding = only(checks.training(Subject(subject.settings, worker, subject.client)))
    assert "uv sync" in finding.text
    assert not (tmp_path / ".venv").exists()


def test_a_taken_port_fails(tmp_path: Path, subject: Subject) -> None:
    assert only(checks.orchestrator(subject)).state == "ok"
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        other = Subject(Settings(home=tmp_path, port=port), subject.worker, subject.client)
        assert only(checks.orchestrator(other)).state == "fail"


def test_redis_is_embedded_or_asked(tmp_path: Path, subject: Subject, redis_url: str) -> None:
    assert only(checks.redis(subject)).text.startswith("embedded: ")
    for url, state in ((redis_url, "ok"), ("redis://127.0.0.1:9", "fail")):
        settings = Settings(home=tmp_path, redis_url=url)
        assert only(checks.redis(Subject(settings, subject.worker, subject.client))).state == state


@pytest.mark.parametrize(("gib", "state"), [(0.5, "fail"), (3, "warn"), (50, "ok")])
def test_a_disk_that_fills_up_is_told_in_time(
    gib: float, state: str, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=gib * 2**30))
    assert {f.state for f in checks.disk(subject)} == {state}


def test_a_cache_that_can_only_be_read_is_fine_if_it_holds_data(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a share that is mounted read-only; what it lacks, the check of training says."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    assert [finding.state for finding in checks.disk(subject)] == ["fail", "fail"]
    (tmp_path / "data").mkdir()
    assert [finding.state for finding in checks.disk(subject)] == ["fail", "ok"]


def test_a_gpu_of_this_host_that_lacks_a_tag_s_data_is_named_with_the_cure(
    subject: Subject, api: Api
) -> None:
    data = {"profile": "cpu", "data_sha256": "d" * 64, "data_folder": "/srv/data"}
    api.gpu("first", host="old", **data)
    api.tag()
    api.submit("x = 1\n")
    api.finish(api.claim("first"), 0.99)
    api.submit("x = 2\n")
    for gpu_id, host in (("here", host_name()), ("elsewhere", "new")):
        other = {"data_sha256": "e" * 64, "data_folder": "/mnt/data"}
        api.gpu(gpu_id, 1, host=host, **(data | other))
    answers = schemas.PoolAnswer.model_validate(api.get("/api/pool/list"))
    client = SimpleNamespace(alive=lambda: True, url="http://there", pool=lambda: answers)
    _, found = checks.orchestrator(replace(subject, client=cast("Client", client)))
    assert found.state == "warn"
    assert found.text.startswith("GPU here takes no runs: its data are eeeeeeeeeeee, and tag mar11")
    assert f"on its host, {host_name()}, run `rsync -a --delete old:/srv/data/" in found.text
