"""Can this host train at all? `prepare.py --check`, run as a run would be run.

A host without its data, its tokenizer or a torch that sees the GPU stays out of the pool, so that
no experiment fails for it. What the check tells about the platform goes into the registration.
"""

import json
import shutil
import signal
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.abc
from pydantic import BaseModel, ValidationError

from gpu_worker import durable, tree
from gpu_worker.isolation import Isolation, wrap

_TIMEOUT_SECONDS = 300.0
_MARK = "AUTORESEARCH_HOST_CHECK"  # in the environment of all that a check starts


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


async def check(
    command: list[str], project: Path, env: dict[str, str], walls: Isolation
) -> HostCheck:
    """Run the check and read its answer; whatever goes wrong is a problem in it."""
    argv = wrap([*command, "prepare.py", "--check"], walls)
    mark = uuid.uuid4().hex
    output = b""
    if shutil.which(command[0]) is None:
        return _failed(f"there is no {command[0]!r} to start runs with; set AUTORESEARCH_LAUNCHER")
    try:
        with anyio.CancelScope(shield=True):  # one that is half started would be left behind
            process = await anyio.open_process(
                argv,
                cwd=project,
                env=env | {_MARK: mark},
                start_new_session=True,
                stderr=subprocess.STDOUT,
            )
    except OSError as error:
        return _failed(f"cannot start {argv[0]}: {error.strerror or error}")
    async with process:
        try:
            with anyio.move_on_after(_TIMEOUT_SECONDS):
                output += await _read_all(process)
        finally:
            with anyio.CancelScope(shield=True):
                tree.kill_group(process.pid, signal.SIGKILL)
                await process.wait()
                # A bwrap that dies in its first moment cannot yet take its child with it.
                await anyio.to_thread.run_sync(tree.sweep, _MARK, mark)
    return _read(output, argv)


async def _read_all(process: anyio.abc.Process) -> bytes:
    pieces = [piece async for piece in process.stdout] if process.stdout else []
    return b"".join(pieces)


def _read(output: bytes, argv: list[str]) -> HostCheck:
    lines = output.decode(errors="replace").splitlines()
    for line in reversed(lines):
        try:
            return HostCheck.model_validate(json.loads(line))
        except (ValueError, ValidationError):
            continue
    said = lines[-1][:500] if lines else "nothing"
    return _failed(f"`{' '.join(argv)}` gave no answer; the last it said: {said}")


def _failed(problem: str) -> HostCheck:
    return HostCheck(ok=False, problems=[problem])


def judge(answer: HostCheck, *, needs_cuda: bool) -> list[str]:
    """Why this worker cannot serve, in words; nothing when it can."""
    problems = list(answer.problems)
    if not answer.ok and not problems:
        problems.append("prepare.py --check failed without a reason")
    if answer.ok and needs_cuda and answer.device == "cpu":
        problems.append("torch does not see this GPU; is it a CPU build?")
    return problems


def remember(path: Path, answer: HostCheck) -> None:
    """Keep a check that was passed. On a full disk it is not kept: the pool hears of the disk, and
    a worker that takes over a run goes without."""
    with suppress(OSError):
        durable.write_durably(path, answer.model_dump_json().encode())


def recall(path: Path) -> HostCheck | None:
    """The last check that was passed: a worker that takes over a run has no time for another."""
    try:
        return HostCheck.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
