"""What the demo shows while it runs: a live picture on a terminal, plain lines elsewhere.

Everything goes to stderr. Draws from the search's state and keeps none of its own but what it said.
"""

import time
from types import TracebackType
from typing import TYPE_CHECKING

from orchestrator.cli.output import console, note
from orchestrator.cli.search import Search

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.schemas import ExperimentDetail

_ROWS = 12
_BAR = 30
_PLAIN_SECONDS = 10.0


class Screen:
    """Use as a context manager around the search; call `update` often."""

    def __init__(self, search: Search, budget: float) -> None:
        from rich.live import Live

        self._search = search
        self._budget = budget
        self._console = console(stderr=True)
        self._live = Live(console=self._console, transient=True, refresh_per_second=4)
        self._plain = not self._console.is_terminal
        self._said = 0
        self._next_line = 0.0

    def __enter__(self) -> "Screen":
        if not self._plain:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if not self._plain:
            self._live.stop()

    def say(self, name: str, line: str) -> None:
        """A word of a child process, above the picture. Its log has all of them."""
        text = f"{name}: {line}"
        if self._plain:
            note(text)
        else:
            self._live.console.print(text, style="dim")

    def update(self) -> None:
        if self._plain:
            self._lines()
        else:
            self._live.update(self._picture())

    def _picture(self) -> "RenderableType":
        from rich.console import Group

        search = self._search
        best = search.best()
        head = f"{search.tag}: experiment {self._number()} of {search.wanted}"
        if best and best.val_bpb:
            head += f", best val_bpb {best.val_bpb:.6f}"
        return Group(head, results_table(search.decided[-_ROWS:]), "", self._progress())

    def _lines(self) -> None:
        for detail in self._search.decided[self._said :]:
            self._said += 1
            value = f" {detail.val_bpb:.6f}" if detail.val_bpb is not None else ""
            note(
                f"[{self._said}/{self._search.wanted}] {detail.status}{value}  {detail.description}"
            )
        now = time.monotonic()
        if self._search.current is not None and now >= self._next_line:
            self._next_line = now + _PLAIN_SECONDS
            note(f"[{self._number()}/{self._search.wanted}] {self._progress()}")

    def _number(self) -> int:
        return min(len(self._search.decided) + 1, self._search.wanted)

    def _progress(self) -> str:
        """Phase, bar, percent and last loss of the experiment that runs."""
        detail = self._search.current
        if detail is None:
            return "thinking of the next edit"
        what = detail.description
        if detail.status == "queued":
            return f"waiting for a worker: {what}"
        if not detail.curve:
            return f"starting: {what}"
        last = detail.curve[-1]
        share = min(1.0, last.percent / 100)
        bar = ("━" * round(_BAR * share)).ljust(_BAR, "╌")
        phase = "evaluating" if share >= 1 else "training"
        of = f"of {self._budget:g} s, loss {last.loss:.4f}"
        return f"{phase} {bar} {100 * share:3.0f} % {of}: {what}"


def results_table(details: "list[ExperimentDetail]") -> "RenderableType":
    """One row an experiment: how it ended, by how much, and what was tried."""
    from rich.table import Table

    from orchestrator.cli.tables import bpb, coloured

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("status", "left"), ("val_bpb", "right"), ("better by", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("category")
    table.add_column("edit", overflow="fold")
    for d in details:
        better = ""
        if d.val_bpb is not None and d.best_val_bpb_before is not None:
            better = f"{d.best_val_bpb_before - d.val_bpb:+.6f}"
        table.add_row(coloured(d.status), bpb(d.val_bpb), better, d.category, d.description)
    return table
