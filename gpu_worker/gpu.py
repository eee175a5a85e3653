"""The device that a worker serves: what it is, how it is, and whether it is free.

A GPU is asked through NVML; a host without an NVIDIA driver is served as a CPU worker, named as
such. Nothing here changes a device, resets one or touches a process. MIG slices are not supported.
"""

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.schemas import Health

MIB = 1024 * 1024

# Memory that is in use beyond what was in use before the first run, and still counts as free.
_VRAM_TOLERANCE_MB = 512.0

# Faults of the hardware, for which NVIDIA's catalogue asks to reset, restart or replace. Not those
# that a wrong program causes (13, 31, 43, 45 and the like): they are the run's own.
_FATAL_XIDS = frozenset({48, 62, 64, 74, 79, 95, 110, 119, 120, 140})


class DeviceError(Exception):
    """The device asked for cannot be served; the message says why."""


@dataclass(frozen=True)
class Device:
    """What does not change while the host is up. `label` is the plain name that people see."""

    index: int
    label: str
    model: str
    uuid: str | None = None
    vram_mb: float = 0.0
    driver_version: str | None = None


class Gpu(Protocol):
    """What a daemon asks. Calls may take milliseconds, or hang with the driver."""

    @property
    def device(self) -> Device: ...

    @property
    def failure(self) -> str | None:
        """Why the hardware cannot be trusted any more; once there, it stays."""

    def health(self) -> Health: ...

    def obstacle(self) -> str | None:
        """Why no run may begin now: others compute on it, or memory is still in use."""


# ---------------------------------------------------------------------------- CPU


class Cpu:
    """The host's processors. They are shared with whoever else works here, so never occupied."""

    failure = None

    def __init__(self) -> None:
        self.device = Device(index=0, label="cpu", model=f"CPU ({_processor_name()})"[:200])

    def health(self) -> Health:
        memory = _memory_mb()
        total, available = memory.get("MemTotal"), memory.get("MemAvailable")
        used = total - available if total is not None and available is not None else None
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        return Health(
            memory_used_mb=used,
            memory_total_mb=total,
            utilization_percent=round(min(100.0, 100 * load), 1),
        )

    def obstacle(self) -> str | None:
        return None


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(errors="replace") if cpuinfo.exists() else ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def _memory_mb() -> dict[str, float]:
    meminfo = Path("/proc/meminfo")
    text = meminfo.read_text() if meminfo.exists() else ""
    return {m[1]: int(m[2]) / 1024 for m in re.finditer(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


# ---------------------------------------------------------------------------- NVIDIA


class Nvidia:
    """One GPU by its NVML index."""

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml = nvml
        self.failure: str | None = None
        self._baseline_mb: float | None = None
        try:
            self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = nvml.nvmlDeviceGetUUID(self._handle)
            name = nvml.nvmlDeviceGetName(self._handle)
        except nvml.NVMLError as error:
            raise DeviceError(f"GPU {index} cannot be used: {error}") from error
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo)
        self.device = Device(
            index=index,
            label=f"gpu-{index}",
            model=name,
            uuid=uuid,
            vram_mb=memory.total / MIB if memory else 0.0,
            driver_version=self._ask_system(nvml.nvmlSystemGetDriverVersion),
        )
        self._xids = self._watch_xids()

    def health(self) -> Health:
        nvml = self._nvml
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo)
        utilization = self._ask(nvml.nvmlDeviceGetUtilizationRates)
        temperature = self._ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)
        self._read_xids()
        return Health(
            temperature_c=temperature,
            memory_used_mb=memory.used / MIB if memory else None,
            memory_total_mb=memory.total / MIB if memory else None,
            utilization_percent=utilization.gpu if utilization else None,
        )

    def obstacle(self) -> str | None:
        processes = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses)
        if processes:
            pids = ", ".join(str(process.pid) for process in processes[:5])
            return f"other processes compute on this GPU (pid {pids})"
        memory = self._ask(self._nvml.nvmlDeviceGetMemoryInfo)
        if memory is None:
            return None
        used = memory.used / MIB
        if self._baseline_mb is None:
            self._baseline_mb = used
        if used > self._baseline_mb + _VRAM_TOLERANCE_MB:
            return (
                f"{used:.0f} MiB of GPU memory in use, {self._baseline_mb:.0f} before the first run"
            )
        return None

    def _ask(self, function: Callable[..., Any], *arguments: object) -> Any:
        return self._ask_system(function, self._handle, *arguments)

    def _ask_system(self, function: Callable[..., Any], *arguments: object) -> Any:
        """The answer, or None where this device has none. A failing device is remembered."""
        nvml = self._nvml
        try:
            return function(*arguments)
        except nvml.NVMLError as error:
            harmless = (
                nvml.NVML_ERROR_NOT_SUPPORTED,
                nvml.NVML_ERROR_NO_PERMISSION,
                nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
                nvml.NVML_ERROR_INSUFFICIENT_SIZE,  # a process came between two calls
                nvml.NVML_ERROR_TIMEOUT,
            )
            if error.value not in harmless and self.failure is None:
                self.failure = f"NVML: {error}"
            return None

    def _watch_xids(self) -> Any:
        """An event set that collects Xid errors from now on; None where they cannot be had."""
        nvml = self._nvml
        events = self._ask_system(nvml.nvmlEventSetCreate)
        if events is not None:
            self._ask(nvml.nvmlDeviceRegisterEvents, nvml.nvmlEventTypeXidCriticalError, events)
        return events

    def _read_xids(self) -> None:
        if self._xids is None:
            return
        while (
            event := self._ask_system(self._nvml.nvmlEventSetWait_v2, self._xids, 0)
        ) is not None:
            if event.eventData in _FATAL_XIDS and self.failure is None:
                self.failure = f"Xid {event.eventData}"


# ---------------------------------------------------------------------------- which one


def load_nvml() -> Any | None:
    """The NVML binding, initialised; None on a host without an NVIDIA driver.

    Raises DeviceError where there is a driver that does not work: that host is not a CPU host.
    """
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value in (
            pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
            pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        ):
            return None
        raise DeviceError(f"the NVIDIA driver does not work: {error}") from error
    return pynvml


def usable_indices(nvml: Any) -> list[int]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES says it (all when unset)."""
    everything = list(range(nvml.nvmlDeviceGetCount()))
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return everything
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in everything]
    uuids = [nvml.nvmlDeviceGetUUID(handle) for handle in handles]
    return [
        index
        for index in everything
        if any(name == str(index) or uuids[index].startswith(name) for name in names)
    ]


def open_gpu(wanted: str) -> Gpu:
    """The device for a setting `gpu`: "cpu", "auto" or an NVML index."""
    if wanted == "cpu":
        return Cpu()
    nvml = load_nvml()
    if wanted == "auto":
        indices = usable_indices(nvml) if nvml else []
        return Nvidia(nvml, indices[0]) if indices else Cpu()
    if nvml is None:
        raise DeviceError(f"GPU {wanted} was asked for, but this host has no NVIDIA driver")
    return Nvidia(nvml, int(wanted))


def host_name() -> str:
    """This host's name in the characters that a GPU's id may have."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", platform.node()).lstrip("._-")
    return name[:64] or "host"


def identity(device: Device) -> str:
    """Host + GPU: two hosts may both have a GPU 0, and a card keeps its UUID."""
    return f"{host_name()}:{device.uuid or device.label}"


def boot_id() -> str | None:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else None
