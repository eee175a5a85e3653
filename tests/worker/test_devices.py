"""Which devices a worker may use: CUDA's rules for CUDA_VISIBLE_DEVICES, MIG devices included."""

import contextlib
import importlib.util
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gpu_worker import devices
from gpu_worker.devices import Listed, NotVisible, visible
from gpu_worker.gpu import Cpu, Nvidia
from gpu_worker.settings import WorkerSettings
from orchestrator.cli.errors import ConfigError
from orchestrator.cli.run.system import plan_workers
from tests.worker.conftest import BLOCK, Host, eventually
from tests.worker.stub import Stub

FAKE = Path(__file__).parent / "fake_nvml"
GPUS = [Listed(index, f"GPU-{uuid}") for index, uuid in enumerate(["8932f937", "89aa", "d12f"])]

Change = Callable[..., None]


# What libcuda of driver 580 showed on a host with one GPU, an H200. U is its UUID, S the beginning
# of that. Where it showed no GPU, None means that nobody asked for that.
@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("0", 1), ("00", 1), ("+0", 1), ("-0", 1), (" 0", 1), ("\t0", 1), ("0 ", 1), ("0x0", 1),
        ("0gpu", 1), ("0.5", 1), ("0;0", 1), ("0,", 1), ("0,-1", 1), ("0,7", 1), ("0,all", 1),
        ("0,7,0", 1), ("0,-1,0", 1), ("0,{U}", 1), ("0,MIG-xyz", 1), ("{U}", 1), ("{S}", 1),
        ("{U},0", 1), ("{U},1", 1), ("{U},-1,{U}", 1), ("{U} ,", 1), ("{U},GPU-xyz", 1),
        ("", 0), ("-1", 0), ("-1,0", 0),
        ("0,0", None), ("0,00", None), ("0,0,7", None), ("{U},{U}", None), ("{U},{S}", None),
        ("{S},{U}", None), ("7", None), ("7,0", None), (",0", None), ("all", None),
        ("all,0", None), ("none", None), ("void", None), ("GPU-", None), ("GPU", None),
        ("GPU-xyz", None), ("GPU-xyz,{U}", None), (" {U}", None), ("a0", None), ("--1", None),
        ("[0]", None), ("MIG-xyz", None), ("MIG-{U}", None),
    ],
)  # fmt: skip
def test_a_list_is_read_as_the_driver_reads_it(value: str, count: int | None) -> None:
    """No GPU is asked for by an empty value or -1; where CUDA shows none otherwise, it is said."""
    uuid = "GPU-6c5b2540-488f-36e3-4191-aee34876b08c"
    value = value.format(U=uuid, S=uuid[:12])
    if count is None:
        with pytest.raises(NotVisible, match=r"CUDA_VISIBLE_DEVICES.*GPU-6c5b2540"):
            visible(value, [Listed(0, uuid)])
    else:
        assert len(visible(value, [Listed(0, uuid)])) == count


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        (None, [0, 1, 2]), ("2,0", [2, 0]), ("0,-1,2", [0]), ("1,9,0", [1]),
        ("GPU-d,GPU-893", [2, 0]), ("GPU-89AA", [1]), ("GPU-d,GPU-8,GPU-893", [2]),
    ],
)  # fmt: skip
def test_the_order_is_the_list_s_and_it_ends_at_the_first_invalid_entry(
    value: str | None, indices: list[int]
) -> None:
    """Two GPUs begin with GPU-8, so that entry is invalid too."""
    assert [each.index for each in visible(value, GPUS)] == indices


def cuda(value: str) -> list[str]:
    """CUDA's rule once more, for the GPUs of this file and entries of these tests."""
    names = value.split(",")
    by_uuid = value.startswith("GPU-")
    shown: list[str] = []
    for name in names:
        matches = [g.uuid for g in GPUS if g.uuid and g.uuid.startswith(name) and name != "GPU-"]
        if not by_uuid:
            matches = [g.uuid for g in GPUS if g.uuid and str(g.index) == name.strip()]
        shown += matches if len(matches) == 1 else ["end"]
    shown = list(itertools.takewhile(lambda uuid: uuid != "end", shown))
    return shown if len(shown) == len(set(shown)) else []


ENTRIES = (
    "0",
    "1",
    " 2",
    "3",
    "-1",
    "",
    "x",
    "all",
    "GPU-",
    "GPU-8",
    "GPU-89",
    "GPU-893",
    "GPU-d12f",
)


@given(st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=6).map(",".join))
def test_any_list_shows_what_cuda_shows(value: str) -> None:
    """Compared with a second reading of the rule; no GPU at all is an error unless asked for."""
    shown: list[str | None] = []
    with contextlib.suppress(NotVisible):
        shown = [each.uuid for each in visible(value, GPUS)]
        assert shown or value == "" or value.startswith("-1")
    assert shown == cuda(value)


@given(st.text(max_size=20) | st.lists(st.text(max_size=5)).map(",".join))
def test_any_text_is_a_list_of_devices_or_an_error_that_names_it(value: str) -> None:
    """Nothing else is raised, and no device twice."""
    shown: list[Listed] = []
    try:
        shown = visible(value, GPUS)
    except NotVisible as error:
        text = str(error)
    else:
        text = f"{value}, 0 (GPU-8932f937), 1 (GPU-89aa), 2 (GPU-d12f)"
    assert value in text
    assert "0 (GPU-8932f937), 1 (GPU-89aa), 2 (GPU-d12f)" in text
    assert len(set(shown)) == len(shown)


# -- with NVML


@pytest.fixture
def change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Change:
    """Changes the fake GPUs of this process."""
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "nvml.json"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    spec = importlib.util.spec_from_file_location("fake_pynvml", FAKE / "pynvml.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(devices, "load_nvml", lambda: module)

    def write(**state: Any) -> None:
        (tmp_path / "nvml.json").write_text(json.dumps(state))

    write(gpus=4)
    return write


@pytest.mark.parametrize("wanted", ["auto", "0"])
@pytest.mark.parametrize("value", ["7", "all", "MIG-0abc", "GPU-9", "0,0"])
def test_a_list_that_names_no_gpu_never_becomes_the_cpu(
    change: Change, monkeypatch: pytest.MonkeyPatch, value: str, wanted: str
) -> None:
    """The error names the variable, its value and the host's GPUs; `up` says the same."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    with pytest.raises(NotVisible, match=rf"CUDA_VISIBLE_DEVICES is '{value}'.*3 \(GPU-3abc\)"):
        devices.open_gpu(wanted)
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES"):
        plan_workers(WorkerSettings(gpu=wanted))
    assert isinstance(devices.open_gpu("cpu"), Cpu)


def test_a_host_without_a_driver_serves_no_gpu_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither by the variable nor by the flag; without either it serves the CPU."""
    monkeypatch.setattr(devices, "load_nvml", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(NotVisible, match=r"'0', which names no GPU of this host.* no driver"):
        devices.open_gpu("auto")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(NotVisible, match="--gpu 0 names none"):
        devices.open_gpu("0")
    for value in (None, "", "-1"):
        if value is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert isinstance(devices.open_gpu("auto"), Cpu)


def test_an_index_is_nvidia_smi_s_and_must_be_visible(
    change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 3,2 there is no GPU 0 to take, and `auto` takes the first of the list."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,2")
    with pytest.raises(NotVisible, match=r"--gpu 0 names none .* is '3,2', .* 0 \(GPU-0abc\)"):
        devices.open_gpu("0")
    assert devices.open_gpu("2").device.uuid == "GPU-2abc"
    assert devices.open_gpu("GPU-2").device.uuid == "GPU-2abc"
    assert devices.open_gpu("auto").device.uuid == "GPU-3abc"
    assert plan_workers(WorkerSettings()).gpus == {"worker-gpu-3": "3", "worker-gpu-2": "2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(NotVisible, match="--gpu 2"):
        devices.open_gpu("2")


def test_a_gpu_that_is_lost_does_not_hide_the_others(change: Change) -> None:
    """Its own worker says what is wrong with it."""
    change(gpus=3, lost=[1])
    assert [each.flag for each in devices.usable()] == ["0", "1", "2"]
    assert devices.open_gpu("2").device.uuid == "GPU-2abc"


def test_each_mig_device_is_a_device_of_its_own(
    change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own memory and name, and the temperature of its card."""
    change(gpus=2, mig={"1": 2})
    assert [str(each) for each in devices.usable()] == [
        "0 (GPU-0abc)", "1 MIG 1 (MIG-11abc)", "1 MIG 2 (MIG-12abc)",
    ]  # fmt: skip
    assert plan_workers(WorkerSettings()).gpus == {
        "worker-gpu-0": "0", "worker-gpu-1-mig-1": "MIG-11abc", "worker-gpu-1-mig-2": "MIG-12abc",
    }  # fmt: skip
    assert devices.open_gpu(WorkerSettings(gpu="MIG-12abc").gpu).device.label == "gpu-1-mig-2"
    with pytest.raises(NotVisible, match="--gpu 1 names 2 of the devices"):
        devices.open_gpu("1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-12")
    gpu = devices.open_gpu("auto")
    assert isinstance(gpu, Nvidia)
    assert (gpu.device.uuid, gpu.device.model) == ("MIG-12abc", "Fake H200 MIG 1g.18gb")
    assert gpu.device.vram_mb == 18_000
    assert gpu.health().memory_total_mb == 18_000
    assert gpu.health().utilization_percent is None
    assert gpu.failure is None
    change(gpus=2, mig={"1": 2}, pids=[4711])
    assert "pid 4711" in (gpu.obstacle() or "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")  # the first MIG device, as in CUDA
    assert [each.uuid for each in devices.usable()] == ["MIG-11abc", "GPU-0abc"]


def test_a_run_sees_exactly_the_mig_device_of_its_worker(
    change: Change, host: Host, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet has a daemon for each MIG device of the list; each holds a lock of its own."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-13,MIG-11")
    change(gpus=2, mig={"1": 3})
    runs = [
        stub.submit("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])" + BLOCK)
        for _ in range(2)
    ]
    host.start(gpu="all", gpu_id="")
    for run in runs:
        stub.report(run)
        assert stub.output(run).split()[0] == stub.leases[run].rpartition(":")[2]
    eventually(lambda: len({*host.home.glob("locks/MIG-*.lock")}) == 2)
