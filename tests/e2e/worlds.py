"""Runs commands in odd worlds: a process that has imported all of them forks one for each.

A command's start is mostly imports, and the table has hundreds of rows. All else is real: the user
id, the folders, the descriptors, and the end of the interpreter.

stdin has one line of JSON, a list of cases; stdout gets the exit code of each when it has ended. A
case has `argv` (the first is the program), `env`, `cwd`, `out` and `err` (files), and of its world
`user` (an id), `gone` (the working directory is deleted), `stdin` and `stdout` ("closed", or a
file), `encoding`. A service is stopped with SIGTERM once it has said `ready` or made that file.
"""

import gc
import io
import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

_DEADLINE_SECONDS = 60
# What is imported late; another user may not be able to read the packages.
_LATE = (
    "gpu_worker.__main__", "gpu_worker.daemon", "gpu_worker.fleet", "orchestrator.app",
    "orchestrator.mcp.server", "orchestrator.mcp.tools", "mcp.server.stdio",
    "anyio._backends._asyncio", "uvicorn.protocols.http.httptools_impl", "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop", "matplotlib.backends.backend_agg", "importlib.readers", "pynvml",
    "encodings.ascii", "encodings.idna",
)  # fmt: skip


def _program(name: str) -> Any:
    if name == "autoresearch":
        return import_module("orchestrator.cli").main
    if name == "gpu_worker":
        return import_module("gpu_worker.__main__").main
    prepare = import_module("prepare")
    import_module("corpus")
    return lambda: prepare.main(sys.argv[1:])


def _enter(case: dict[str, Any]) -> None:
    """Make this process live in the case's world."""
    os.setsid()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.close(number)
        stream = None
        where = case.get(name) or (os.devnull, case["out"], case["err"])[number]
        if where != "closed":
            flags = os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY
            descriptor = os.open(where, flags, 0o666)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            stream = io.TextIOWrapper(
                open(number, "wb" if number else "rb", closefd=False),  # noqa: SIM115
                encoding=case.get("encoding", "utf-8"),
                errors="backslashreplace" if number == 2 else "strict",
                line_buffering=number == 2,
            )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.environ.clear()
    os.environ.update(case["env"])
    folder = Path(case["cwd"])
    folder.mkdir()
    user = case.get("user")
    if user:
        os.chown(folder, user, user)
    os.chdir(folder)
    if case.get("gone"):
        folder.rmdir()
    if user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    sys.argv = case["argv"]


def _said(case: dict[str, Any]) -> str:
    files = [Path(case[name]) for name in ("out", "err")]
    return "".join(path.read_text(errors="replace") for path in files if path.is_file())


def _end_of(pid: int, case: dict[str, Any]) -> int | str:
    """The exit code, or "late"."""
    deadline, ready = time.monotonic() + _DEADLINE_SECONDS, case.get("ready")
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "late"
        if ready and (ready in _said(case) or Path(ready).is_file()):
            ready = None
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.01)


def main() -> None:
    from orchestrator.cli.app import COMMANDS

    cases = json.loads(sys.stdin.readline())
    commands = {word for case in cases for word in case["argv"][:2] if word in COMMANDS}
    for module in (*(f"orchestrator.cli.{COMMANDS[name][0]}" for name in commands), *_LATE):
        import_module(module)
    for case in cases:
        # prepare.py as late as can be: with torch in it, an interpreter takes a second to end.
        program = _program(case["argv"][0])
        gc.freeze()  # or each fork would look through what all of them share
        pid = os.fork()
        if not pid:
            _enter(case)
            sys.exit(program())
        sys.stdout.write(json.dumps(_end_of(pid, case)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
