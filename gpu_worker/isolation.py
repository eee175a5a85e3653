"""How a run is isolated: in a PID namespace through bubblewrap, or only by the guard (tree.py).

In a PID namespace a run cannot leave a process behind, because the kernel kills all of them with
the first one. Some containers and hardened kernels forbid namespaces, so `choose` tries one.
Files, devices and the network stay those of the host.
"""

from typing import Literal

Isolation = Literal["bwrap", "direct"]

_BWRAP = [
    "bwrap",
    "--die-with-parent",
    "--unshare-pid",
    # Gives the run's processes a process group without bwrap's own outer process. SIGTERM would end
    # that one at once, and everything inside with it.
    "--new-session",
    *("--dev-bind", "/", "/"),
    *("--proc", "/proc"),
]


def wrap(argv: list[str], isolation: Isolation, info_fd: int | None = None) -> list[str]:
    """The command line that runs `argv`. bwrap writes {"child-pid": group leader} to `info_fd`."""
    if isolation == "direct":
        return argv
    information = [] if info_fd is None else ["--info-fd", str(info_fd)]
    return [*_BWRAP, *information, "--", *argv]


def choose(wanted: Literal["auto", "bwrap", "direct"]) -> tuple[Isolation, str]:
    """The isolation that works here, and the reason in words.

    Raises RuntimeError when `wanted` is "bwrap" and bwrap does not work.
    """
    if wanted == "direct":
        return "direct", "no PID namespace: AUTORESEARCH_ISOLATION=direct"
    problem = _bwrap_problem()
    if problem is None:
        return "bwrap", "each run in a PID namespace of its own"
    if wanted == "bwrap":
        raise RuntimeError(f"AUTORESEARCH_ISOLATION=bwrap, but {problem}")
    return "direct", f"no PID namespace: {problem}"


def _bwrap_problem() -> str | None:
    import shutil  # supervisors import this module too, and need neither of these
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
        output = probe.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        return f"bwrap is not allowed here: {output[-1]}"
    return None
