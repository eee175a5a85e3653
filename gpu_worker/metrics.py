"""What a run's output says about its result: pure functions from bytes to values.

The result is the last block of `key: value` lines after a line `---`, in the last MiB of output.
Where prepare.py has recorded what it measured, only blocks with a measured val_bpb count, so that
the output of a library is not taken for the result; train.py itself can forge one. Broken UTF-8,
colours, rewritten lines (`\\r`) and lines of any length are read. curve.py reads the learning
curve; report.py decides if a run with a result was a success.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise

from orchestrator import schemas

WINDOW_BYTES = 1024 * 1024
ERROR_CHARACTERS = 2000
_ERROR_WINDOW_BYTES = 64 * 1024
_BLOCK_LINES = 64
_LINE_CHARACTERS = 1000
_MAXIMUM = 2.0**53  # what an integer in JSON holds exactly

_ANSI = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]")
LINE_END = re.compile(rb"[\r\n]+")
_KEY = re.compile(r"[A-Za-z_]\w*")
# Commas only between whole groups of thousands: `0,997` is no 997, and `1_3.3` no 13.3.
_NUMBER = re.compile(
    r"[+-]?(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d{1,4})?",
    re.ASCII | re.IGNORECASE,
)
_PROGRESS = re.compile(r"step\s+\d.*\bloss\s*:", re.IGNORECASE)

# The block's key -> the metric's name. They differ only in the M of millions: `total_tokens_M`.
_OPTIONAL_METRICS = {
    re.sub("_m$", "_M", name): name for name in schemas.Metrics.model_fields if name != "val_bpb"
}
_COUNTS = ("num_steps", "depth")
_MANY_PASSES = 5  # as in prepare.py, which a worker does not import


@dataclass(frozen=True)
class Output:
    """The end of a run's output: metrics, or the problem that explains why there are none."""

    metrics: schemas.Metrics | None
    problem: str | None
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)


def read(tail: bytes, measures: Sequence[float] = (), *, required: bool = False) -> Output:
    """Find and check the result block of `tail`, the last MiB of a run's output: the last block, or
    the last that agrees with one of prepare.py's `measures`. With `required` there must be one."""
    blocks = _blocks(lines(tail))
    if not blocks:
        return Output(None, "train.py ended without a result block (`---`, then `val_bpb: …`)")
    warnings: list[str] = []
    if len(blocks) > 1:
        which = "the last one that prepare.py measured" if measures else "the last one"
        warnings.append(f"train.py printed {len(blocks)} result blocks; {which} counts")
    measured_blocks = [block for block in blocks if _agrees(block.get("val_bpb", ""), measures)]
    block = (measured_blocks or blocks)[-1]
    if "val_bpb" not in block:
        return Output(None, "the last result block has no val_bpb", warnings, block)
    val_bpb = number(block["val_bpb"])
    if val_bpb is None or not 0 < val_bpb <= schemas.MAX_VAL_BPB:
        problem = f"val_bpb is {block['val_bpb'][:40]!r}: no finite number above 0, up to 1e6"
        return Output(None, problem, warnings, block)
    if required and not measures:
        problem = f"val_bpb is {val_bpb:.6f}, but evaluate_bpb of prepare.py has not been called"
        return Output(None, problem, warnings, block)
    if measures and not measured_blocks:
        values = ", ".join(f"{measure:.6f}" for measure in measures[-3:])
        problem = f"val_bpb is {val_bpb:.6f}, but evaluate_bpb of prepare.py measured {values}"
        if _last_digit(block["val_bpb"]) > -3:
            problem += "; print 6 decimals"
        return Output(None, problem, warnings, block)
    metrics = schemas.Metrics(val_bpb=val_bpb, **_optional_metrics(block, warnings))
    if (passes := number(block.get("epoch", "")) or 0) >= _MANY_PASSES:
        warnings.append(
            f"it read its training text {passes:.0f} times, and learned it by heart: prepare.py "
            "--num-shards brings more of climbmix"
        )
    return Output(metrics, None, warnings, block)


def measured(text: bytes) -> list[float]:
    """The measures that prepare.py has written, one per line; other lines are skipped."""
    found = (number(line.decode(errors="replace")) for line in text.split(b"\n"))
    return [value for value in found if value is not None]


def _agrees(printed: str, measures: Sequence[float]) -> bool:
    """True if the figure is a measure rounded to its last digit, the 3rd to 6th decimal."""
    value = number(printed)
    if value is None:
        return False
    tolerance = 0.51 * 10.0 ** min(-3, max(-6, _last_digit(printed)))
    return any(abs(value - measure) <= tolerance for measure in measures)


def _last_digit(printed: str) -> int:
    """The power of ten of a number's last digit: -6 for 0.997900 and for 9.97900e-01."""
    return int(Decimal(_plain(printed)).as_tuple().exponent)


def lines(output: bytes) -> list[str]:
    """The lines of `output` as text, without colours and empty lines; long ones are cut."""
    pieces = LINE_END.split(_ANSI.sub(b"", output[-WINDOW_BYTES:]))
    texts = (piece[: 4 * _LINE_CHARACTERS].decode(errors="replace") for piece in pieces)
    return [text[:_LINE_CHARACTERS] for text in texts if text.strip()]


def _blocks(output: list[str]) -> list[dict[str, str]]:
    """Every `---` with at least one entry below it, in order of appearance."""
    starts = [index for index, line in enumerate(output) if line.rstrip() == "---"]
    blocks = []
    for start, end in pairwise([*starts, len(output)]):
        entries: dict[str, str] = {}
        for line in output[start + 1 : min(end, start + 1 + _BLOCK_LINES)]:
            key, colon, value = (part.strip() for part in line.partition(":"))
            if colon and _KEY.fullmatch(key):
                entries.setdefault(key, value)
        if entries:
            blocks.append(entries)
    return blocks


def number(text: str) -> float | None:
    """A finite number; groups of thousands and a percent sign are allowed."""
    plain = _plain(text)
    return float(plain) if plain and math.isfinite(float(plain)) else None


def _plain(text: str) -> str:
    """The number as Python reads it; empty if it is none."""
    text = text.strip().removesuffix("%").rstrip()
    return text.replace(",", "") if _NUMBER.fullmatch(text) else ""


def _optional_metrics(block: dict[str, str], warnings: list[str]) -> dict[str, float | int | None]:
    found: dict[str, float | int | None] = {}
    for key, name in _OPTIONAL_METRICS.items():
        if key not in block:
            continue
        value = number(block[key])
        if value is None or not 0 <= value <= _MAXIMUM:
            warnings.append(f"{key} is {block[key][:40]!r}, which is no usable number")
        else:
            found[name] = int(value) if name in _COUNTS else value
    return found


def failure(tail: bytes) -> str:
    """How a failed run's output ends: its last traceback or FAIL line, else its last 20 lines.

    At most ERROR_CHARACTERS characters, the end of them if there were more.
    """
    output = [line for line in lines(tail[-_ERROR_WINDOW_BYTES:]) if not _PROGRESS.match(line)]
    begins = ("Traceback (most recent call last)", "FAIL")
    starts = [index for index, line in enumerate(output) if line.startswith(begins)]
    start = starts[-1] if starts else -20
    return "\n".join(output[start:])[-ERROR_CHARACTERS:]


def out_of_gpu_memory(tail: bytes) -> bool:
    text = tail[-_ERROR_WINDOW_BYTES:]
    return b"CUDA out of memory" in text or b"OutOfMemoryError" in text


def missing_module(tail: bytes) -> bool:
    """True if the run ended with an import of a module that is not there."""
    last = failure(tail).rpartition("\n")[2]
    return last.startswith("ModuleNotFoundError: ")
