"""The loop of the built-in agent, over the public API as any agent would go.

Suggest, propose, submit, wait, learn, and on from the best. It waits in small steps, so that its
caller can look after other things meanwhile, and it prints nothing.
"""

import time
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from orchestrator.cli.client import OUTAGE_SECONDS, Client
from orchestrator.cli.errors import UnreachableError
from orchestrator.demo.agent import Agent, Guidance, NothingLeftError, Proposal
from orchestrator.schemas import ExperimentDetail, SubmitRequest

DECIDED = ("keep", "discard", "crash", "timeout")
_STEP_SECONDS = 0.5

T = TypeVar("T")


@dataclass
class Search:
    """A search of `wanted` decided experiments in a tag that exists.

    `decided` are those so far, the baseline first; `current` is what waits or runs; `ended` says
    why the search stopped before it had `wanted` results.
    """

    client: Client
    tag: str
    baseline: str
    wanted: int
    agent: Agent
    decided: list[ExperimentDetail] = field(default_factory=list)
    current: ExperimentDetail | None = None
    ended: str | None = None

    def run(self) -> Iterator[None]:
        """Go on by one small step each time."""
        yield from self._try(None)
        if not self.decided or self.decided[0].val_bpb is None:
            self.ended = "the baseline itself failed"
            return
        while len(self.decided) < self.wanted:
            best = yield from self._persistently(self._best_source)
            guidance = yield from self._persistently(self._guidance)
            try:
                proposal = self.agent.propose(best, guidance)
            except NothingLeftError as error:
                self.ended = str(error)
                return
            yield from self._try(proposal)

    def best(self) -> ExperimentDetail | None:
        measured = [d for d in self.decided if d.val_bpb is not None]
        return min(measured, key=lambda d: d.val_bpb or 0, default=None)

    def _try(self, proposal: Proposal | None) -> Iterator[None]:
        request, key = self._request(proposal), str(uuid.uuid4())
        submitted = yield from self._persistently(lambda: self.client.submit(request, key))
        for detail in self.client.watch(submitted.experiment_id, every=_STEP_SECONDS):
            self.current = detail
            yield
        self.current = None
        if detail.status not in DECIDED:
            return  # somebody cancelled it: it counts for nothing
        self.decided.append(detail)
        if detail.reason != "infra_lost":  # that says nothing about the edit
            self.agent.observe(detail.id, proposal, detail.val_bpb)

    @staticmethod
    def _persistently(call: Callable[[], T]) -> Generator[None, None, T]:
        """Call until the orchestrator answers; the caller may be the one who starts it again."""
        deadline = time.monotonic() + OUTAGE_SECONDS
        while True:
            try:
                return call()
            except UnreachableError:
                if time.monotonic() > deadline:
                    raise
            yield

    def _request(self, proposal: Proposal | None) -> SubmitRequest:
        if proposal is None:
            what = "the baseline, unchanged"
            return SubmitRequest(
                tag=self.tag, train_py=self.baseline, hypothesis=what, description="baseline"
            )
        return SubmitRequest(
            tag=self.tag,
            train_py=proposal.source,
            hypothesis=proposal.hypothesis,
            description=proposal.diff_summary,
            category=proposal.category,
            diff_summary=proposal.diff_summary,
        )

    def _best_source(self) -> str:
        return self.client.source(self.client.best(self.tag).best.experiment_id)

    def _guidance(self) -> Guidance:
        suggestion = self.client.suggestion(self.tag)
        strategy = self.client.strategy(self.tag)
        return Guidance(
            mode=suggestion.strategy,
            temperature=strategy.temperature,
            explore_ratio=strategy.explore_ratio,
            underexplored=suggestion.underexplored_categories,
            high_yield=suggestion.high_yield_categories,
            near_misses=[miss.experiment_id for miss in self.client.near_misses(self.tag)],
        )
