"""The GPU through a fake NVML: what it is, when it is free, when it has failed."""

import importlib.util
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gpu_worker import gpu
from gpu_worker.gpu import Cpu, DeviceError, Nvidia
from tests.worker.conftest import BLOCK, GPU_ID, SLEEP, WAIT, Host, end, eventually
from tests.worker.stub import Stub

FAKE = Path(__file__).parent / "fake_nvml"

Change = Callable[..., None]


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "nvml.json"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvml.json").write_text("{}")
    spec = importlib.util.spec_from_file_location("fake_pynvml", FAKE / "pynvml.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def change(tmp_path: Path) -> Change:
    """Changes the state of the fake GPUs."""

    def write(**state: Any) -> None:
        new = tmp_path / "nvml.new"
        new.write_text(json.dumps(state))
        new.replace(tmp_path / "nvml.json")

    return write


def test_a_gpu_is_described_by_what_does_not_change(nvml: ModuleType) -> None:
    """Its UUID makes its identity, its index only its label."""
    device = Nvidia(nvml, 0).device
    assert (device.label, device.model, device.uuid) == ("gpu-0", "Fake H200", "GPU-0abc")
    assert (device.vram_mb, device.driver_version) == (141_000, "570.1")
    assert gpu.identity(device) == f"{gpu.host_name()}:GPU-0abc"


def test_health_leaves_out_what_a_card_does_not_report(nvml: ModuleType, change: Change) -> None:
    """A reading that is not supported is no failure."""
    card = Nvidia(nvml, 0)
    change(used_mb=700)
    health = card.health()
    assert (health.memory_used_mb, health.utilization_percent) == (700, 97)
    assert health.temperature_c is None
    assert card.failure is None


def test_other_processes_on_the_gpu_are_an_obstacle(nvml: ModuleType, change: Change) -> None:
    """They would share its time and memory with the run."""
    card = Nvidia(nvml, 0)
    assert card.obstacle() is None
    change(pids=[4711])
    assert "pid 4711" in (card.obstacle() or "")
    change()
    assert card.obstacle() is None


def test_memory_that_does_not_come_back_is_an_obstacle(nvml: ModuleType, change: Change) -> None:
    """Measured against what was in use before the first run."""
    card = Nvidia(nvml, 0)
    assert card.obstacle() is None
    change(used_mb=900)
    assert card.obstacle() is None
    change(used_mb=5000)
    assert "5000 MiB of GPU memory in use" in (card.obstacle() or "")


@pytest.mark.parametrize(("xid", "fatal"), [(13, False), (31, False), (43, False), (79, True)])
def test_only_xids_of_the_hardware_mark_a_gpu_as_failed(
    nvml: ModuleType, change: Change, xid: int, fatal: bool
) -> None:
    """A train.py with a wrong index causes Xids too."""
    card = Nvidia(nvml, 0)
    change(xids=[xid])
    card.health()
    assert (card.failure is not None) == fatal


def test_a_lost_gpu_stays_lost(nvml: ModuleType, change: Change) -> None:
    """Even if NVML answers again later: a person has to check it."""
    card = Nvidia(nvml, 0)
    change(error=nvml.NVML_ERROR_GPU_IS_LOST)
    card.health()
    change()
    card.health()
    assert card.failure == "NVML: NVML error 15"


def test_an_index_that_is_not_there_is_an_error(nvml: ModuleType) -> None:
    """The worker does not use the CPU instead."""
    with pytest.raises(DeviceError, match="GPU 7"):
        Nvidia(nvml, 7)


def test_the_cpu_names_itself_as_such() -> None:
    """So that its figures are not taken for a GPU's."""
    cpu = Cpu()
    assert cpu.device.model.startswith("CPU")
    assert (cpu.device.label, cpu.device.vram_mb) == ("cpu", 0)
    assert (cpu.health().memory_total_mb or 0) > 0
    assert cpu.obstacle() is None


# -- a whole worker on a fake GPU


@pytest.fixture
def gpu_host(host: Host, nvml: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    return host


def test_a_gpu_worker_shows_its_run_the_one_card_and_waits_until_it_is_free(
    gpu_host: Host, stub: Stub, change: Change
) -> None:
    """While other processes compute on it nothing is claimed, and the pool list says why."""
    change(pids=[4711])
    run = stub.submit("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])" + BLOCK)
    gpu_host.start(gpu="0")
    stub.wait_for(lambda: (stub.gpus.get(GPU_ID) or {}).get("problem"))
    assert "pid 4711" in stub.gpus[GPU_ID]["problem"]
    assert run not in stub.leases
    change()
    report = stub.report(run)
    assert stub.output(run).startswith("GPU-0abc\n")
    assert report["environment"]["gpu_uuid"] == "GPU-0abc"
    registration = next(body for path, body in stub.calls if path == "/api/pool/register")
    assert registration["gpu_uuid"] == "GPU-0abc"
    assert registration["name"] == "gpu-0"


def test_a_gpu_that_fails_in_a_run_is_quarantined_and_the_run_given_back(
    gpu_host: Host, stub: Stub, change: Change
) -> None:
    """The run is no crash, and that card gets no other run."""
    run = stub.submit(SLEEP)
    worker = gpu_host.start(gpu="0")
    stub.wait_for(lambda: run in stub.logs)
    change(error=15)
    report = stub.report(run)
    assert report["outcome"] == "lost"
    assert "the GPU failed: NVML" in report["error"]
    stub.wait_for(lambda: stub.gpus[GPU_ID]["quarantined"])
    change()
    stub.submit(BLOCK)
    eventually(lambda: stub.count("/api/pool/heartbeat") > 5)
    assert len(stub.jobs) == 1
    assert end(worker) == 0


def test_a_fleet_has_a_daemon_for_each_gpu(gpu_host: Host, stub: Stub, change: Change) -> None:
    """Each registers under its own UUID, and they train at the same time."""
    change(gpus=2)
    runs = [stub.submit(WAIT + BLOCK) for _ in range(2)]
    fleet = gpu_host.start(gpu="all", gpu_id="")
    stub.wait_for(lambda: all(run in stub.logs for run in runs), 30)
    gpu_host.release(*runs)
    for run in runs:
        stub.report(run)
    assert {name.rpartition(":")[2] for name in stub.leases.values()} == {"GPU-0abc", "GPU-1abc"}
    assert end(fleet) == 0
    assert len(stub.deregistered) == 2


def test_a_daemon_of_a_fleet_that_dies_is_started_again(gpu_host: Host, stub: Stub) -> None:
    """It adopts its run; at the end all daemons leave together."""
    run = stub.submit(WAIT + BLOCK)
    fleet = gpu_host.start(gpu="all")
    stub.wait_for(lambda: run in stub.logs)
    daemons = [p for p, line in gpu_host.processes().items() if "--leave-with-parent" in line]
    assert len(daemons) == 1
    os.kill(daemons[0], signal.SIGKILL)
    eventually(lambda: f"{run}: adopted" in gpu_host.log, 30)
    gpu_host.release(run)
    assert stub.report(run)["outcome"] == "completed"
    assert end(fleet, signal.SIGINT) == 0
    assert len(stub.deregistered) == 1
    assert gpu_host.processes() == {}


def test_daemons_of_a_fleet_that_is_killed_leave_too(gpu_host: Host, stub: Stub) -> None:
    """They drain as on SIGTERM, so the next fleet finds its GPUs free."""
    fleet = gpu_host.start(gpu="all")
    stub.wait_for(lambda: stub.count("/api/job/claim"))
    end(fleet, signal.SIGKILL)
    stub.wait_for(lambda: stub.deregistered)
    eventually(lambda: gpu_host.processes() == {})


def test_a_fleet_without_a_gpu_says_so(gpu_host: Host, change: Change) -> None:
    """It does not become a CPU worker instead."""
    change(gpus=0)
    assert gpu_host.start(gpu="all").wait() == 2
    assert "there is no NVIDIA GPU to use" in gpu_host.log
