"""What `autoresearch doctor` looks at, one thing a check, and what to do about what it finds.

A check changes nothing. It may take seconds (one imports torch), but it ends.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gpu_worker.settings import WorkerSettings
from orchestrator.cli.client import Client
from orchestrator.cli.errors import CommandError, ConfigError
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from gpu_worker.hostcheck import HostCheck

_GIB = 1 << 30
_SCARCE_BYTES = 5 * _GIB


@dataclass(frozen=True)
class Finding:
    """`fail` keeps the system from its work, `warn` does not; `todo` says what would mend it."""

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str
    todo: str = ""


@dataclass(frozen=True)
class Subject:
    """What is looked at."""

    settings: Settings
    worker: WorkerSettings
    client: Client


def findings(subject: Subject) -> Iterator[Finding]:
    for check in CHECKS:
        yield from check(subject)


def gpu(subject: Subject) -> Iterator[Finding]:
    from gpu_worker.gpu import DeviceError, Nvidia, load_nvml, usable_indices

    del subject
    try:
        nvml = load_nvml()
        gpus = [Nvidia(nvml, index) for index in usable_indices(nvml)] if nvml else []
    except DeviceError as error:
        yield Finding(
            "GPU", "fail", str(error), "look at `nvidia-smi`; reinstall or reload the driver"
        )
        return
    if not gpus:
        yield Finding("GPU", "warn", "no NVIDIA GPU to use: runs train on the CPU, in small")
    for found in gpus:
        device, busy = found.device, found.obstacle()
        memory = f"{device.vram_mb / 1024:.0f} GiB, driver {device.driver_version}"
        text = f"{device.index}: {device.model}, {memory}"
        if busy is None:
            yield Finding("GPU", "ok", text)
        else:
            yield Finding("GPU", "warn", f"{text}; {busy}", "runs wait until the GPU is free")


def launcher(subject: Subject) -> Iterator[Finding]:
    command = subject.worker.command
    if shutil.which(command[0]) is None:
        todo = "pip install uv, or name another command with --launcher (AUTORESEARCH_LAUNCHER)"
        yield Finding("launcher", "fail", f"'{command[0]}' is not on PATH", todo)
    else:
        yield Finding("launcher", "ok", " ".join(command))


def training(subject: Subject) -> Iterator[Finding]:
    """torch, training data and tokenizer, as a worker would find them."""
    from gpu_worker.hostcheck import judge

    try:
        answer = check_training(subject.worker)
    except ConfigError as error:
        yield Finding("training", "fail", error.message)
        return
    problems = judge(answer, needs_cuda=_has_gpu())
    for problem in problems:
        yield Finding("training", "fail", problem, "uv sync --group train; uv run prepare.py")
    if not problems:
        text = f"torch {answer.torch_version} on {answer.device_name}, profile {answer.profile}"
        yield Finding("training", "ok", text)


def check_training(worker: WorkerSettings) -> "HostCheck":
    """What `prepare.py --check` says; ConfigError where there is no prepare.py."""
    import anyio

    from gpu_worker import isolation
    from gpu_worker.hostcheck import check

    if not (worker.project / "prepare.py").is_file():
        raise ConfigError(
            f"there is no prepare.py in {worker.project}: run inside a checkout, or name one with "
            "--project (AUTORESEARCH_PROJECT)"
        )
    environment = training_environment(worker)
    try:
        walls, _ = isolation.choose(worker.isolation)
    except RuntimeError as error:
        raise ConfigError(str(error)) from error
    return anyio.run(check, worker.command, worker.project, environment, walls)


def training_environment(worker: WorkerSettings) -> dict[str, str]:
    """The variables with which prepare.py finds the worker's cache."""
    cache = {"AUTORESEARCH_CACHE": str(worker.cache)} if worker.cache else {}
    return dict(os.environ) | cache


def orchestrator(subject: Subject) -> Iterator[Finding]:
    from orchestrator.cli.ports import listen

    client = subject.client
    if client.alive():
        try:
            pool = client.pool()
            counts = f"{pool.total} GPUs, {pool.idle} idle, {pool.offline} offline"
            text = f"answers at {client.url}: {counts}"
            yield Finding("orchestrator", "ok", text)
        except CommandError as error:
            todo = "set AUTORESEARCH_TOKEN to the orchestrator's, if it has one"
            yield Finding("orchestrator", "fail", error.message, todo)
        return
    try:
        listen(subject.settings.host, subject.settings.port).close()
    except ConfigError as error:
        yield Finding("orchestrator", "fail", error.message)
    else:
        text = f"none runs; port {subject.settings.port} is free"
        yield Finding("orchestrator", "ok", text, "autoresearch up")


def redis(subject: Subject) -> Iterator[Finding]:
    from orchestrator.embedded import server_binary
    from orchestrator.errors import SetupError

    url = subject.settings.redis_url
    if url is not None:
        yield _external_redis(url.get_secret_value())
        return
    try:
        program = server_binary()
    except SetupError as error:
        yield Finding("Redis", "fail", error.message)
    else:
        yield Finding("Redis", "ok", f"embedded: {program}")


def _external_redis(url: str) -> Finding:
    from redis import Redis, RedisError

    todo = "check REDIS_URL (--redis-url) and that the server runs"
    try:
        with Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as server:
            facts = server.info()
    except (RedisError, OSError, ValueError) as error:
        return Finding("Redis", "fail", f"does not answer: {error}", todo)
    version = str(facts.get("redis_version"))
    if tuple(int(part) for part in version.split(".")[:2]) < (6, 2):
        return Finding("Redis", "fail", f"version {version}", "6.2 or newer is needed")
    if facts.get("maxmemory_policy", "noeviction") != "noeviction":
        todo = "CONFIG SET maxmemory-policy noeviction"
        return Finding("Redis", "warn", f"evicts keys ({facts['maxmemory_policy']})", todo)
    if not facts.get("aof_enabled"):
        todo = "CONFIG SET appendonly yes, appendfsync always"
        return Finding("Redis", "warn", f"{version} keeps no append-only file", todo)
    return Finding("Redis", "ok", version)


def disk(subject: Subject) -> Iterator[Finding]:
    cache = subject.worker.cache or Path("~/.cache/autoresearch").expanduser()
    for name, folder in (("home", subject.settings.home), ("cache", cache)):
        there = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(there).free
        text = f"{name} {folder}: {free / _GIB:.1f} GiB free"
        if not os.access(there, os.W_OK):
            todo = f"choose another with --{name} (AUTORESEARCH_{name.upper()})"
            yield Finding("disk", "fail", f"{name} {folder} cannot be written", todo)
        elif free < subject.worker.free_space_bytes:
            yield Finding("disk", "fail", text, "free some space: no run is taken below 1 GiB")
        elif free < _SCARCE_BYTES:
            yield Finding("disk", "warn", text, "free some space soon")
        else:
            yield Finding("disk", "ok", text)


def walls(subject: Subject) -> Iterator[Finding]:
    from gpu_worker.isolation import choose

    try:
        kind, why = choose(subject.worker.isolation)
    except RuntimeError as error:
        yield Finding("isolation", "fail", str(error), "install bubblewrap")
        return
    if kind == "bwrap":
        yield Finding("isolation", "ok", why)
    else:
        todo = "install bubblewrap, for a PID namespace; runs are cleaned up without it too"
        yield Finding("isolation", "warn", why, todo)


CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    gpu, launcher, training, orchestrator, redis, disk, walls,
)  # fmt: skip


def _has_gpu() -> bool:
    from gpu_worker.gpu import DeviceError, load_nvml, usable_indices

    try:
        nvml = load_nvml()
    except DeviceError:
        return False
    return bool(nvml and usable_indices(nvml))
