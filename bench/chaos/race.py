"""What must hold of a tag whose keep rule is `race`, beside what the product's audit recomputes.

Beliefs and verdicts are that audit's, counters are the oracle's. Here: which repeats were queued.
"""

from collections import Counter
from dataclasses import dataclass

from bench.chaos import stub
from bench.chaos.audit import Records, queued_by_rule
from bench.chaos.violations import Findings
from orchestrator.files import Files
from orchestrator.ids import created_us_of
from orchestrator.rules.race import next_run
from orchestrator.rules.race.state import from_json
from tests.oracle.race import RaceTag
from tests.oracle.search import Run

_REPEATS = 0.4
_BASELINE_RUNS = 5


@dataclass(frozen=True)
class Story:
    """The runs of a tag with the times at which they began and ended, all by Redis' clock."""

    tag: RaceTag
    runs: list[Run]
    begun: dict[str, int]
    ended: dict[str, int]

    @classmethod
    def of(cls, records: Records, tag: RaceTag) -> "Story":
        begun, ended, runs = dict[str, int](), dict[str, int](), records.model.runs_of(tag)
        for run in runs:
            stored = records.run(run)
            attempts = records.attempts(run)
            ended[run.id] = int(stored.get("measured") or stored.get("finished") or 0)
            begun[run.id] = int(attempts[0]["claimed"]) if attempts else ended[run.id]
        return cls(tag, runs, begun, ended)

    def ideas_queued(self, at: int) -> int:
        return sum(
            created_us_of(run.id) < at < self.begun[run.id]
            for run in self.runs
            if not queued_by_rule(run)
        )

    def had(self, at: int) -> list[Run]:
        """Runs that were over, under way, or queued by the rule. One that ended without having been
        had is none."""
        return [
            run
            for run in self.runs
            if (created_us_of(run.id) if queued_by_rule(run) else self.begun[run.id]) <= at
            and (self.ended[run.id] > at or was_had(run))
        ]


def was_had(run: Run) -> bool:
    """True if it says something, of the search or of another run's source."""
    return run.report is not None and (run.judged or run.status == "repeat")


def check(records: Records, gpus: int, findings: Findings) -> None:
    """Each tag that races."""
    for tag in records.model.tags.values():
        if isinstance(tag, RaceTag):
            story = Story.of(records, tag)
            check_seeds(story, findings)
            check_share(story, gpus, findings)
            check_rest(records, tag, gpus, findings)


def check_seeds(story: Story, findings: Findings) -> None:
    """No source ran twice with one seed, unless the first of the two was not had."""
    for key, times in Counter(run.source_key for run in story.runs if was_had(run)).items():
        if times > 1:
            findings.add("race", f"{story.tag.name}: {key} ran {times} times")


def check_share(story: Story, gpus: int, findings: Findings) -> None:
    """While every GPU could have an idea, two of five runs are repeats, and a few that were under
    way when their source was settled. The first ones of the baseline are no matter of this."""
    of_baseline = 0
    for repeat in (run for run in story.runs if run.repeat_of):
        at = created_us_of(repeat.id)
        if repeat.repeat_of == min(run.id for run in story.runs):
            of_baseline = min(of_baseline + 1, 2 * _BASELINE_RUNS)
        if story.ideas_queued(at) < 2 * gpus:
            continue
        had = story.had(at)
        repeats = sum(run.repeat_of is not None for run in had) - of_baseline
        if repeats > _REPEATS * len(had) + gpus:
            findings.add("race", f"{repeat.id}: {repeats} repeats of {len(had)} runs")


def check_rest(records: Records, tag: RaceTag, gpus: int, findings: Findings) -> None:
    """Nothing is left that the rule would do with idle GPUs."""
    base = f"{{{tag.name}}}:"
    for candidate in records.members(f"{base}status:candidate"):
        findings.add("race", f"{candidate} is still a candidate")
    for experiment_id, what in records.stored.get(f"{base}follow", {}).items():
        findings.add("race", f"{experiment_id} ({what}) is still to be followed")
    do = next_run(from_json(records.stored.get(f"{base}race")), {}, gpus, ideas=False)
    if do is not None and not tag.paused:
        findings.add("race", f"{tag.name}: {do} is left to do")


def summary(records: Records, files: Files) -> str:
    """One line on each tag that races."""
    lines = []
    for tag in records.model.tags.values():
        if not isinstance(tag, RaceTag) or tag.best is None:
            continue
        runs = records.model.runs_of(tag)
        repeats = sum(run.repeat_of is not None for run in runs)
        merges = sum(run.category == "merge" and run.repeat_of is None for run in runs)
        true = stub.truth(files.source(tag.best.source or ""))
        lines.append(
            f"{tag.name}: {len(runs)} runs, {repeats} of them repeats, {merges} merges,"
            f" {len(tag.keeps)} keeps; the champion is estimated at {tag.estimate:.4f}, and is"
            f" {true:.4f}"
        )
    return "\n".join(lines)
