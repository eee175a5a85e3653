"""Which worker processes a machine gets: one a GPU, or one for the CPU."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.cli.errors import ConfigError

if TYPE_CHECKING:
    from gpu_worker.settings import WorkerSettings


@dataclass(frozen=True)
class Workers:
    """The worker processes to start, by name.

    `gpus` is the flag `--gpu` of each, `described` what that is in words; `environment` is what
    their common settings add to that of this process.
    """

    gpus: dict[str, str]
    described: dict[str, str]
    environment: dict[str, str]
    drain_seconds: float

    @property
    def on_cpu(self) -> bool:
        return list(self.gpus.values()) == ["cpu"]


def plan(settings: "WorkerSettings") -> Workers:
    """One worker for each GPU that the settings name and this process may use."""
    from gpu_worker.gpu import DeviceError, open_gpu

    try:
        devices = {gpu: open_gpu(gpu).device for gpu in _wanted(settings.gpu)}
    except DeviceError as error:
        raise ConfigError(
            f"{error}. `autoresearch doctor` looks into it; --cpu goes without"
        ) from error
    if settings.gpu_id and len(devices) > 1:
        raise ConfigError("--gpu-id names one worker, and this machine gets several")
    own = settings.environment()
    # These differ from worker to worker, or are the orchestrator's to say.
    for name in ("GPU", "ORCHESTRATOR", "TOKEN", "HOME"):
        own.pop(f"AUTORESEARCH_{name}", None)
    return Workers(
        gpus={f"worker-{device.label}": gpu for gpu, device in devices.items()},
        described={f"worker-{d.label}": f"{d.label}: {d.model}" for d in devices.values()},
        environment=own,
        drain_seconds=settings.drain_timeout,
    )


def _wanted(gpu: str) -> list[str]:
    """The value of `--gpu` for each worker."""
    from gpu_worker.gpu import load_nvml, usable_indices

    if gpu not in ("auto", "all"):
        return [gpu]
    nvml = load_nvml()
    indices = usable_indices(nvml) if nvml else []
    if not indices and gpu == "all":
        raise ConfigError("--gpu all: this process may use no NVIDIA GPU; --cpu goes without")
    return [str(index) for index in indices] or ["cpu"]
