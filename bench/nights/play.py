"""Plays a night by a keep rule of the product, on N GPUs whose runs all take equally long."""

from collections import deque
from dataclasses import dataclass, replace
from itertools import cycle
from typing import NamedTuple, Protocol

from bench.nights.world import Night, Variant
from orchestrator.decisions import Decision, RunResult, Snapshot
from orchestrator.domain import Counts, Metrics, Tag
from orchestrator.rules import greedy_merge, race
from orchestrator.rules.decide import decide
from orchestrator.rules.race.state import FIRST_SEED
from orchestrator.rules.strategy import INITIAL


class Job(NamedTuple):
    """A run under way."""

    variant: Variant
    seed: int = FIRST_SEED
    repeat: bool = False
    merged: tuple[Variant, ...] = ()
    check: str | None = None


def finished(job: Job, value: float) -> race.FinishedRun:
    variant = job.variant
    return race.FinishedRun(
        source=variant.name,
        seed=job.seed,
        value=value,
        base=variant.parent and variant.parent.name,
        repeat=job.repeat,
        merged_from=tuple(part.name for part in job.merged),
    )


@dataclass
class Score:
    """What came of a night. A keep is false if it is no better than what it replaced; under `race`
    only confirmed keeps count. `lost` are the effects of good ideas whose parent was replaced while
    they ran; `recovered` those of them that are in the last champion."""

    gain: float = 0.0
    optimism: float = 0.0
    keeps: int = 0
    false: int = 0
    repeats: int = 0
    lost: float = 0.0
    recovered: float = 0.0


class Player:
    """One rule in one night."""

    def __init__(self, night: Night, gpus: int) -> None:
        self.night, self.gpus = night, gpus
        self.score = Score()
        self._old: dict[int, float] = {}

    def late(self, variant: Variant) -> None:
        """Note a run whose parent is no longer the champion."""
        for number in variant.own:
            effect = self.night.effects[number]
            if effect > 0:
                self._old[number] = effect

    def end(self, champion: Variant, estimate: float) -> Score:
        score = self.score
        score.gain = -champion.value
        score.optimism = 1.0 + champion.value - estimate
        score.lost = sum(self._old.values())
        score.recovered = sum(e for number, e in self._old.items() if number in champion.ideas)
        return score

    def kept(self, variant: Variant, before: Variant) -> None:
        self.score.keeps += 1
        self.score.false += variant.value >= before.value


class Rule(Protocol):
    def start(self, running: deque[Job]) -> Job: ...
    def decide(self, job: Job, value: float) -> None: ...
    def finish(self) -> Score: ...


class Greedy(Player):
    """The product's `decide`."""

    def __init__(self, night: Night, gpus: int) -> None:
        super().__init__(night, gpus)
        self._snapshot = Snapshot(Tag("night", 0, 300.0, 0.0, 3), Counts(), INITIAL, 0, ())
        self._best = night.baseline
        self._readings: dict[int, float] = {}

    def start(self, running: deque[Job]) -> Job:
        if not self._readings and not running:
            return Job(self._best)
        return Job(self.night.idea(self._best))

    def decide(self, job: Job, value: float) -> None:
        variant, best, first = job.variant, self._best, not self._readings
        self._readings[variant.number] = value
        decision = self.judged(job, value)
        if variant.parent is not None and variant.parent is not best:
            self.late(variant)
        if decision.improved:
            if not first:
                self.kept(variant, best)
            self._best = variant
            tag = replace(self._snapshot.tag, best_val_bpb=value)
            self._snapshot = replace(self._snapshot, tag=tag)

    def judged(self, _: Job, value: float) -> Decision:
        return decide(self._snapshot, RunResult("completed", Metrics(value)))

    def finish(self) -> Score:
        return self.end(self._best, self._readings[self._best.number])


class GreedyMerge(Greedy):
    """The product's `greedy_merge`."""

    def __init__(self, night: Night, gpus: int) -> None:
        super().__init__(night, gpus)
        self._state = race.State()
        self._variants: dict[str, Variant] = {}

    def start(self, running: deque[Job]) -> Job:
        merge_running = any(job.merged for job in running)
        do = race.next_merge(self._state, merge_running=merge_running)
        if do is not None:
            parts = tuple(self._variants[name] for name in do.sources)
            merged = self.night.merge(self._best, parts)
            if merged is not None:
                return Job(merged, merged=parts)
            self._state = race.conflicted(self._state, do.sources)
        return super().start(running)

    def judged(self, job: Job, value: float) -> Decision:
        result = RunResult("completed", Metrics(value))
        self._variants[job.variant.name] = job.variant
        decision = greedy_merge.decide(self._snapshot, result, self._state, finished(job, value))
        self._state = decision.state
        return decision


class Race(Player):
    """The product's `step` and `next_run`."""

    def __init__(self, night: Night, gpus: int) -> None:
        super().__init__(night, gpus)
        self._state = race.State()
        self._variants = {self.night.baseline.name: self.night.baseline}
        self._confirmed = self.night.baseline

    def start(self, running: deque[Job]) -> Job:
        if not self._state.runs and not running:
            return Job(self.night.baseline)
        merge_running = any(job.merged for job in running)
        do = race.next_run(
            self._state,
            _under_way(running),
            self.gpus,
            ideas=True,
            merge_running=merge_running,
            checks=[job.check for job in running if job.check],
        )
        if do is not None and do.kind == "repeat":
            self.score.repeats += 1
            return Job(self._variants[do.sources[0]], do.seed, repeat=True)
        champion = self._champion
        if do is not None and do.kind == "merge":
            parts = tuple(self._variants[name] for name in do.sources)
            merged = self.night.merge(champion, parts)
            if merged is not None:
                self._variants[merged.name] = merged
                return Job(merged, merged=parts)
            self._state = race.conflicted(self._state, do.sources)
        variant = self.night.idea(champion)
        self._variants[variant.name] = variant
        return Job(variant)

    @property
    def _champion(self) -> Variant:
        champions = self._state.champions
        return self._variants[champions[-1].id] if champions else self.night.baseline

    def decide(self, job: Job, value: float) -> None:
        variant, champion = job.variant, self._champion
        if not job.repeat and variant.parent is not None and variant.parent is not champion:
            self.late(variant)
        begun = bool(self._state.champions)
        self._state, verdicts = race.step(self._state, self.run(job, value))
        for verdict in verdicts:
            if begun and verdict.status == "keep" and verdict.confirmed:
                kept = self._variants[verdict.source]
                self.kept(kept, self._confirmed)
                self._confirmed = kept

    def run(self, job: Job, value: float) -> race.FinishedRun:
        return finished(job, value)

    def finish(self) -> Score:
        return self.end(self._champion, self._state.champions[-1].belief.mean)


def _under_way(running: deque[Job]) -> dict[str, list[int]]:
    seeds: dict[str, list[int]] = {}
    for job in running:
        seeds.setdefault(job.variant.name, []).append(job.seed)
    return seeds


class RaceOfTwoModels(Race):
    """Every second GPU is of a model that reads higher; the product's `check` too. The first run to
    start is the first to end, so runs start and end on the GPUs in turn."""

    OFFSET = 0.05

    def __init__(self, night: Night, gpus: int) -> None:
        super().__init__(night, gpus)
        self._starts, self._ends = cycle(range(gpus)), cycle(range(gpus))
        self._ended: dict[int, race.FinishedRun] = {}

    def start(self, running: deque[Job]) -> Job:
        gpu, checks = next(self._starts), [job.check for job in running if job.check]
        ended = self._ended.get(gpu)
        do = ended and race.check(self._state, ended, _under_way(running), checks)
        if do is None:
            return super().start(running)
        self.score.repeats += 1
        return Job(self._variants[do.sources[0]], do.seed, repeat=True, check=do.check)

    def run(self, job: Job, value: float) -> race.FinishedRun:
        gpu = next(self._ends)
        run = super().run(job, value + self.OFFSET * (gpu % 2))
        run = self._ended[gpu] = replace(run, gpu=str(gpu), model=_model(gpu))
        return run


def _model(gpu: int) -> str:
    return "second" if gpu % 2 else "first"


TABLE = {"greedy": Greedy, "greedy+merge": GreedyMerge, "race": Race}
RULES = TABLE | {"race-of-two-models": RaceOfTwoModels}


def play(rule: str, night: Night, gpus: int, runs: int) -> Score:
    player: Rule = RULES[rule](night, gpus)
    running: deque[Job] = deque()
    for started in range(runs + gpus):
        if started < runs:
            running.append(player.start(running))
        if len(running) == gpus or started >= runs:
            if not running:
                break
            job = running.popleft()
            player.decide(job, night.read(job.variant, job.seed))
    return player.finish()
