"""Finds why a run failed in what it printed: exception and frames, or its last lines. Pure.

The run may have invented all of it. The text is sanitized; whatever shows it has to say that it is
the run's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.rules import sanitize
from orchestrator.schemas import Frame

FRAMES = 3
_LAST_LINES = 3
_TEXT_BYTES = 16 * 1024
_LINE_BYTES = 400

_TRACEBACK = "Traceback (most recent call last)"
_FRAME = re.compile(r'\s+File "([^"]*)", line (\d{1,9})(?:, in (.*))?$')
_EXCEPTION = re.compile(r"([A-Za-z_][\w.]{0,200})(?::\s?(.*))?$")
# How an error begins if the worker knows what ended the run (gpu_worker/report.py).
_ENDED_BY = ("killed by ", "stopped after ")
# The worker's first line for any other failure, after what else it knows of it.
_EXIT_CODE = re.compile(r"(?:.*; )?exit code -?\d+$")
# Progress, and a result block's lines, say nothing about a failure.
# Two searches in turn: one pattern with `.*` between them would be quadratic.
_STEP = re.compile(r"step(?:\s*[:=])?\s*\d", re.IGNORECASE)
_LOSS = re.compile(r"\bloss\b", re.IGNORECASE)
_RESULT = re.compile(r"---$|[a-z]\w*: [-+\d.,e%]+$|(profile|device|torch_version): ")


@dataclass(frozen=True)
class Failure:
    """How a run ended, in its own words."""

    exception: str = ""
    message: str = ""
    frames: tuple[Frame, ...] = ()
    last_words: str = ""


def read(*sources: str | bytes) -> Failure:
    """The last traceback, or else `FAIL:` line, of the first source that has one; else the last
    lines of the first source that has any."""
    texts = [_telling(source) for source in sources]
    for lines in texts:
        if found := _last_failure(lines):
            return found
    words = next((lines for lines in texts if lines), [])
    return Failure(last_words="\n".join(words[-_LAST_LINES:]))


def headline(error: str) -> str:
    """The most telling line of a recorded error: the first if the worker wrote there what ended the
    run, else the run's exception, its FAIL line, or the exit code and the last line."""
    lines = error.strip().splitlines() or [""]
    if lines[0].startswith(_ENDED_BY):
        return lines[0]
    said = read(error)
    message = said.message.partition("\n")[0]
    if said.exception:
        return f"{said.exception}: {message}" if message else said.exception
    if message:
        return message
    last = said.last_words.rpartition("\n")[2]
    if _EXIT_CODE.match(lines[0]) and last != lines[0]:
        return f"{lines[0]}: {last}"
    return last or lines[-1]


def _telling(source: str | bytes) -> list[str]:
    return [line for line in _lines(source) if not (_is_progress(line) or _RESULT.match(line))]


def _is_progress(line: str) -> bool:
    step = _STEP.search(line)
    return step is not None and _LOSS.search(line, step.end()) is not None


def _lines(source: str | bytes) -> list[str]:
    text = sanitize.block(source, _TEXT_BYTES, end=True)
    return [line[:_LINE_BYTES] for line in text.split("\n") if line.strip()]


def _last_failure(lines: Sequence[str]) -> Failure | None:
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index].strip()
        if line.startswith("FAIL"):
            return Failure(message=line.removeprefix("FAIL").lstrip(": "))
        if _TRACEBACK in line:
            return _traceback(lines[index + 1 :])
    return None


def _traceback(lines: Sequence[str]) -> Failure:
    frames: list[Frame] = []
    for index, line in enumerate(lines):
        if match := _FRAME.match(line):
            file, line_number, function = match.groups(default="")
            code = _code_below(lines, index)
            frames.append(Frame(file=file, line=int(line_number), function=function, code=code))
        elif not line[0].isspace() and (match := _EXCEPTION.match(line)):
            rest = [m for m in lines[index + 1 : index + 3] if not m.startswith(_TRACEBACK)]
            message = "\n".join([match[2] or "", *rest])
            return Failure(match[1], message.strip(), _innermost(frames))
    return Failure(frames=_innermost(frames), last_words="\n".join(lines[-_LAST_LINES:]))


def _code_below(lines: Sequence[str], index: int) -> str:
    """The source line below a frame, if the traceback shows one."""
    line = lines[index + 1] if index + 1 < len(lines) else ""
    return line.strip() if line[:1].isspace() and not _FRAME.match(line) else ""


def _innermost(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """The innermost frames, outermost first, and always the last one in train.py: it called the
    library that failed."""
    inner = list(frames[-FRAMES:])
    own = [frame for frame in frames if frame.file.rpartition("/")[2] == "train.py"]
    if own and own[-1] not in inner:
        inner = [own[-1], *inner[1:]]
    return tuple(inner)
