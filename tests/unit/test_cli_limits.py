"""The orchestrator's limit on open files, which is its limit on workers."""

import subprocess
import sys

CODE = """
import resource
from orchestrator.cli.run.process import allow_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2048))
allow_open_files({wanted})
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def _limits(wanted: int) -> str:
    # In a process of its own: a hard limit that was lowered stays so.
    command = [sys.executable, "-c", CODE.format(wanted=wanted)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_soft_limit_is_raised_to_what_is_wanted() -> None:
    assert _limits(1000) == "1000 2048"


def test_it_is_raised_no_further_than_the_system_allows() -> None:
    assert _limits(65_536) == "2048 2048"


def test_a_limit_that_is_high_enough_stays() -> None:
    assert _limits(100) == "256 2048"
