"""`autoresearch doctor`: is this machine fit, and if not, what to do.

Each check looks at one thing and changes nothing. It ends, if only after seconds (one imports
torch).
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
import typer
from redis import RedisError

from gpu_worker import devices, hostcheck, isolation
from gpu_worker.gpu import DeviceError, Nvidia, host_name
from gpu_worker.settings import WorkerSettings
from orchestrator.cli.client import Client
from orchestrator.cli.errors import FAILED, CommandError, ConfigError
from orchestrator.cli.options import UpFlags, Url, connect, secret
from orchestrator.cli.output import answer, write_json
from orchestrator.cli.run.process import listen
from orchestrator.cli.run.up import both_settings
from orchestrator.errors import SetupError
from orchestrator.settings import Settings
from orchestrator.store.connection import Store
from orchestrator.valkey import server_binary

_GIB = 1 << 30
_SCARCE_BYTES = 5 * _GIB
_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@dataclass(frozen=True)
class Finding:
    """`fail` stops the system from working, `warn` does not; `todo` says how to repair it."""

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


def doctor(*, flags: UpFlags, orchestrator: Url = None, json: bool) -> None:
    """GPU, driver, torch, data, ports, Redis, uv and disk; exit code 1 if something fails."""
    settings, worker = both_settings(flags)
    found = []
    with connect(orchestrator, secret(settings), settings.ca) as client:
        for check in CHECKS:
            for finding in check(Subject(settings, worker, client)):
                found.append(finding)
                if not json:
                    todo = f"\n{'':20}→ {finding.todo}" if finding.todo else ""
                    answer(f"{_MARKS[finding.state]}  {finding.name:<13} {finding.text}{todo}")
    failed = any(finding.state == "fail" for finding in found)
    if json:
        write_json({"ok": not failed, "checks": [vars(finding) for finding in found]})
    if failed:
        raise typer.Exit(FAILED)


def gpu(_: Subject) -> Iterator[Finding]:
    try:
        found = _nvidia_gpus()
    except DeviceError as error:
        todo = "look at `nvidia-smi`; reinstall or reload the driver"
        if isinstance(error, devices.NotVisible):
            todo = f"export {devices.VARIABLE}=…, as CUDA reads it, or unset it"
        yield Finding("GPU", "fail", str(error), todo)
        return
    if not found:
        yield Finding("GPU", "warn", "no NVIDIA GPU to use: runs train on the CPU, in small")
    for each in found:
        device, busy = each.device, each.obstacle()
        memory = f"{device.vram_mb / 1024:.0f} GiB, driver {device.driver_version}"
        text = f"{device.index}: {device.model}, {memory}"
        if busy:
            yield Finding("GPU", "warn", f"{text}; {busy}", "runs wait until the GPU is free")
        else:
            yield Finding("GPU", "ok", text)


def _nvidia_gpus() -> list[Nvidia]:
    nvml = devices.load_nvml()
    return [Nvidia(nvml, each.index, each.mig) for each in devices.usable()]


def launcher(subject: Subject) -> Iterator[Finding]:
    command = subject.worker.command
    if shutil.which(command[0]) is None:
        todo = "pip install uv, or name another command with --launcher (AUTORESEARCH_LAUNCHER)"
        yield Finding("launcher", "fail", f"'{command[0]}' is not on PATH", todo)
    else:
        yield Finding("launcher", "ok", " ".join(command))


def training(subject: Subject) -> Iterator[Finding]:
    """torch, training data and tokenizer, as a worker would find them."""
    try:
        found = check_training(subject.worker)
    except ConfigError as error:
        yield Finding("training", "fail", error.message)
        return
    needs_cuda = False
    with contextlib.suppress(DeviceError):  # the check of the GPU says so
        needs_cuda = bool(_nvidia_gpus())
    problems = hostcheck.judge(found, needs_cuda=needs_cuda)
    for problem in problems:
        yield Finding("training", "fail", problem)
    if not problems:
        text = f"torch {found.torch_version} on {found.device_name}, profile {found.profile}"
        yield Finding("training", "ok", text)


def check_training(worker: WorkerSettings) -> hostcheck.HostCheck:
    """The answer of `prepare.py --check`; ConfigError where it cannot be asked."""
    if problem := hostcheck.project_problem(worker.command, worker.project):
        raise ConfigError(problem)
    device = None
    with contextlib.suppress(DeviceError):  # the check of the GPU says so
        device = next((gpu.device for gpu in _nvidia_gpus()), None)
    try:
        sandbox = isolation.prepare_for(worker, device)
    except isolation.SandboxError as error:
        raise ConfigError(str(error)) from error
    environment = sandbox.environment(training_environment(worker))
    return anyio.run(hostcheck.check, worker.command, worker.project, environment, sandbox)


def training_environment(worker: WorkerSettings) -> dict[str, str]:
    """The variables with which prepare.py finds the worker's cache."""
    return os.environ | ({"AUTORESEARCH_CACHE": str(worker.cache)} if worker.cache else {})


def orchestrator(subject: Subject) -> Iterator[Finding]:
    client = subject.client
    if client.alive():
        try:
            pool = client.pool()
            counts = f"{pool.total} GPUs, {pool.idle} idle, {pool.offline} offline"
            yield Finding("orchestrator", "ok", f"answers at {client.url}: {counts}")
            for gpu in pool.workers:
                if gpu.host == host_name() and gpu.passed_over:
                    yield Finding("queue", "warn", f"GPU {gpu.id} takes no runs: {gpu.passed_over}")
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
    url = subject.settings.redis_url
    if url is not None:
        yield _external_redis(url.get_secret_value())
        return
    try:
        yield Finding("Redis", "ok", f"embedded: {server_binary()}")
    except SetupError as error:
        yield Finding("Redis", "fail", error.message)


def _external_redis(url: str) -> Finding:
    try:
        facts = anyio.run(_facts, url)
    except SetupError as error:
        return Finding("Redis", "fail", error.message)
    except (RedisError, OSError, ValueError) as error:
        todo = "check REDIS_URL (--redis-url) and that the server runs"
        return Finding("Redis", "fail", f"does not answer: {error}", todo)
    version = str(facts.get("redis_version"))
    policy = facts.get("maxmemory_policy", "noeviction")
    if tuple(int(part) for part in version.split(".")[:2]) < (6, 2):
        return Finding("Redis", "fail", f"version {version}", "6.2 or newer is needed")
    if policy != "noeviction":
        todo = "CONFIG SET maxmemory-policy noeviction"
        return Finding("Redis", "warn", f"evicts keys ({policy})", todo)
    if not facts.get("aof_enabled"):
        todo = "CONFIG SET appendonly yes, appendfsync always"
        return Finding("Redis", "warn", f"{version} keeps no append-only file", todo)
    return Finding("Redis", "ok", version)


async def _facts(url: str) -> dict[str, Any]:
    store = Store(url, timeout_seconds=5)
    try:
        return await store.redis.info("default")
    finally:
        await store.close()


def disk(subject: Subject) -> Iterator[Finding]:
    cache = subject.worker.cache or Path("~/.cache/autoresearch").expanduser()
    for name, folder in (("home", subject.settings.home), ("cache", cache)):
        there = next(p for p in (folder, *folder.parents) if os.access(p, os.F_OK))
        free = shutil.disk_usage(there).free
        text = f"{name} {folder}: {free / _GIB:.1f} GiB free"
        if name == "cache" and (folder / "data").is_dir() and not os.access(folder, os.W_OK):
            text = f"cache {folder} can only be read, which is enough for data that lack nothing"
            yield Finding("disk", "ok", text)
        elif not os.access(there, os.W_OK):
            todo = f"choose another with --{name} (AUTORESEARCH_{name.upper()})"
            yield Finding("disk", "fail", f"{name} {folder} cannot be written", todo)
        elif free < subject.worker.free_space_bytes:
            yield Finding("disk", "fail", text, "free some space: no run is taken below 1 GiB")
        elif free < _SCARCE_BYTES:
            yield Finding("disk", "warn", text, "free some space soon")
        else:
            yield Finding("disk", "ok", text)


def sandbox(subject: Subject) -> Iterator[Finding]:
    try:
        found = isolation.prepare_for(subject.worker, None)
    except isolation.SandboxError as error:
        yield Finding("sandbox", "fail", error.problem, error.remedy)
        return
    strict = found.level == "strict"
    todo = "" if strict else "set AUTORESEARCH_SANDBOX=strict, unless you wrote every train.py"
    yield Finding("sandbox", "ok" if strict else "warn", found.described, todo)


CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    gpu, launcher, training, orchestrator, redis, disk, sandbox,
)  # fmt: skip
