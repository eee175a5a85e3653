"""Which walls a run gets: a PID namespace through bubblewrap, or none beyond tree.py's guard.

In a namespace of its own a run cannot leave anything behind: the kernel kills all of it with its
first process. Containers and hardened kernels forbid that now and then, so it is tried, not
assumed. No other separation is meant: files, devices and the network stay those of the host.
"""

from typing import Literal

Isolation = Literal["bwrap", "direct"]

_BWRAP = [
    "bwrap",
    "--die-with-parent",
    "--unshare-pid",
    # Puts the run's processes in a process group without bwrap's own outer process, which SIGTERM
    # would end at once, and everything inside with it.
    "--new-session",
    "--dev-bind",
    "/",
    "/",
    "--proc",
    "/proc",
]


def wrap(argv: list[str], isolation: Isolation, info_fd: int | None = None) -> list[str]:
    """The command line that runs `argv`. bwrap writes {"child-pid": group leader} to `info_fd`."""
    if isolation == "direct":
        return argv
    information = [] if info_fd is None else ["--info-fd", str(info_fd)]
    return [*_BWRAP, *information, "--", *argv]


def choose(wanted: Literal["auto", "bwrap", "direct"]) -> tuple[Isolation, str]:
    """The isolation that works here, and why, in words.

    Raises RuntimeError when `bwrap` was demanded and does not work.
    """
    if wanted == "direct":
        return "direct", "no PID namespace: AUTORESEARCH_ISOLATION=direct"
    obstacle = _obstacle()
    if obstacle is None:
        return "bwrap", "each run in a PID namespace of its own"
    if wanted == "bwrap":
        raise RuntimeError(f"AUTORESEARCH_ISOLATION=bwrap, but {obstacle}")
    return "direct", f"no PID namespace: {obstacle}"


def _obstacle() -> str | None:
    import shutil  # supervisors, which start with this module, have no use for these two
    import subprocess

    if shutil.which("bwrap") is None:
        return "bubblewrap (bwrap) is not installed"
    try:
        probe = subprocess.run(
            wrap(["true"], "bwrap"), capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap does not run: {error}"
    if probe.returncode != 0:
        said = probe.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        return f"bwrap is not allowed here: {said[-1]}"
    return None
