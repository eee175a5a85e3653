"""What agents were promised and told.

The service's answers are noted as they come. A verdict that differs from one told before is found
at once. The audit checks that everything acknowledged was decided.
"""

from typing import Any

from bench.chaos.violations import Findings

Verdict = dict[str, Any]


class Promises:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        # Every experiment that the service has acknowledged, and every one seen to be decided.
        self.acknowledged: set[str] = set()
        self.decided: set[str] = set()
        self.verdicts: dict[str, Verdict] = {}

    @property
    def open(self) -> int:
        """About how many experiments wait or run: a decision may be seen before its experiment's
        acknowledgement."""
        return len(self.acknowledged) - len(self.decided)

    def acknowledge(self, experiment_id: str) -> None:
        if experiment_id in self.acknowledged:
            self._findings.add("answers", f"{experiment_id} was acknowledged to two requests")
        self.acknowledged.add(experiment_id)

    def note_verdict(self, experiment_id: str, verdict: Verdict | None) -> None:
        """A verdict as an answer gave it; None where there was none yet. Its digest is left out: it
        is made for each answer, from a best that changes."""
        if verdict is None:
            return
        verdict = {name: value for name, value in verdict.items() if name != "digest"}
        first = self.verdicts.setdefault(experiment_id, verdict)
        if first != verdict:
            self._findings.add("verdict-changed", f"{experiment_id}: {first} and later {verdict}")
