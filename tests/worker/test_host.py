"""The host: missing data, a full disk, locks, settings, isolation."""

import json
import os
import sys
from pathlib import Path

import anyio
import pytest

from gpu_worker import hostcheck, isolation, lock, workspace
from gpu_worker.settings import WorkerSettings, find_project
from tests.worker.conftest import BLOCK, Host, end, eventually, works
from tests.worker.stub import Stub

CHECK = "import sys; assert sys.argv[1:] == ['--check']; print('noise'); print({answer!r})"


def _project(host: Host, *problems: str) -> Path:
    """A training stack whose check reports `problems`."""
    answer = {
        "ok": not problems,
        "problems": list(problems),
        "profile": "cpu",
        "device": "cpu",
        "torch_version": "2.9.9",
    }
    project = host.home / "project"
    project.mkdir(exist_ok=True)
    (project / "pyproject.toml").touch()
    (project / "prepare.py").write_text(CHECK.format(answer=json.dumps(answer)))
    return project


def test_a_host_without_its_data_stays_out_of_the_pool_until_it_has_them(
    host: Host, stub: Stub
) -> None:
    """The worker logs what is missing, checks again, and joins when nothing is missing."""
    project = _project(host, "shard_00001.parquet is missing")
    host.start(check="1", project=project, recheck_seconds=0.2)
    eventually(lambda: "shard_00001.parquet is missing" in host.log)
    assert stub.calls == []
    _project(host)
    run = stub.submit(BLOCK)
    report = stub.report(run)
    assert report["environment"]["torch_version"] == "2.9.9"
    assert stub.gpus["test-host:cpu"]["profile"] == "cpu"


def test_a_worker_that_waits_for_its_host_can_be_ended(host: Host, stub: Stub) -> None:
    """Also while the check hangs; no process is left."""
    project = _project(host)
    (project / "prepare.py").write_text("import time; time.sleep(60)")
    worker = host.start(check="1", project=project)
    eventually(lambda: any("--check" in line for line in host.processes().values()))
    assert end(worker) == 0
    assert stub.calls == []
    eventually(lambda: host.processes() == {})


def test_a_check_that_is_ended_while_it_starts_leaves_nothing(
    host: Host, level: isolation.Level
) -> None:
    """At any of its first milliseconds: the launcher's child is killed as well."""
    (host.home / "prepare.py").write_text("import time; time.sleep(60)")
    env = os.environ | {"AUTORESEARCH_HOME": str(host.home)}
    sandbox = works(level)
    assert sandbox is not None
    launcher = [
        "sh",
        "-c",
        f'{sys.executable} "$@"; true',
        "sh",
    ]  # it stays the parent of its child

    async def ended_after(seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await hostcheck.check(launcher, host.home, env, sandbox)

    for milliseconds in range(40):
        anyio.run(ended_after, milliseconds / 4000)
        eventually(lambda: host.processes() == {}, 2)


def test_a_launcher_that_is_not_there_is_named(host: Host, stub: Stub) -> None:
    """No run is claimed for it."""
    host.start(check="1", project=_project(host), launcher="no-such-launcher --flag")
    eventually(lambda: "there is no 'no-such-launcher'" in host.log)
    assert stub.calls == []


def test_a_full_disk_keeps_runs_away_and_is_reported_to_the_pool(host: Host, stub: Stub) -> None:
    """With too little free space the worker claims nothing."""
    stub.submit(BLOCK)
    host.start(free_space_bytes=2**60)
    stub.wait_for(lambda: any(gpu.get("problem") for gpu in stub.gpus.values()))
    assert "a run needs" in next(iter(stub.gpus.values()))["problem"]
    assert stub.count("/api/job/claim") == 0


def test_a_host_that_cannot_start_supervisors_claims_no_jobs(host: Host, stub: Stub) -> None:
    """Each job would be claimed and lost; instead the problem is reported to the pool."""
    broken = host.home / "broken"
    broken.mkdir()
    (broken / "selectors.py").write_text("raise ImportError('a broken installation')")
    stub.submit(BLOCK)
    host.start(cwd=broken)
    stub.wait_for(lambda: any(gpu.get("problem") for gpu in stub.gpus.values()))
    assert "no supervisor can be started" in next(iter(stub.gpus.values()))["problem"]
    assert stub.count("/api/job/claim") == 0
    assert "a broken installation" in host.folder.supervisor_log.read_text()


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """It is free again when the holder's last descriptor is closed."""
    path = lock.lock_path(tmp_path / "locks", "host:GPU-1/..")
    assert path.parent == tmp_path / "locks"
    held = lock.take(path)
    shared = os.dup(held)
    os.close(held)
    with pytest.raises(lock.LockBusy):
        lock.take(path)
    os.close(shared)
    os.close(lock.take(path))


def test_a_lock_of_another_user_s_umask_can_be_tried_and_names_its_owner(tmp_path: Path) -> None:
    """A umask of 077 must not lock a GPU against the other users of the host."""
    path = lock.lock_path(tmp_path / "locks", "GPU-1")
    before = os.umask(0o077)
    try:
        held = lock.take(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(lock.LockBusy, match=f"of user {os.getuid()} is held"):
        lock.take(path)
    os.close(held)


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """All users write to the folder: a link there must not open a file of ours."""
    path = lock.lock_path(tmp_path, "gpu")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        lock.take(path)


def test_the_default_launcher_is_uv_in_the_project(tmp_path: Path) -> None:
    """`python` is named, so that comments in a train.py cannot choose its packages."""
    settings = WorkerSettings(project=tmp_path)
    assert settings.command == [
        "uv", "run", "--no-sync", "--project", str(tmp_path), "--", "python",
    ]  # fmt: skip
    assert WorkerSettings(launcher="nice -n 5 'my python'").command == [
        "nice", "-n", "5", "my python",
    ]  # fmt: skip


def test_settings_travel_to_another_process_as_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet's daemons get the fleet's settings, flags included."""
    settings = WorkerSettings(
        home=tmp_path, launcher="a 'b c'", token="secret", check=False, drain_timeout=3, gpu="all"
    )
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert WorkerSettings() == settings


def test_the_project_is_the_nearest_folder_with_a_training_stack(tmp_path: Path) -> None:
    """From the current folder upwards; else the checkout that contains this package."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert (find_project(inner) / "gpu_worker").is_dir()
    (tmp_path / "prepare.py").touch()
    (tmp_path / "pyproject.toml").touch()
    assert find_project(inner) == tmp_path


@pytest.mark.parametrize(
    ("variables", "level"),
    [
        ({}, "strict"),
        ({"AUTORESEARCH_SANDBOX": "none"}, "none"),
        ({"AUTORESEARCH_ISOLATION": "auto"}, "strict"),
        ({"AUTORESEARCH_ISOLATION": "bwrap"}, "pid"),
        ({"AUTORESEARCH_ISOLATION": "direct"}, "none"),
        ({"AUTORESEARCH_ISOLATION": "direct", "AUTORESEARCH_SANDBOX": "strict"}, "strict"),
    ],
)
def test_the_older_setting_names_a_level_unless_the_newer_one_does(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], level: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert WorkerSettings().level == level


def test_a_worker_whose_level_does_not_work_says_what_to_do_and_stays_out_of_the_pool(
    host: Host, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never takes a lower level by itself."""
    empty = host.home / "empty"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    worker = host.start(recheck_seconds=0.2)
    eventually(lambda: "sandbox strict does not work here" in host.log)
    assert "To repair it, install" in host.log
    assert "or set AUTORESEARCH_SANDBOX=pid or none" in host.log
    assert end(worker) == 0
    assert stub.calls == []


def test_a_run_may_cache_its_byte_code_even_if_the_worker_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's 2,600 files take ten seconds to compile."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    environment = workspace.base_environment(WorkerSettings(project=tmp_path), "")
    assert "PYTHONDONTWRITEBYTECODE" not in environment
