"""The device that a worker serves: what it is, its health, and whether it is free.

A GPU, or a MIG device on one, is read through NVML; a host without an NVIDIA driver is served as a
CPU worker and named as such. Nothing here changes or resets a device, or touches a process.
devices.py chooses the device.

`Cpu` and `Nvidia` have the same interface. Their calls may hang with the driver. `failure` says why
the hardware cannot be trusted any more; once set, it stays. `obstacle()` says why no run may begin
now: other processes compute on it, or memory is in use.
"""

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.schemas import Health

MIB = 1024 * 1024

# Memory in use beyond that before the first run which still counts as free.
_VRAM_TOLERANCE_MB = 512.0

# Faults of the hardware, for which NVIDIA's catalogue says to reset, restart or replace. A wrong
# program causes others (13, 31, 43, 45 and the like), which are the run's own.
_FATAL_XIDS = frozenset({48, 62, 64, 74, 79, 95, 110, 119, 120, 140})


class DeviceError(Exception):
    """The requested device cannot be served; the message says why."""


@dataclass(frozen=True)
class Device:
    """What does not change while the host is up. `label` is the short name that people see."""

    index: int
    label: str
    model: str
    uuid: str | None = None
    vram_mb: float = 0.0
    driver_version: str | None = None
    minor: int | None = None  # the N of the card's /dev/nvidiaN


class Cpu:
    """The host's processors. Other programs share them, so they are never occupied."""

    failure = None

    def __init__(self) -> None:
        cpuinfo = Path("/proc/cpuinfo").read_text(errors="replace")
        match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
        name = match[1].strip() if match else platform.machine()
        self.device = Device(index=0, label="cpu", model=f"CPU ({name})"[:200])

    def health(self) -> Health:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        return Health(
            memory_used_mb=(kib["MemTotal"] - kib["MemAvailable"]) / 1024,
            memory_total_mb=kib["MemTotal"] / 1024,
            utilization_percent=round(min(100.0, 100 * load), 1),
        )

    def obstacle(self) -> str | None:
        return None


class Nvidia:
    """One GPU by its NVML index, or the MIG device number `mig` on it.

    Temperature and Xids are those of the whole card, because a MIG device reports none.
    """

    def __init__(self, nvml: Any, index: int, mig: int | None = None) -> None:
        self._nvml = nvml
        self._is_mig = mig is not None
        self.failure: str | None = None
        self._baseline_mb: float | None = None
        try:
            self._card = self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
            if mig is not None:
                self._handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(self._card, mig)
            uuid = nvml.nvmlDeviceGetUUID(self._handle)
            name = nvml.nvmlDeviceGetName(self._handle)
        except nvml.NVMLError as error:
            raise DeviceError(f"GPU {index} cannot be used: {error}") from error
        memory = self._query_device(nvml.nvmlDeviceGetMemoryInfo)
        self.device = Device(
            index=index,
            label=f"gpu-{index}" if mig is None else f"gpu-{index}-mig-{mig}",
            model=name,
            uuid=uuid,
            vram_mb=memory.total / MIB if memory else 0.0,
            driver_version=self._query(nvml.nvmlSystemGetDriverVersion),
            minor=self._query(nvml.nvmlDeviceGetMinorNumber, self._card),
        )
        # Collects Xid errors from now on; None where the driver does not offer them.
        self._xid_events = self._query(nvml.nvmlEventSetCreate)
        if self._xid_events is not None:
            kind = nvml.nvmlEventTypeXidCriticalError
            self._query(nvml.nvmlDeviceRegisterEvents, self._card, kind, self._xid_events)

    def health(self) -> Health:
        nvml = self._nvml
        memory = self._query_device(nvml.nvmlDeviceGetMemoryInfo)
        utilization = self._query_device(nvml.nvmlDeviceGetUtilizationRates)
        sensor = nvml.NVML_TEMPERATURE_GPU
        temperature = self._query(nvml.nvmlDeviceGetTemperature, self._card, sensor)
        wait, xids = nvml.nvmlEventSetWait_v2, self._xid_events
        while xids is not None and (event := self._query(wait, xids, 0)) is not None:
            if event.eventData in _FATAL_XIDS:
                self.failure = self.failure or f"Xid {event.eventData}"
        return Health(
            temperature_c=temperature,
            memory_used_mb=memory.used / MIB if memory else None,
            memory_total_mb=memory.total / MIB if memory else None,
            utilization_percent=utilization.gpu if utilization else None,
        )

    def obstacle(self) -> str | None:
        processes = self._query_device(self._nvml.nvmlDeviceGetComputeRunningProcesses)
        if processes:
            pids = ", ".join(str(process.pid) for process in processes[:5])
            return f"other processes compute on this GPU (pid {pids})"
        memory = self._query_device(self._nvml.nvmlDeviceGetMemoryInfo)
        if memory is None:
            return None
        used = memory.used / MIB
        if self._baseline_mb is None:
            self._baseline_mb = used
        if used <= self._baseline_mb + _VRAM_TOLERANCE_MB:
            return None
        return f"{used:.0f} MiB of GPU memory in use, {self._baseline_mb:.0f} before the first run"

    def _query_device(self, function: Callable[..., Any], *arguments: object) -> Any:
        return self._query(function, self._handle, *arguments)

    def _query(self, function: Callable[..., Any], *arguments: object) -> Any:
        """The answer, or None where this device has none. Sets `failure` on other errors."""
        nvml = self._nvml
        harmless = (
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_NO_PERMISSION,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            nvml.NVML_ERROR_INSUFFICIENT_SIZE,  # a process appeared between two calls
            nvml.NVML_ERROR_TIMEOUT,
        )
        try:
            return function(*arguments)
        except nvml.NVMLError as error:
            # What a driver says of readings that exist for whole cards only.
            of_card_only = self._is_mig and error.value == nvml.NVML_ERROR_INVALID_ARGUMENT
            if error.value not in harmless and not of_card_only:
                self.failure = self.failure or f"NVML: {error}"
            return None


Gpu = Cpu | Nvidia


def host_name() -> str:
    """This host's name, in the characters that a GPU's id may have."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", platform.node()).lstrip("._-")
    return name[:64] or "host"


def identity(device: Device) -> str:
    """Host and GPU: two hosts may both have a GPU 0, and a card keeps its UUID."""
    return f"{host_name()}:{device.uuid or device.label}"


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
