"""Follows the event stream during the run, and finds what must never appear there.

A script appends its event in the same step in which it acts, so the stream has the order of what
happened. The stream is capped, and read faster than it grows.
"""

import asyncio
import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import redis.exceptions

from bench.chaos.promises import Promises
from bench.chaos.system import System
from bench.chaos.violations import Findings
from orchestrator.domain import KeepRule

EVENTS = "ar:events"
_BLOCK_MS = 500
_READ_AT_ONCE = 2000
# Far longer than any fault lasts.
_STALL_SECONDS = 30.0


@dataclass(frozen=True)
class Decided:
    """One decision, at its place in the stream."""

    experiment_id: str
    tag: str
    status: str
    val_bpb: float | None


class Observer:
    def __init__(
        self,
        system: System,
        promises: Promises,
        findings: Findings,
        racing: Collection[str] = (),
        keep_rule: KeepRule = "greedy",
    ) -> None:
        self.decisions: list[Decided] = []
        self.events = 0
        self.last_event = time.monotonic()
        self.stalled = asyncio.Event()
        self._system = system
        self._promises = promises
        self._findings = findings
        self._last = "0-0"
        self._last_decision = time.monotonic()
        self._racing = racing
        # Verdicts that may wait for a merge, and so get new words.
        self._reworded = ("discard", "keep") if keep_rule == "greedy+merge" else ("discard",)
        self._status: dict[str, str] = {}
        self._best: dict[str, float] = {}
        self._epochs: dict[str, int] = {}
        self._lease_of: dict[str, str] = {}  # experiment -> GPU
        self._taken_by: dict[str, str] = {}  # GPU -> experiment

    async def follow(self) -> None:
        """Read until cancelled; while Redis is away, wait."""
        while True:
            try:
                await self._read()
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
                await asyncio.sleep(0.1)

    async def watch_progress(self) -> None:
        """Note when nothing is decided for long although something is open, until cancelled."""
        while True:
            await asyncio.sleep(1)
            if self._promises.open <= 0:
                self._last_decision = time.monotonic()
            still = time.monotonic() - self._last_decision
            if still > _STALL_SECONDS:
                self._findings.add("stuck", f"{self._promises.open} open, none decided for long")
                self.stalled.set()

    async def catch_up(self) -> None:
        """Return once every event until now has been read."""
        newest = await self._system.direct.xrevrange(EVENTS, count=1)
        while newest and _order(self._last) < _order(newest[0][0]):
            await asyncio.sleep(0.01)

    async def _read(self) -> None:
        reply = await self._system.direct.xread(
            {EVENTS: self._last}, count=_READ_AT_ONCE, block=_BLOCK_MS
        )
        entries = reply[0][1] if reply else []
        for event_id, fields in entries:
            self._last = event_id
            self._handle(fields["type"], fields["tag"], fields["id"], json.loads(fields["data"]))
        if entries:
            self.last_event = time.monotonic()
        self.events += len(entries)

    def _handle(self, kind: str, tag: str, subject: str, data: Any) -> None:
        if kind == "claimed":
            self._claimed(subject, data["gpu_id"], int(data["epoch"]))
        elif kind == "queued":
            self._end_lease(subject)
        elif kind == "decided":
            self._end_lease(subject)
            self._decided(Decided(subject, tag, data["status"], _number(data.get("val_bpb"))))
        elif kind == "gpu" and data["state"] == "held":
            self._take(subject, data["experiment_id"])
        elif kind == "gpu" and data["state"] == "released":
            self._taken_by.pop(subject, None)

    def _claimed(self, experiment_id: str, gpu_id: str, epoch: int) -> None:
        if experiment_id in self._lease_of:
            other = self._lease_of[experiment_id]
            self._findings.add("two-leases", f"{experiment_id} leased by {other} and {gpu_id}")
        if epoch != self._epochs.get(experiment_id, 0) + 1:
            self._findings.add("two-leases", f"{experiment_id} leased again with epoch {epoch}")
        self._epochs[experiment_id] = epoch
        self._lease_of[experiment_id] = gpu_id
        self._take(gpu_id, experiment_id)

    def _take(self, gpu_id: str, experiment_id: str) -> None:
        other = self._taken_by.get(gpu_id)
        if other is not None:
            self._findings.add("two-leases", f"{gpu_id} given to {other} and {experiment_id}")
        self._taken_by[gpu_id] = experiment_id

    def _end_lease(self, experiment_id: str) -> None:
        gpu_id = self._lease_of.pop(experiment_id, None)
        if gpu_id is not None and self._taken_by.get(gpu_id) == experiment_id:
            del self._taken_by[gpu_id]

    def _decided(self, decision: Decided) -> None:
        experiment_id, before = decision.experiment_id, self._status.get(decision.experiment_id)
        again = before == decision.status and decision.status in self._reworded
        if again and decision.tag in self._racing:
            return  # it waited for a merge, and now its words say why it could not be merged
        if before not in (None, "candidate"):
            self._findings.add("decided-twice", f"{experiment_id}, now {decision.status}")
        self._status[experiment_id] = decision.status
        self._last_decision = time.monotonic()
        if decision.status == "candidate":
            self._promises.await_repeats(experiment_id)
            return
        self._promises.decide(experiment_id)
        self.decisions.append(decision)
        if decision.tag in self._racing:
            return  # its best is an estimate
        if decision.status == "keep" and decision.val_bpb is not None:
            best = self._best.get(decision.tag)
            if best is not None and decision.val_bpb >= best:
                self._findings.add(
                    "keep-order", f"{experiment_id} kept with {decision.val_bpb}, best was {best}"
                )
            self._best[decision.tag] = decision.val_bpb


def _order(event_id: str) -> tuple[int, int]:
    """An event's id, made comparable."""
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number)


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)
