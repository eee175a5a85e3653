"""Which workers a machine gets: one a GPU, one for the CPU, an error where it is odd."""

from types import SimpleNamespace

import pytest

from gpu_worker import devices
from gpu_worker.devices import Listed
from gpu_worker.gpu import Device, DeviceError
from gpu_worker.settings import WorkerSettings
from orchestrator.cli.errors import ConfigError
from orchestrator.cli.run.system import plan_workers


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices of the GPUs that this process may use; change it to have others."""
    usable = [0, 3]

    def open_gpu(wanted: str) -> SimpleNamespace:
        index = 0 if wanted == "cpu" else int(wanted)
        if wanted != "cpu" and index not in usable:
            raise DeviceError(f"GPU {index} cannot be used")
        label = "cpu" if wanted == "cpu" else f"gpu-{index}"
        return SimpleNamespace(device=Device(index, label, "A Model"))

    monkeypatch.setattr(devices, "usable", lambda: [Listed(i, f"GPU-{i}") for i in usable])
    monkeypatch.setattr(devices, "open_gpu", open_gpu)
    return usable


@pytest.mark.parametrize("wanted", ["auto", "all"])
def test_each_gpu_gets_a_worker(wanted: str, gpus: list[int]) -> None:
    workers = plan_workers(WorkerSettings(gpu=wanted))
    assert workers.gpus == {"worker-gpu-0": "0", "worker-gpu-3": "3"}
    assert workers.described["worker-gpu-3"] == "gpu-3: A Model"
    assert not workers.on_cpu


def test_one_gpu_can_be_chosen(gpus: list[int]) -> None:
    assert plan_workers(WorkerSettings(gpu="3")).gpus == {"worker-gpu-3": "3"}


def test_without_a_gpu_the_cpu_works(gpus: list[int]) -> None:
    gpus.clear()
    workers = plan_workers(WorkerSettings())
    assert workers.gpus == {"worker-cpu": "cpu"}
    assert workers.on_cpu
    with pytest.raises(ConfigError, match="--cpu"):
        plan_workers(WorkerSettings(gpu="all"))


def test_a_gpu_that_cannot_be_used_is_named(gpus: list[int]) -> None:
    with pytest.raises(ConfigError, match="GPU 7 cannot be used"):
        plan_workers(WorkerSettings(gpu="7"))


def test_one_name_cannot_be_given_to_several_workers(gpus: list[int]) -> None:
    with pytest.raises(ConfigError, match="--gpu-id"):
        plan_workers(WorkerSettings(gpu_id="mine"))
    assert plan_workers(WorkerSettings(gpu_id="mine", gpu="3")).gpus


def test_workers_are_told_their_settings_but_not_which_gpu_or_orchestrator(
    gpus: list[int],
) -> None:
    settings = WorkerSettings(
        gpu="3", orchestrator="http://elsewhere", launcher="python3 -u", drain_timeout=4
    )
    workers = plan_workers(settings)
    assert workers.environment == {
        "AUTORESEARCH_LAUNCHER": "python3 -u",
        "AUTORESEARCH_DRAIN_TIMEOUT": "4.0",
    }
    assert workers.drain_seconds == 4
