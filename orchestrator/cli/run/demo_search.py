"""The demo's search loop, which uses the public API as any agent does, and what it shows.

The loop waits in small steps, so that its caller can look after the system meanwhile.
"""

import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from orchestrator.cli.client import OUTAGE_SECONDS, Client
from orchestrator.cli.errors import UnreachableError
from orchestrator.cli.output import console, note
from orchestrator.cli.picture import bar
from orchestrator.cli.tables import bpb, coloured, plain
from orchestrator.demo.agent import Agent, Guidance, NothingLeftError, Proposal
from orchestrator.schemas import ExperimentDetail, SubmitRequest

_DECIDED = ("keep", "discard", "crash", "timeout")
_STEP_SECONDS = 0.5
_ROWS = 12
_BAR = 30
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
            best = yield from self._retried(self._best_source)
            guidance = yield from self._retried(self._guidance)
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
        submitted = yield from self._retried(lambda: self.client.submit(request, key))
        for detail in self.client.watch(submitted.experiment_id, every=_STEP_SECONDS):
            self.current = detail
            yield
        self.current = None
        if detail.status not in _DECIDED:
            return  # an operator cancelled it: it does not count
        self.decided.append(detail)
        if detail.reason != "infra_lost":  # that says nothing about the edit
            self.agent.observe(detail.id, proposal, detail.val_bpb)

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


class Screen:
    """A live picture of the search on a terminal, plain lines elsewhere; both on stderr.

    Use as a context manager around the search and call `update` often.
    """

    def __init__(self, search: Search, budget: float) -> None:
        self._search = search
        self._budget = budget
        screen = console(stderr=True)
        self._live = Live(console=screen, transient=True, refresh_per_second=4)
        self._plain = not screen.is_terminal
        self._told = 0
        self._next_line = 0.0

    def __enter__(self) -> "Screen":
        if not self._plain:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._plain:
            self._live.stop()

    def say(self, name: str, line: str) -> None:
        """A child's line above the picture."""
        if self._plain:
            note(f"{name}: {line}")
        else:
            self._live.console.print(f"{name}: {line}", style="dim")

    def update(self) -> None:
        if self._plain:
            self._lines()
        else:
            self._live.update(self._picture())

    def _picture(self) -> RenderableType:
        search = self._search
        best = search.best()
        head = f"{search.tag}: experiment {self._number()} of {search.wanted}"
        if best and best.val_bpb:
            head += f", best val_bpb {best.val_bpb:.6f}"
        return Group(head, results_table(search.decided[-_ROWS:]), "", self._progress())

    def _lines(self) -> None:
        wanted = self._search.wanted
        for detail in self._search.decided[self._told :]:
            self._told += 1
            value = f" {detail.val_bpb:.6f}" if detail.val_bpb is not None else ""
            note(f"[{self._told}/{wanted}] {detail.status}{value}  {detail.description}")
        now = time.monotonic()
        if self._search.current is not None and now >= self._next_line:
            self._next_line = now + _LINE_SECONDS
            note(f"[{self._number()}/{wanted}] {self._progress()}")

    def _number(self) -> int:
        return min(len(self._search.decided) + 1, self._search.wanted)

    def _progress(self) -> str:
        """Phase, bar, percent and last loss of the experiment that runs."""
        detail = self._search.current
        if detail is None:
            return "choosing the next edit"
        what = detail.description
        if detail.status == "queued":
            return f"waiting for a worker: {what}"
        if not detail.curve:
            return f"starting: {what}"
        last = detail.curve[-1]
        share = min(1.0, last.percent / 100)
        phase = "evaluating" if share >= 1 else "training"
        of = f"of {self._budget:g} s, loss {last.loss:.4f}"
        return f"{phase} {bar(share, _BAR)} {100 * share:3.0f} % {of}: {what}"


def results_table(details: Sequence[ExperimentDetail]) -> Table:
    """One row an experiment: how it ended, by how much, and what was tried."""
    table = plain("status", ">val_bpb", ">better by", "category", "edit")
    for d in details:
        better = ""
        if d.val_bpb is not None and d.best_val_bpb_before is not None:
            better = f"{d.best_val_bpb_before - d.val_bpb:+.6f}"
        table.add_row(coloured(d.status), bpb(d.val_bpb), better, d.category, d.description)
    return table
