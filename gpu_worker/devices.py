"""Which devices this process may use: what NVML lists, limited by CUDA_VISIBLE_DEVICES.

The variable is read as CUDA's driver reads it: its guide, and driver 580 where that says nothing.

- A list of indices as nvidia-smi counts them, or of UUIDs, which may be shortened while they stay
  unambiguous. The first entry says which of the two.
- The list ends at the first entry that names no device; a device that is named twice is an error.
- An empty value, or a first index below zero, is no GPU.

Where CUDA would show no device for any other reason, this is a DeviceError. A GPU in MIG mode is
listed as its MIG devices; its index is the first of them, as in CUDA. Of several MIG UUIDs CUDA
shows only the first to one process. Here each is a device, because each run gets one of its own.
"""

import os
import re
from dataclasses import dataclass
from typing import Any

from gpu_worker.gpu import Cpu, DeviceError, Gpu, Nvidia

VARIABLE = "CUDA_VISIBLE_DEVICES"

# C's strtol: what follows the digits is ignored.
_INDEX = re.compile(r"[ \t\n\r\v\f]*([+-]?[0-9]+)")


class NotVisible(DeviceError):
    """CUDA_VISIBLE_DEVICES, or what it leaves of this host, does not allow what is asked for."""


@dataclass(frozen=True)
class Listed:
    """A GPU, or a MIG device on it. The driver cannot reach a GPU that has no `uuid`."""

    index: int
    uuid: str | None
    mig: int | None = None

    @property
    def flag(self) -> str:
        """The value of `--gpu` that names this device alone."""
        return str(self.index) if self.mig is None or self.uuid is None else self.uuid

    def __str__(self) -> str:
        part = "" if self.mig is None else f" MIG {self.mig}"
        return f"{self.index}{part} ({self.uuid or 'does not answer'})"


def usable() -> list[Listed]:
    """The devices that this process may use, in CUDA's order. Raises DeviceError."""
    return visible(os.environ.get(VARIABLE), listed(load_nvml()))


def open_gpu(wanted: str) -> Gpu:
    """The device for a setting `gpu`: "cpu", "auto", an index or a UUID. Raises DeviceError.

    An index is always that of nvidia-smi: with CUDA_VISIBLE_DEVICES=2,3 there is a GPU 2 and no 0.
    """
    if wanted == "cpu":
        return Cpu()
    nvml, value = load_nvml(), os.environ.get(VARIABLE)
    on_host = listed(nvml)
    found = visible(value, on_host)
    if wanted == "auto":
        return Nvidia(nvml, found[0].index, found[0].mig) if found else Cpu()
    found = [each for each in found if _is_named(each, wanted)]
    if len(found) != 1:
        setting = "not set" if value is None else f"'{value}'"
        raise NotVisible(
            f"--gpu {wanted} names {len(found) or 'none'} of the devices that this process may "
            f"use: {VARIABLE} is {setting}, and {_described(on_host)}"
        )
    return Nvidia(nvml, found[0].index, found[0].mig)


def visible(value: str | None, on_host: list[Listed]) -> list[Listed]:
    """The devices that `value` of CUDA_VISIBLE_DEVICES shows, in its order. Raises NotVisible."""
    if value is None:
        return on_host
    kind = value[:4] if value.startswith(("GPU-", "MIG-")) else None
    shown: list[Listed] = []
    for entry in value.split(","):
        device = _by_uuid(entry, kind, on_host) if kind else _by_index(entry, on_host)
        if device is None:
            break
        if device in shown:
            raise NotVisible(
                f"{VARIABLE} is '{value}', which names {device} twice, and CUDA shows no GPU then: "
                f"correct or unset it; {_described(on_host)}"
            )
        shown.append(device)
    if not shown and not _asks_for_none(value):
        raise NotVisible(
            f"{VARIABLE} is '{value}', which names no GPU of this host: correct or unset it; "
            f"{_described(on_host)}"
        )
    return shown


def _asks_for_none(value: str) -> bool:
    index = _INDEX.match(value)
    return not value.strip() or (index is not None and int(index[1]) < 0)


def _by_index(entry: str, on_host: list[Listed]) -> Listed | None:
    index = _INDEX.match(entry)
    return next((d for d in on_host if index is not None and d.index == int(index[1])), None)


def _by_uuid(entry: str, kind: str, on_host: list[Listed]) -> Listed | None:
    entry = entry.rstrip()
    if not entry.startswith(kind) or entry == kind:
        return None
    found = [each for each in on_host if _starts_with(each, entry)]
    return found[0] if len(found) == 1 else None


def _starts_with(device: Listed, start: str) -> bool:
    return device.uuid is not None and device.uuid.lower().startswith(start.lower())


def _is_named(device: Listed, wanted: str) -> bool:
    return _starts_with(device, wanted) if "-" in wanted else device.index == int(wanted)


def _described(on_host: list[Listed]) -> str:
    names = ", ".join(map(str, on_host))
    return f"this host has {names}" if names else "this host has no NVIDIA GPU or no driver for it"


def load_nvml() -> Any | None:
    """The NVML binding, initialised; None on a host without an NVIDIA driver.

    Raises DeviceError if there is a driver that does not work: that is no CPU host.
    """
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        missing = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        if error.value in missing:
            return None
        raise DeviceError(f"the NVIDIA driver does not work: {error}") from error
    return pynvml


def listed(nvml: Any | None) -> list[Listed]:
    """Every device of this host, GPUs in MIG mode as their MIG devices."""
    if nvml is None:
        return []
    return [d for i in range(nvml.nvmlDeviceGetCount()) for d in _on_gpu(nvml, i)]


def _on_gpu(nvml: Any, index: int) -> list[Listed]:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = nvml.nvmlDeviceGetUUID(handle)
    except nvml.NVMLError:  # lost: opening it says so
        return [Listed(index, None)]
    try:
        in_mig_mode = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
        numbers = range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) if in_mig_mode else None
    except nvml.NVMLError:  # most GPUs know no MIG
        numbers = None
    if numbers is None:
        return [Listed(index, uuid)]
    found = []
    for number in numbers:
        try:
            mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
            found.append(Listed(index, nvml.nvmlDeviceGetUUID(mig), number))
        except nvml.NVMLError:  # no MIG device was made for that number
            continue
    return found
