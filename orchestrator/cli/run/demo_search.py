"""The demo's search loop, which uses the public API as any agent does, and what it shows.

The loop waits in small steps, so that its caller can look after the system meanwhile.
"""

import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rich.table import Table

from orchestrator.cli.client import OUTAGE_SECONDS, Client
from orchestrator.cli.errors import UnreachableError
from orchestrator.cli.experiments import run_bar, step
from orchestrator.cli.output import console, note
from orchestrator.cli.tables import bpb, coloured, plain
from orchestrator.cli.text import visible
from orchestrator.demo.agent import Agent, Guidance, NothingLeftError, Proposal
from orchestrator.schemas import ExperimentDetail, SubmitRequest

_DECIDED = ("keep", "discard", "crash", "timeout")
_STEP_SECONDS = 0.5
_LINE_SECONDS = 10.0

T = TypeVar("T")


@dataclass
class Search:
    """A search of `wanted` decided experiments in a tag that exists.

    `decided` are those so far, the baseline first; `current` is what waits or runs; `ended` says
    why the search stopped before it had `wanted` results.
    """

    client: Client
    tag: str
    wanted: int
    agent: Agent
    decided: list[ExperimentDetail] = field(default_factory=list)
    current: ExperimentDetail | None = None
    ended: str | None = None

    def run(self) -> Iterator[None]:
        """Go on by one small step each time; what is decided already holds the baseline."""
        if not self.decided:
            yield from self._try(None)
        if not self.decided or self.decided[0].val_bpb is None:
            self.ended = "the baseline itself failed"
            return
        while len(self.decided) < self.wanted:
            try:
                proposal = yield from self._retried(self._propose)
            except NothingLeftError as error:
                self.ended = str(error)
                return
            yield from self._try(proposal)

    def best(self) -> ExperimentDetail | None:
        measured = [d for d in self.decided if d.val_bpb is not None]
        return min(measured, key=lambda d: d.val_bpb or 0, default=None)

    def _try(self, proposal: Proposal | None) -> Iterator[None]:
        request, key = self._request(proposal), str(uuid.uuid4())
        submitted = yield from self._retried(lambda: self.client.submit(request, key))
        for detail in self.client.watch(submitted.experiment_id, every=_STEP_SECONDS):
            self.current = detail
            yield
        self.current = None
        if detail.status not in _DECIDED:
            return  # an operator cancelled it: it does not count
        self.decided.append(detail)
        if detail.reason != "infra_lost":  # that says nothing about the edit
            value = detail.predicted_val_bpb if detail.stopped_early else detail.val_bpb
            self.agent.observe(detail.id, proposal, value)

    @staticmethod
    def _retried(call: Callable[[], T]) -> Generator[None, None, T]:
        """Call until the orchestrator answers; the caller may be the one that restarts it."""
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
            return SubmitRequest(
                tag=self.tag,
                train_py=self.agent.baseline,
                hypothesis="the baseline, unchanged",
                description="baseline",
            )
        return SubmitRequest(
            tag=self.tag,
            train_py=proposal.source,
            hypothesis=proposal.hypothesis,
            description=proposal.diff_summary,
            category=proposal.category,
            diff_summary=proposal.diff_summary,
        )

    def _propose(self) -> Proposal:
        best = self.client.source(self.client.best(self.tag).best.experiment_id)
        suggestion = self.client.suggestion(self.tag)
        strategy = self.client.strategy(self.tag)
        guidance = Guidance(
            mode=suggestion.strategy,
            temperature=strategy.temperature,
            explore_ratio=strategy.explore_ratio,
            underexplored=suggestion.underexplored_categories,
            high_yield=suggestion.high_yield_categories,
            near_misses=[miss.experiment_id for miss in self.client.near_misses(self.tag)],
        )
        return self.agent.propose(best, guidance)


class Screen:
    """On stderr: a line for each verdict, and the progress of the current run, as a bar on a
    terminal or as a line each ten seconds elsewhere.

    Use `bar` as a context manager around the search and call `update` often.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        screen = console(stderr=True)
        self._plain = not screen.is_terminal
        self.bar = run_bar(screen, drawn=not self._plain)
        self._task = self.bar.add_task("choosing the first edit", total=None, state="")
        self._told = 0
        self._next_line = 0.0

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self._plain:
            note(line)
        else:
            self.bar.console.print(visible(line))

    def update(self) -> None:
        search = self._search
        for detail in search.decided[self._told :]:
            self._told += 1
            value = f" {detail.val_bpb:.6f}" if detail.val_bpb is not None else ""
            verdict = f"{detail.status}{value}  {detail.description}"
            self.say(f"[{self._told}/{search.wanted}] {verdict}")
        if search.current is None:
            return
        number = min(len(search.decided) + 1, search.wanted)
        label = f"[{number}/{search.wanted}] {search.current.description}"
        # Its own worker is about to start, so nothing holds a run up.
        share, state = step(search.current.model_copy(update={"blocked": None}))
        total = None if share is None else 1.0  # without a total the bar pulses
        self.bar.update(
            self._task, description=label, state=state, total=total, completed=share or 0.0
        )
        if self._plain and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_SECONDS
            note(f"{label}: {state}")


def results_table(details: Sequence[ExperimentDetail]) -> Table:
    """One row an experiment: how it ended, by how much, and what was tried."""
    table = plain("status", ">val_bpb", ">better by", "category", "edit")
    for d in details:
        better = ""
        if d.val_bpb is not None and d.best_val_bpb_before is not None:
            better = f"{d.best_val_bpb_before - d.val_bpb:+.6f}"
        table.add_row(coloured(d.status), bpb(d.val_bpb), better, d.category, d.description)
    return table
