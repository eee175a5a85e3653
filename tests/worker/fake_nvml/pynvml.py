"""A fake of NVML's binding: its GPUs are in the JSON file that FAKE_NVML names.

The file is read at every call, so a test may change a GPU under a running worker:
{"gpus": 1, "used_mb": 500, "pids": [], "xids": [], "error": null, "mig": {}, "lost": []}. `error`
is raised by every call about a device. `mig` has the number of MIG devices of each GPU in MIG mode,
by its index as text; their handles are pairs. `lost` are GPUs that have no handle any more.
"""
# ruff: noqa: N802  (NVML's own names)

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NVML_ERROR_INVALID_ARGUMENT = 2
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NO_PERMISSION = 4
NVML_ERROR_INSUFFICIENT_SIZE = 7
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_TIMEOUT = 10
NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_FUNCTION_NOT_FOUND = 13
NVML_ERROR_GPU_IS_LOST = 15
NVML_ERROR_UNKNOWN = 999
NVML_TEMPERATURE_GPU = 0
NVML_DEVICE_MIG_DISABLE, NVML_DEVICE_MIG_ENABLE = 0, 1
_MIG_SLOTS = 7
nvmlEventTypeXidCriticalError = 8  # noqa: N816


Handle = int | tuple[int, int]


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


def _state() -> dict[str, Any]:
    defaults = {"gpus": 1, "used_mb": 500, "pids": [], "xids": [], "error": None, "init": None}
    defaults |= {"mig": {}, "lost": []}
    return defaults | json.loads(Path(os.environ["FAKE_NVML"]).read_text())


def _device() -> dict[str, Any]:
    state = _state()
    if state["error"] is not None:
        raise NVMLError(state["error"])
    return state


def nvmlInit() -> None:
    if (error := _state()["init"]) is not None:
        raise NVMLError(error)


def nvmlDeviceGetCount() -> int:
    return int(_state()["gpus"])


def nvmlDeviceGetMinorNumber(handle: int) -> int:
    _device()
    return handle


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    if index >= _state()["gpus"]:
        raise NVMLError(6)
    if index in _state()["lost"]:
        raise NVMLError(NVML_ERROR_GPU_IS_LOST)
    return index


def nvmlDeviceGetMigMode(handle: int) -> list[int]:
    if not _state()["mig"]:
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return [int(str(handle) in _state()["mig"]), 0]


def nvmlDeviceGetMaxMigDeviceCount(handle: int) -> int:
    return _MIG_SLOTS


def nvmlDeviceGetMigDeviceHandleByIndex(handle: int, number: int) -> tuple[int, int]:
    """The first slot is empty, as after a MIG device was deleted."""
    if not 0 < number <= _state()["mig"][str(handle)]:
        raise NVMLError(6)
    return handle, number


def nvmlDeviceGetUUID(handle: Handle) -> str:
    return f"GPU-{handle}abc" if isinstance(handle, int) else "MIG-{}{}abc".format(*handle)


def nvmlDeviceGetName(handle: Handle) -> str:
    return "Fake H200" if isinstance(handle, int) else "Fake H200 MIG 1g.18gb"


def nvmlSystemGetDriverVersion() -> str:
    return "570.1"


def nvmlDeviceGetMemoryInfo(handle: Handle) -> SimpleNamespace:
    used, total = _device()["used_mb"], 141_000 if isinstance(handle, int) else 18_000
    return SimpleNamespace(total=total * 1024**2, used=used * 1024**2)


def nvmlDeviceGetUtilizationRates(handle: Handle) -> SimpleNamespace:
    _device()
    if not isinstance(handle, int):
        raise NVMLError(NVML_ERROR_INVALID_ARGUMENT)
    return SimpleNamespace(gpu=97)


def nvmlDeviceGetTemperature(handle: int, sensor: int) -> int:
    raise NVMLError(NVML_ERROR_NOT_SUPPORTED)


def nvmlDeviceGetComputeRunningProcesses(handle: Handle) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=pid) for pid in _device()["pids"]]


def nvmlEventSetCreate() -> list[int]:
    return []


def nvmlDeviceRegisterEvents(handle: int, kinds: int, events: list[int]) -> None:
    _device()


def nvmlEventSetWait_v2(events: list[int], timeout: int) -> SimpleNamespace:
    """Each Xid in the file comes once; `events` counts those that came."""
    xids = _state()["xids"]
    if len(events) >= len(xids):
        raise NVMLError(NVML_ERROR_TIMEOUT)
    events.append(xids[len(events)])
    return SimpleNamespace(eventData=events[-1])
