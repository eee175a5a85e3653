"""What the agents were promised and told, and what became of it: the other half of every check.

The service's answers go in as they come. A verdict that differs from one told before is found here
at once; whether everything that was promised came true is the audit's to say.
"""

from typing import Any

from bench.chaos.violations import Findings

Verdict = dict[str, Any]


class Ledger:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        # Every experiment that the service has acknowledged, and every one seen to be decided.
        self.acknowledged: set[str] = set()
        self.decided: set[str] = set()
        self.told: dict[str, Verdict] = {}

    @property
    def open(self) -> int:
        """About how many experiments wait or run: a decision may be seen before its experiment's
        acknowledgement."""
        return len(self.acknowledged) - len(self.decided)

    def acknowledge(self, experiment_id: str) -> None:
        if experiment_id in self.acknowledged:
            self._findings.add("answers", f"{experiment_id} was acknowledged to two requests")
        self.acknowledged.add(experiment_id)

    def hear(self, experiment_id: str, verdict: Verdict | None) -> None:
        """A verdict as some answer gave it; None where there was none yet. Its digest is made anew
        for each answer, from a best that moves on."""
        if verdict is None:
            return
        verdict = {name: value for name, value in verdict.items() if name != "digest"}
        first = self.told.setdefault(experiment_id, verdict)
        if first != verdict:
            self._findings.add("verdict-changed", f"{experiment_id}: {first} and later {verdict}")
