"""What a run result means for a tag whose keep rule is `race`: `step`, as a `Decision`. Pure."""

from dataclasses import dataclass, field, replace

from orchestrator.decisions import Decision, RaceStatus, RaceVerdict, RunResult, Snapshot
from orchestrator.domain import INFRA_LOST, Best, Status, Tag
from orchestrator.rules.decide import adapted, failed, near_miss
from orchestrator.rules.race.drift import drift
from orchestrator.rules.race.state import Ending, FinishedRun, State
from orchestrator.rules.race.verdicts import step

_STATUS: dict[RaceStatus, Status] = {
    "keep": Status.KEEP, "discard": Status.DISCARD, "repeat": Status.CANDIDATE,
    "wait": Status.DISCARD,
}  # fmt: skip


DISTURBED = (
    "much worse than the other runs of its source, so something disturbed it, or its seed had run"
    " already"
)


@dataclass(frozen=True)
class RaceDecision(Decision):
    """A decision with those that it brings on other experiments: a verdict on a candidate, or new
    words on one that is decided already. `state` is the race after `run`. `drift` is what a run of
    a champion says of its GPU: nothing (None), that it is as it was (""), or what is wrong;
    `unusual` what is unlike other runs in the steps of `run`."""

    run: FinishedRun = field(kw_only=True)
    state: State = field(kw_only=True)
    drift: str | None = None
    unusual: str | None = None
    others: tuple[tuple[str, Decision], ...] = ()

    @property
    def no_evidence(self) -> str | None:
        """Why a run that completed does not count; None if it does."""
        sources = [*(one.source for one in self.state.champions), *self.state.candidates.values()]
        readings = [
            one
            for source in sources
            if source.id == self.run.source
            for one in source.readings
            if one.seed == self.run.seed
        ]
        if self.run.ending != "completed" or not readings or readings[-1].counts:
            return None
        if readings[-1].uneven:
            return self.unusual
        return f"GPU {self.run.gpu} {self.drift}" if self.drift else DISTURBED


def ending(result: RunResult) -> Ending:
    if result.kind == "completed":
        return "completed"
    if result.kind in ("cancelled", "stopped"):  # it says nothing: no reading, and no crash
        return "cancelled"
    return "lost" if result.reason == INFRA_LOST else "crashed"


def decide(snapshot: Snapshot, result: RunResult, state: State, run: FinishedRun) -> RaceDecision:
    """Judge `result` of `run` by the race in `state`.

    The run itself is kept, discarded or a candidate; a repeat is only evidence on its source. A run
    that was cancelled or lost says something only if it was a repeat or a merge.
    """
    before, verdicts = state, tuple[RaceVerdict, ...]()
    if run.ending in ("completed", "crashed") or run.repeat or run.merged_from:
        state, verdicts = step(state, run)
    own = next((one for one in verdicts if one.source == run.source and not run.repeat), None)
    champion = state.champions[-1] if state.champions else None
    best = Best(champion.id, champion.belief.mean) if champion else None
    if run.ending != "completed":
        decision = failed(snapshot, result)
    elif own is None:
        decision = Decision(Status.REPEAT, counts_in_rates=False)
    else:
        decision = _ruled(snapshot.tag, own, _STATUS[own.status])
    decision = replace(decision, best_before=snapshot.tag.best_val_bpb, best=best)
    others = tuple(
        (one.source, replace(_ruled(snapshot.tag, one, _of_other(before, one)), best=best))
        for one in verdicts
        if one is not own
    )
    settled = [one for name, one in others if name in before.candidates]
    strategy = adapted(snapshot, decision, *settled)
    fields = vars(decision) | {"strategy": strategy}
    found, unusual = _drift(before, run), before.unusual(run)
    return RaceDecision(**fields, run=run, state=state, others=others, drift=found, unusual=unusual)


def _drift(before: State, run: FinishedRun) -> str | None:
    known = next((one for one in before.champions if one.id == run.source), None)
    if known is None or run.value is None or run.gpu is None:
        return None
    return drift(before.noise, known.source, run) or ""


def unmerged(why: str | None, conflict: str) -> str:
    """The words on a win that waited (`why`) and could not be merged."""
    return f"{why or 'its change is not in the best that replaced it'}; {conflict}"


def _of_other(before: State, verdict: RaceVerdict) -> Status:
    """A verdict that has been given stands: a champion stays a keep."""
    return _STATUS[verdict.status] if verdict.source in before.candidates else Status.KEEP


def _ruled(tag: Tag, verdict: RaceVerdict, status: Status) -> Decision:
    discarded = verdict.status == "discard"
    return Decision(
        status,
        improved=verdict.status == "keep",
        delta=verdict.delta,
        best_before=tag.best_val_bpb,
        near_miss=near_miss(tag, max(0.0, -verdict.delta)) if discarded else None,
        counts_in_rates=status is not Status.CANDIDATE,
        ruling=verdict,
        why=verdict.why,
    )
