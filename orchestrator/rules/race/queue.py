"""What a free GPU runs next under `race`. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import count

from orchestrator.rules import merging
from orchestrator.rules.race.drift import CHECK_RUNS
from orchestrator.rules.race.state import (
    BASELINE_RUNS,
    FIRST_SEED,
    FinishedRun,
    Next,
    Source,
    State,
)
from orchestrator.rules.race.verdicts import MOST_RUNS

REPEATS = 0.4  # of all runs, while agents have ideas
AT_ONCE = 3  # runs of one source under way

# Seeds under way by source, the oldest first. Repeats of what has failed or is settled are ENDED's.
ENDED = ""
Running = Mapping[str, Collection[int]]


def next_run(
    state: State,
    running: Running,
    gpus: int,
    *,
    ideas: bool,
    idle: bool = True,
    merge_running: bool = False,
    checks: Collection[str] = (),
) -> Next | None:
    """What to start now, or None if nothing is worth a run. `ideas` says if agents have any, `idle`
    if none has come for a while, `merge_running` if the first run of a merge is under way; `checks`
    are the GPUs and GPU models that repeats of the champion are about to check."""
    baseline = _baseline(state, running)
    if baseline is not None and baseline.runs + len(_of(baseline, running)) < BASELINE_RUNS:
        return _repeat(baseline, running)
    if not state.champions:
        return Next("idea") if ideas else None
    merge = next_merge(state, merge_running=merge_running)
    if merge is not None:
        return merge
    at_once = min(AT_ONCE, gpus)
    if not ideas or _may_repeat(state, running):
        source = _candidate(state, running, at_once, checks)
        if source is not None:
            return _repeat(source, running)
    if ideas:
        return Next("idea")
    if not idle or not _may_repeat(state, running):
        return None
    champion = state.champions[-1]
    most = MOST_RUNS if champion.confirmed else 2 * MOST_RUNS
    more = _size(champion.source, running) < most
    free = len(_of(champion.source, running)) < at_once
    return _repeat(champion.source, running) if more and free else None


def check(
    state: State, ended: FinishedRun, running: Running, under_way: Collection[str]
) -> Next | None:
    """A run of the champion on the GPU of a run that has just ended: on a model that it has not run
    on, to learn how that one reads; after CHECK_RUNS other runs, to see if the GPU has drifted, as
    soon as one more repeat is within their part of all runs.
    `under_way` are the models and GPUs that are about to be checked."""
    gpu, model, subject = ended.gpu, ended.model, None
    if gpu is None or not state.champions or state.champions[-1].source.unsettled:
        return None
    if model is not None and model not in state.offsets:
        subject = model
    elif state.unchecked.get(gpu, 0) >= CHECK_RUNS and _may_repeat(state, running):
        subject = gpu
    if subject is None or subject in under_way:
        return None
    return replace(_repeat(state.champions[-1].source, running), check=subject, gpu=gpu)


def next_merge(state: State, *, merge_running: bool) -> Next | None:
    """The merge of the best wins that wait; None if none does, or a merge is under way."""
    under_way = merge_running or any(one.merged_from for one in state.candidates.values())
    if under_way or not state.waiting:
        return None
    gains = {name: effect.mean for name, effect in state.waiting.items()}
    return Next("merge", merging.chosen(gains))


def _of(source: Source, running: Running) -> Collection[int]:
    return running.get(source.id, ())


def _size(source: Source, running: Running) -> int:
    """Runs that are done or under way."""
    return len(source.readings) + len(_of(source, running))


def _baseline(state: State, running: Running) -> Source | None:
    """A baseline with too few runs; before any result, the first that was started."""
    if state.champions:
        source = state.champions[-1].source
        return source if source.unsettled else None
    return next((Source(name, None) for name in running if name != ENDED), None)


def _may_repeat(state: State, running: Running) -> bool:
    """True while repeats are within their part of all runs."""
    repeats = state.repeats + sum(len(running[name]) for name in running if name in state.known)
    runs = state.runs + sum(map(len, running.values()))
    return repeats + 1 <= REPEATS * (runs + 1)


def _candidate(
    state: State, running: Running, at_once: int, checks: Collection[str]
) -> Source | None:
    """The likeliest candidate, or the champion if that has fewer runs. A candidate whose runs count
    as soon as the champion has run on their GPU model waits for that."""
    champion = state.champions[-1].source
    free = [
        source
        for source in state.candidates.values()
        if len(_of(source, running)) < at_once
        and _size(source, running) < MOST_RUNS
        and not any(one.model in checks for one in source.readings)
    ]
    if not free:
        return None
    best = max(free, key=lambda source: state.evidence(source).probability)
    fewer = _size(champion, running) < _size(best, running)
    return champion if fewer and len(_of(champion, running)) < at_once else best


def _repeat(source: Source, running: Running) -> Next:
    used: set[int] = {reading.seed for reading in source.readings} | set(_of(source, running))
    # A merge that is one of its wins as that was begins after the seeds that this has had.
    first = source.readings[0].seed if source.merged_from else FIRST_SEED
    return Next("repeat", (source.id,), next(seed for seed in count(first) if seed not in used))
