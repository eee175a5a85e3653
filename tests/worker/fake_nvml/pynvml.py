"""A fake of NVML's binding: its GPUs are in the JSON file that FAKE_NVML names.

The file is read at every call, so a test may change a GPU under a running worker:
{"gpus": 1, "used_mb": 500, "pids": [], "xids": [], "error": null}. `error` is raised by every call
about a device.
"""
# ruff: noqa: N802  (NVML's own names)

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
nvmlEventTypeXidCriticalError = 8  # noqa: N816


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


def _state() -> dict[str, Any]:
    defaults = {"gpus": 1, "used_mb": 500, "pids": [], "xids": [], "error": None, "init": None}
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


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    if index >= _state()["gpus"]:
        raise NVMLError(6)
    return index


def nvmlDeviceGetUUID(handle: int) -> str:
    return f"GPU-{handle}abc"


def nvmlDeviceGetName(handle: int) -> str:
    return "Fake H200"


def nvmlSystemGetDriverVersion() -> str:
    return "570.1"


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:
    used = _device()["used_mb"]
    return SimpleNamespace(total=141_000 * 1024**2, used=used * 1024**2)


def nvmlDeviceGetUtilizationRates(handle: int) -> SimpleNamespace:
    _device()
    return SimpleNamespace(gpu=97)


def nvmlDeviceGetTemperature(handle: int, sensor: int) -> int:
    raise NVMLError(NVML_ERROR_NOT_SUPPORTED)


def nvmlDeviceGetComputeRunningProcesses(handle: int) -> list[SimpleNamespace]:
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
