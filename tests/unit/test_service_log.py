"""The logs of the service and of a worker, in which callers and runs are quoted."""

import subprocess
import sys

import pytest

from tests import hostile_log as hostile

CODE = """
import logging, sys
from {module} import log_to_stderr
text = sys.stdin.buffer.read().decode(errors="replace")
log_to_stderr()
logging.getLogger("x").warning("a run said: %s", text)
try:
    raise ValueError(text)
except ValueError:
    logging.getLogger("x").exception("failed")
"""


@pytest.mark.parametrize("module", ["orchestrator.cli.run.serve", "gpu_worker.streams"])
def test_what_a_run_says_forges_no_line_of_the_log_and_moves_no_cursor(module: str) -> None:
    """A message is one line. A traceback keeps its lines, without what a terminal acts on."""
    said = hostile.RUN_LOG + b"\n2026-01-01 00:00:00,000 INFO orchestrator: forged\n"
    command = [sys.executable, "-c", CODE.format(module=module)]
    ended = subprocess.run(command, input=said, capture_output=True, check=True)
    message, failed, *traceback = ended.stderr.decode().split("\n")
    assert " WARNING " in message
    assert "a run said: " in message
    assert message.endswith("INFO orchestrator: forged")
    assert " ERROR " in failed
    assert failed.endswith("failed")
    hostile.assert_harmless("\n".join([message, failed, *traceback]))
