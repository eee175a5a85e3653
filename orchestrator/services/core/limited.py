"""Work on sources in a child process with limits on CPU time and memory.

Compiling a source of 785 bytes may take gigabytes, and comparing two of a megabyte hours, so
neither is done in the service. A child ends with the call that waits for it.
"""

import ast
import asyncio
import logging
import sys
from collections import OrderedDict
from pathlib import Path

import anyio

from orchestrator.errors import Invalid, TooLarge, Unavailable

logger = logging.getLogger(__name__)

# A source of 1 MiB takes at most 1 s and 400 MB.
CPU_SECONDS = 3
MEMORY_BYTES = 768 * 1024 * 1024
_DIFFS_KEPT = 16
_CHILD = Path(__file__).with_name("limited_child.py")
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class LimitedWork:
    def __init__(self) -> None:
        # One child of each kind at a time.
        self._checking = asyncio.Lock()
        self._comparing = asyncio.Lock()
        # By the two ids, the least recently used first; None for what takes too long.
        self._diffs: OrderedDict[tuple[str, str], str | None] = OrderedDict()

    async def check(self, source: str) -> None:
        """Raises `Invalid`, with the line, for a source that does not compile."""
        async with self._checking:
            answer = await _child("check", source)
        if answer is None:
            raise Invalid(
                f"train.py takes more than {CPU_SECONDS} s or {MEMORY_BYTES >> 20} MiB to compile:"
                " nest less. Each `finally` within a `finally` doubles the work."
            )
        if not answer:
            return
        line, message, text = ast.literal_eval(answer)
        if line is None:
            raise Invalid(f"train.py cannot be parsed: {message}")
        # The same text may be right in a newer Python.
        why = f"train.py line {line}: {message} (read as Python {_PYTHON})"
        raise Invalid(why, line=line, text=text)

    async def diff(self, before_id: str, before: str, after_id: str, after: str) -> str:
        """The unified diff of two experiments' sources. Raises `TooLarge`."""
        key = (before_id, after_id)
        async with self._comparing:
            if key not in self._diffs:
                self._diffs[key] = await _child("diff", before, after, before_id, after_id)
            self._diffs.move_to_end(key)
            while len(self._diffs) > _DIFFS_KEPT:
                self._diffs.popitem(last=False)
            found = self._diffs[key]
        if found is None:
            raise TooLarge(
                f"Comparing {before_id} with {after_id} takes more than {CPU_SECONDS} s: read both"
                " sources (/api/experiment/ID/train.py) and compare them yourself."
            )
        return found


async def _child(verb: str, first: str, second: str = "", *names: str) -> str | None:
    """The child's answer; None if it took more than its limits."""
    data = first.encode()
    limits = (str(CPU_SECONDS), str(MEMORY_BYTES))
    command = [sys.executable, "-I", "-S", "-W", "ignore", str(_CHILD), *limits, verb]
    try:
        ended = await anyio.run_process(
            [*command, str(len(data)), *names], input=data + second.encode(), check=False
        )
    except OSError as error:
        raise Unavailable(f"Cannot start Python to read sources: {error}.") from error
    if ended.returncode == 0:
        return ended.stdout.decode()
    said = ended.stderr.decode(errors="replace").splitlines()[-1:]
    logger.warning("%s ended with %d: %s", verb, ended.returncode, said)
    return None
