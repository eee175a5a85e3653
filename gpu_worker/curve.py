"""The learning curve, from the progress lines of a run's output as they come. Pure.

A progress line, usually rewritten with `\\r`, looks like

    step 00123 ( 41.0%) | loss: 3.456789 | lrm: 1.00 | dt: 315ms | tok/sec: 1,664,000 | …

Step, percent and loss are read in any order and spacing. Lines without all three, or with a loss
that is not finite, are skipped.
"""

import re

from gpu_worker.metrics import LINE_END, number
from orchestrator.schemas import CurvePoint

POINTS_SENT = 256
_POINTS_KEPT = 4096
_LINE_BYTES = 4096

# No two repetitions that may share characters stand side by side: each search is linear.
_STEP = re.compile(rb"\bstep(?:\s*[:=])?\s*(\d{1,15})", re.IGNORECASE)
_PERCENT = re.compile(rb"(\d{1,3}(?:\.\d*)?)\s*%")
_LOSS = re.compile(rb"\bloss\s*[:=]\s*([^\s|,;]+)", re.IGNORECASE)


class Curve:
    """Takes output in pieces of any size, in bounded memory."""

    def __init__(self) -> None:
        self._points: list[CurvePoint] = []
        self._rest = b""
        self._stride = 1
        self._seen = 0
        self._last: CurvePoint | None = None

    def feed(self, output: bytes) -> None:
        *whole, rest = LINE_END.split(self._rest + output)
        # A longer line is no progress line; its beginning is enough to see that.
        self._rest = rest[:_LINE_BYTES]
        for point in filter(None, (read_point(line[:_LINE_BYTES]) for line in whole)):
            self._last = point
            if self._seen % self._stride == 0:
                self._points.append(point)
            self._seen += 1
            if len(self._points) > _POINTS_KEPT:
                del self._points[1::2]
                self._stride *= 2

    def close(self) -> None:
        """The output has ended, so its last line is complete."""
        self.feed(b"\n")

    def points(self) -> list[CurvePoint]:
        """At most POINTS_SENT points, evenly spread, with the first and the last."""
        if self._last is None:
            return []
        points = self._points if self._points[-1] is self._last else [*self._points, self._last]
        return thin(points, POINTS_SENT)


def read_point(line: bytes) -> CurvePoint | None:
    step, percent, loss = _STEP.search(line), _PERCENT.search(line), _LOSS.search(line)
    value = number(loss[1].decode(errors="replace")) if loss else None
    if step is None or percent is None or value is None:
        return None
    return CurvePoint(step=int(step[1]), percent=float(percent[1]), loss=value)


def thin(points: list[CurvePoint], limit: int) -> list[CurvePoint]:
    """At most `limit` >= 2 of the points, evenly spread, with the first and the last."""
    if len(points) <= limit:
        return points
    last = len(points) - 1
    return [points[round(index * last / (limit - 1))] for index in range(limit)]
