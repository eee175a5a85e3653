"""No text makes a regular expression of ours slow: what a run prints is chosen by its author.

Every pattern of every module meets long text that backtracking searches are slow on. A quadratic
search takes many times SECONDS of CPU time for such a text, a linear one a hundredth of it.
"""

import importlib
import inspect
import pkgutil
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType

import gpu_worker
import orchestrator

SIZE = 32 * 1024
SECONDS = 1.0
# What stands before a run of the same characters, and what the run is made of.
BEGINS = ("", "step", "step 1", "loss", "dt: 1", "a:", "1.", "\x1b[", ' File "')
PUMPS = (" ", "1", "a", ",", "step 1", "loss ", "dt:1 ", "a: x  ", "\x1b[0", "1,111")
TEXTS = [begin + pump * (SIZE // len(pump)) + "!" for begin, pump in product(BEGINS, PUMPS)]
# Reads the import lines of our own scripts only.
EXCEPTIONS = {"orchestrator.routes.page._IMPORT"}


def modules() -> Iterator[ModuleType]:
    for package in (orchestrator, gpu_worker):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith(("__main__", "mlflow_sink")):
                yield importlib.import_module(found.name)


def slow_patterns() -> set[str]:
    """Each pattern is used as its module uses it: what is only ever matched at the start of a line
    may be slow to search for."""
    signal.signal(signal.SIGPROF, _too_long)
    names, slow = set(), set()
    for module in modules():
        source = inspect.getsource(module)
        for name, pattern in vars(module).items():
            if not isinstance(pattern, re.Pattern) or f"{module.__name__}.{name}" in EXCEPTIONS:
                continue
            names.add(name)
            for use in set(re.findall(rf"\b{name}\.(\w+)", source)):
                search = getattr(pattern, use if use.endswith("match") else "findall")
                if not _is_fast(search, isinstance(pattern.pattern, bytes)):
                    slow.add(f"{module.__name__}.{name}.{use}")
    assert len(names) > 15, names
    return slow


def _is_fast(search: object, as_bytes: bool) -> bool:
    assert callable(search)
    try:
        for text in TEXTS:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            search(text.encode() if as_bytes else text)
    except TimeoutError:
        return False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return True


def _too_long(*_: object) -> None:
    raise TimeoutError


def test_every_pattern_is_linear_in_any_text() -> None:
    """In a child process: it imports every module, and the signal belongs to it alone."""
    command = [sys.executable, "-m", f"tests.unit.{Path(__file__).stem}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "set()\n"), ended.stderr


if __name__ == "__main__":
    sys.stdout.write(f"{slow_patterns()}\n")
