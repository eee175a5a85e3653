"""What agents were promised and told.

The service's answers are noted as they come. A verdict that differs from one told before is found
at once. The audit checks that everything acknowledged was decided.
"""

from typing import Any

from bench.chaos.violations import Findings

Verdict = dict[str, Any]


def told(verdict: Verdict) -> Verdict:
    """What of a verdict may not change. A digest is made for each answer, from a best that changes.
    Under the keep rule `race` later runs change the words and figures of a keep, not that it is
    one."""
    if "why" in verdict or verdict.get("status") == "repeat":
        return {name: verdict[name] for name in ("experiment_id", "status", "val_bpb")}
    return {name: value for name, value in verdict.items() if name != "digest"}


class Promises:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        # Every experiment that the service has acknowledged, and every one seen to be decided.
        self.acknowledged: set[str] = set()
        self.decided: set[str] = set()
        self.candidates: set[str] = set()  # their verdicts wait for repeats, which nobody asked for
        self.verdicts: dict[str, Verdict] = {}
        self._open: set[str] = set()

    @property
    def open(self) -> int:
        """How many of the experiments that were asked for wait or run."""
        return len(self._open)

    def decide(self, experiment_id: str) -> None:
        """It was seen to be decided; perhaps before its acknowledgement."""
        self.decided.add(experiment_id)
        self.candidates.discard(experiment_id)
        self._open.discard(experiment_id)

    def await_repeats(self, experiment_id: str) -> None:
        self.candidates.add(experiment_id)
        self._open.discard(experiment_id)

    def acknowledge(self, experiment_id: str) -> None:
        if experiment_id in self.acknowledged:
            self._findings.add("answers", f"{experiment_id} was acknowledged to two requests")
        self.acknowledged.add(experiment_id)
        if experiment_id not in self.decided | self.candidates:
            self._open.add(experiment_id)

    def note_verdict(self, experiment_id: str, verdict: Verdict | None) -> None:
        """A verdict as an answer gave it; None where there was none yet."""
        if verdict is None or verdict["status"] == "candidate":
            return
        verdict = told(verdict)
        first = self.verdicts.setdefault(experiment_id, verdict)
        if first != verdict:
            self._findings.add("verdict-changed", f"{experiment_id}: {first} and later {verdict}")
