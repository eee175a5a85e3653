"""The keep rule `greedy+merge`: greedy's verdicts, and lost wins wait for a merge. Pure.

A win is lost if its change is not in the best: its parent was replaced while it ran, or it was the
best itself and a run from an older parent replaced it. The state is that of a race that believes
what it reads: the newest keeps with their readings, and the gains of the wins that wait.
"""

from dataclasses import replace

from orchestrator.decisions import RunResult, Snapshot
from orchestrator.rules import merging
from orchestrator.rules.decide import decide as decide_greedy
from orchestrator.rules.race.beliefs import Belief, Reading
from orchestrator.rules.race.decide import RaceDecision
from orchestrator.rules.race.state import Champion, FinishedRun, Source, State
from orchestrator.rules.race.verdicts import CHAMPIONS, conflicted, with_waiting


def decide(snapshot: Snapshot, result: RunResult, state: State, run: FinishedRun) -> RaceDecision:
    """Judge `result` of `run` by the tag alone; `state` only says what waits then."""
    decision = decide_greedy(snapshot, result)
    state = conflicted(state, run.merged_from)  # what was merged waits no longer
    if run.value is not None:
        state = _after(state, run, run.value, improved=decision.improved)
    gain, why = state.waiting.get(run.source), None
    if gain is not None:
        why = (
            f"{gain.mean:.4f} better than {run.base}, from which it was made and which is no longer"
            " the best: it waits for a merge"
        )
    return RaceDecision(**vars(decision) | {"why": why}, run=run, state=state)


def _after(state: State, run: FinishedRun, value: float, *, improved: bool) -> State:
    source = Source(run.source, run.base, (Reading(run.seed, value),))
    champion = Champion(source, Belief(value, 0.0))
    if state.champions and state.parent(run.base) is not state.champions[-1]:
        best = _reading(state, state.champions[-1])
        win = merging.waits(_reading(state, champion), best, improved=improved)
        if win is not None:
            state = with_waiting(state, win.experiment_id, Belief(win.gain, 0.0))
    if improved:
        state = replace(state, champions=(*state.champions, champion)[-CHAMPIONS:])
    return state


def _reading(state: State, champion: Champion) -> merging.Reading:
    """What it and its parent read. One without a known parent, as the baseline, gained nothing."""
    value = champion.belief.mean
    before = [one.belief.mean for one in state.champions if one.id == champion.source.base]
    return merging.Reading(champion.id, value, before[0] if before else value)
