"""A tag that keeps by `race`. What the rule says of a run is taken as given, and the product's own
audit recomputes it; what is counted from that is counted here."""

from dataclasses import dataclass, field

from tests.oracle.search import LEASED, Report, Run, Tag, Verdict

TRAINED = ("keep", "discard", "candidate", "repeat")


@dataclass(eq=False)
class RaceTag(Tag):
    """`trained` are the runs in the order in which their trainings ended, `decided` in that of
    their verdicts: a candidate's comes later."""

    champion: str | None = None
    estimate: float | None = None
    estimates: dict[str, float] = field(default_factory=dict)  # what was believed of each keep
    trained: list[Run] = field(default_factory=list)

    @property
    def best(self) -> Run | None:
        return next((run for run in self.trained if run.id == self.champion), None)

    @property
    def best_value(self) -> float | None:
        return self.estimate

    def kept_as(self, run: Run) -> float | None:
        return self.estimates.get(run.id)

    @property
    def streak(self) -> int:
        streak = 0
        for run in self.trained:
            if run.status in TRAINED:
                streak = 0
            elif run.judged:
                streak += 1
        return streak

    def follow(self, runs: list[Run]) -> dict[str, str]:
        """What the rule has queued and is not over. Nobody else queues repeats here."""
        return {
            run.id: f"{run.repeat_of or 'merge'} {run.seed}"
            for run in runs
            if run.state in ("queued", *LEASED) and (run.repeat_of or run.category == "merge")
        }

    def train(self, run: Run, report: Report, given: Verdict) -> None:
        """The training of a run ended. `given` is what the rule says of it by now."""
        run.report = report
        self.trained.append(run)
        if report.status != "completed":
            self._fail(run, report)
        else:
            said = {"experiment_id": run.id, "status": run.status, "val_bpb": run.value}
            run.verdict = given | said

    def settle(self, run: Run, near: float | None) -> None:
        """The verdict on a run."""
        run.state, run.near = "decided", near if run.status == "discard" else None
        self.decided.append(run)
        self._judged(run)
