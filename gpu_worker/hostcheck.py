"""The host check: `prepare.py --check`, started in the way a run is started.

A host without its data, its tokenizer or a torch that sees the GPU stays out of the pool. What the
check says about the platform goes into the registration.
"""

import os
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import Process
from pydantic import BaseModel, ValidationError

from gpu_worker import durable, tree
from gpu_worker.isolation import Sandbox
from gpu_worker.sandbox import compile_command

SYNC = "`uv sync --group train` in the checkout"
_TIMEOUT_SECONDS = 300.0
_MARKER = "AUTORESEARCH_HOST_CHECK"  # in the environment of all processes of a check


class HostCheck(BaseModel):
    """The one line of JSON that `prepare.py --check` prints."""

    ok: bool
    problems: list[str] = []
    profile: str | None = None
    device: str | None = None
    device_name: str | None = None
    torch_version: str | None = None
    python_version: str | None = None
    validation_sha256: str | None = None
    data_sha256: str | None = None  # added by the worker, see dataset.py


async def check(
    command: list[str], project: Path, env: dict[str, str], sandbox: Sandbox
) -> HostCheck:
    """Run the check and read its answer; every failure is returned as a problem in it."""
    if problem := launcher_problem(command) or project_problem(command, project):
        return _failed(problem)
    prepare = project / "prepare.py"
    words = [*sandbox.command(command), str(prepare), "--check"]
    argv = sandbox.wrap(words, read_only=(prepare,))
    output = b""
    try:
        async with own_process(argv, project, env, subprocess.PIPE) as process:
            with anyio.move_on_after(_TIMEOUT_SECONDS):
                if stdout := process.stdout:
                    output = b"".join([piece async for piece in stdout])
    except OSError as error:
        return _failed(f"cannot start {argv[0]}: {error.strerror or error}")
    lines = output.decode(errors="replace").splitlines()
    for line in reversed(lines):
        try:
            return HostCheck.model_validate_json(line)
        except ValidationError:
            continue
    last = lines[-1][:500] if lines else "none"
    return _failed(
        f"`{' '.join(words)}` gave no answer; its last output: {last}. If a package is missing, "
        f"{SYNC} installs it"
    )


@asynccontextmanager
async def own_process(
    argv: list[str], project: Path, env: Mapping[str, str], output: int
) -> AsyncIterator[Process]:
    """A process, and nothing of it any more when the block is left. `output` gets both streams.
    Raises OSError."""
    marker = uuid.uuid4().hex
    with anyio.CancelScope(shield=True):  # a cancelled start would leave the process behind
        process = await anyio.open_process(
            argv,
            cwd=project,
            env={**env, _MARKER: marker},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    async with process:
        try:
            yield process
        finally:
            with anyio.CancelScope(shield=True):
                # Not only the launcher: a bwrap that dies while it starts leaves a child.
                await anyio.to_thread.run_sync(tree.sweep, _MARKER, marker)
                await process.wait()


def project_problem(command: list[str], project: Path) -> str | None:
    """Why nothing could train in this project, and what to do, as far as a look at it tells."""
    if not (project / "prepare.py").is_file():
        return (
            f"there is no prepare.py in {project}: run inside a checkout, or name one with "
            "--project (AUTORESEARCH_PROJECT)"
        )
    # `uv run` would make an empty environment there and then miss the packages in it.
    environment = project / (os.environ.get("UV_PROJECT_ENVIRONMENT") or ".venv")
    if command[:2] == ["uv", "run"] and not environment.is_dir():
        return f"there is no environment in {environment}: {SYNC} installs it"
    return None


async def compile_packages(command: list[str]) -> None:
    """Beside the first runs in `strict`, which compile for themselves until it is done."""
    with suppress(OSError):  # without `nice`: only speed is lost
        await anyio.run_process(compile_command(command), check=False)


def launcher_problem(command: list[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return f"there is no {command[0]!r} to start runs with; set AUTORESEARCH_LAUNCHER"
    return None


def _failed(problem: str) -> HostCheck:
    return HostCheck(ok=False, problems=[problem])


def judge(answer: HostCheck, *, needs_cuda: bool) -> list[str]:
    """Why this worker cannot serve; empty when it can."""
    problems = list(answer.problems)
    if not answer.ok and not problems:
        problems.append("prepare.py --check failed without a reason")
    if answer.ok and needs_cuda and answer.device == "cpu":
        problems.append(f"torch does not see this GPU; if it is a CPU build, {SYNC} replaces it")
    return problems


def save(path: Path, answer: HostCheck) -> None:
    """Keep a passed check, if the disk has space."""
    with suppress(OSError):
        durable.write_durably(path, answer.model_dump_json().encode())


def load(path: Path) -> HostCheck:
    """The last passed check, or an empty one: a worker that adopts a run does not check again."""
    try:
        return HostCheck.model_validate_json(durable.read_file(path))
    except (OSError, ValidationError):
        return HostCheck(ok=True)
