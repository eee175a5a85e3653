"""The walls of sandbox level `strict`: bubblewrap's arguments, limits and environment of a run.

A run sees the system's programs and libraries, its Python, the training data and the pinned files,
all read-only. It writes to its workspace, to its compile cache, and to memory of limited size. It
has no network, no capabilities, no devices but its GPU, and no process but its own.
"""

import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_worker import seccomp
from gpu_worker.limits import PROCESSES, WORKSPACE_BYTES, host_memory_bytes

_OPEN_FILES = 65_536
_TMPFS_SHARE = 8  # /tmp and /dev/shm get this part of the host's memory each

if TYPE_CHECKING:
    from gpu_worker.gpu import Device

_NAMESPACES = (
    "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL",
    "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
    "--hostname", "run", "--die-with-parent", "--new-session",
)  # fmt: skip
# Of /etc only what the loader, the compilers (by way of alternatives) and clocks read.
_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime")
_DATA = ("data", "tokenizer", "tokens")

# Settings of the libraries that training uses, by the beginning of their names.
_ALLOWED = re.compile(
    r"LANG|LC_|TZ$|LD_LIBRARY_PATH$|CC$|CXX$|CUDA_|NVIDIA_|NCCL_|TORCH|PYTORCH_|TRITON_|OMP_|MKL_"
    r"|KMP_|OPENBLAS_|CUBLAS|CUDNN_|FLASH_ATTENTION_|PYTHONUNBUFFERED$|PYTHONHASHSEED$"
    r"|AUTORESEARCH_(CACHE|PROFILE|TIME_BUDGET|SEED|RUN|WORKSPACE|MEASURES|MEASURES_FD|HOST_CHECK)$"
)
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|_KEY|APIKEY|_AUTH", re.IGNORECASE)

_COMPILED_PACKAGES = ("torch", "triton", "sympy")  # what torch.compile imports

# Asks a launcher for its Python. -S and the like are kept by asking with the launcher itself.
_WHICH_PYTHON = (
    "import json, sys; print(json.dumps({'executable': sys.executable, 'prefixes':"
    " [sys.prefix, sys.base_prefix], 'path': sys.path}))"
)


def device_files(device: "Device | None") -> tuple[str, ...]:
    """Those of a GPU, and what the driver shares between all; none for the CPU."""
    if device is None or device.minor is None:
        return ()
    # Each MIG device of a card has a file of its own below nvidia-caps; all of them are given.
    mig = ("/dev/nvidia-caps",) if (device.uuid or "").startswith("MIG-") else ()
    shared = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", *mig)
    return (f"/dev/nvidia{device.minor}", *shared)


@dataclass(frozen=True)
class Program:
    """How runs are started: the command before the script's name, and what of the file system it
    needs beside the system's own folders."""

    command: tuple[str, ...]
    readable: tuple[Path, ...]
    folder: Path | None = None  # of the Python, which leads PATH


def find_program(command: list[str]) -> Program:
    """The Python that `command` starts, which `strict` starts itself where the command is uv: uv's
    own files are not in the sandbox. Another launcher stays, with the files that it names."""
    named = [Path(word) for word in command if word.startswith("/") and Path(word).is_file()]
    try:
        answer = subprocess.run(
            [*command, "-c", _WHICH_PYTHON],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        found = json.loads(answer.stdout)
        executable = Path(found["executable"])
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        # No Python, or none that starts. The host check says so, and why.
        return Program(tuple(command), tuple(named))
    prefixes = [Path(prefix) for prefix in found["prefixes"]]
    packages = [Path(p) for p in found["path"] if p.endswith(("site-packages", "dist-packages"))]
    home = executable.resolve().parents[1]
    if Path(command[0]).name == "uv":
        command = [str(executable)]
    wanted = [*prefixes, *(p.resolve() for p in prefixes), home, *packages, *named, *_compilers()]
    return Program(tuple(command), _outermost(wanted), executable.parent)


def _compilers() -> list[Path]:
    """Where CC and CXX are installed, which torch.compile calls, if they name files."""
    named = [Path(os.environ.get(name, "")) for name in ("CC", "CXX")]
    return [path.parent.parent for path in named if path.is_absolute() and path.is_file()]


def compile_command(command: list[str], packages: Sequence[str] = _COMPILED_PACKAGES) -> list[str]:
    """The command that compiles these packages to byte code, as `uv sync` does not. In the sandbox
    they are read-only, so each run would compile some thousand files again. Where all are compiled,
    this takes half a second."""
    script = (
        "import compileall, ctypes, importlib.util as util; "
        "ctypes.CDLL(None).prctl(1, 15); "  # PR_SET_PDEATHSIG: it ends with its worker
        "[compileall.compile_dir("
        "spec.submodule_search_locations[0], quiet=2)"
        f" for name in {tuple(packages)!r} if (spec := util.find_spec(name))]"
    )
    return ["nice", *command, "-c", script]


def _outermost(paths: list[Path]) -> tuple[Path, ...]:
    """The folders and files, without those that another one or /usr contains."""
    system, kept = Path("/usr"), list[Path]()
    for path in sorted({p for p in paths if p.exists()}, key=lambda p: len(p.parts)):
        if not any(path.is_relative_to(other) for other in (system, *kept)):
            kept.append(path)
    return tuple(kept)


def exposed(program: Program, private: tuple[Path, ...]) -> tuple[str, str] | None:
    """The problem and its remedy, if a folder that runs need contains one of `private`."""
    for folder in program.readable:
        for secret in private:
            if secret.is_relative_to(folder):
                problem = f"{folder}, which runs need, contains {secret}, which they must not see"
                return problem, "move the environment, or the home (AUTORESEARCH_HOME)"
    return None


def missing() -> tuple[str, str] | None:
    """What this host lacks beside bubblewrap: the problem and its remedy."""
    if shutil.which("prlimit") is None:
        return "prlimit is not installed", "install util-linux"
    if not seccomp.supported():
        return f"there is no system call filter for {os.uname().machine}", "use x86_64 or aarch64"
    return None


def limits() -> list[str]:
    """The command that limits what it runs. It is executed inside, where the kernel counts the
    run's own processes only. It counts none of root's, whose runs limits.py counts."""
    wanted = {"nproc": PROCESSES, "nofile": _OPEN_FILES, "fsize": WORKSPACE_BYTES, "core": 0}
    words = ["prlimit"]
    for name, limit in wanted.items():
        hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
        words.append(f"--{name}={limit if hard == resource.RLIM_INFINITY else min(limit, hard)}")
    return [*words, "--"]


@dataclass(frozen=True)
class Walls:
    """What one run sees. `compiled` is its own compile cache; `read_only` files that are pinned,
    which may lie in the workspace. Without `own_proc` its /proc is that of the host."""

    workspace: Path | None
    program: Program
    devices: tuple[str, ...]
    cache: Path | None
    compiled: Path | None
    read_only: tuple[Path, ...]
    own_proc: bool = True

    def arguments(self) -> list[str]:
        """bwrap's, up to the command."""
        size = str(host_memory_bytes() // _TMPFS_SHARE)
        # To disable namespaces, bwrap writes to /proc; seccomp.py refuses them too.
        own = ["--disable-userns", "--proc", "/proc"]
        proc = own if self.own_proc else _bind(Path("/proc"))
        arguments = [*_NAMESPACES, *_system(), *proc, "--dev", "/dev"]
        for folder in ("/dev/shm", "/tmp"):  # noqa: S108 - the run's own
            arguments += ["--size", size, "--tmpfs", folder]
        arguments += self._devices()
        for path in self.program.readable:
            arguments += _bind(path)
        if self.cache is not None:
            for name in _DATA:
                arguments += _bind(self.cache / name)
            if self.compiled is not None:
                arguments += ["--bind", str(self.compiled), str(self.cache / "compiled")]
        if self.workspace is not None:
            arguments += ["--bind", str(self.workspace), str(self.workspace)]
        for path in self.read_only:
            arguments += _bind(path)
        arguments += ["--chdir", str(self.workspace or "/tmp")]  # noqa: S108
        return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/"]

    def _devices(self) -> list[str]:
        if not self.devices:
            return _bind(Path("/sys/devices/system"))
        arguments = []
        for name in ("devices", "bus", "module", "class"):
            arguments += _bind(Path("/sys") / name)
        for file in self.devices:
            arguments += ["--dev-bind-try", file, file]
        return arguments


def _bind(path: Path) -> list[str]:
    return ["--ro-bind-try", str(path), str(path)]


def _system() -> list[str]:
    arguments = _bind(Path("/usr"))
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/") / name
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += _bind(path)
    for name in _ETC:
        arguments += _bind(Path("/etc") / name)
    return arguments


def environment(base: dict[str, str], program: Program, cache: Path | None) -> dict[str, str]:
    """Of `base` what training needs and no secret can be in, with a home of the run's own."""
    allowed = {n: v for n, v in base.items() if _ALLOWED.match(n) and not _SECRET.search(n)}
    folders = [str(program.folder)] if program.folder else []
    return (
        allowed
        | {
            "PATH": ":".join([*folders, "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": "/tmp",  # noqa: S108 - the sandbox's own
            "TMPDIR": "/tmp",  # noqa: S108
            # torch names folders after it, and the user has no entry in /etc/passwd.
            "USER": "run",
        }
        | ({"AUTORESEARCH_CACHE": str(cache)} if cache else {})
    )
