"""What is seen while a command waits for a run: a bar on a terminal, a line a step elsewhere.

Everything goes to stderr.
"""

from types import TracebackType
from typing import TYPE_CHECKING

from orchestrator import schemas
from orchestrator.cli.output import console, note
from orchestrator.cli.tables import state_line

if TYPE_CHECKING:
    from rich.progress import TaskID


class WaitBar:
    """Use as a context manager; `update` with each state that is heard of."""

    def __init__(self, experiment_id: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = console(stderr=True)
        self.drawn = self._console.is_terminal and not self._console.is_dumb_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self.drawn,
        )
        self._task: TaskID = self._progress.add_task(experiment_id, total=None, state="")
        self._said = ""

    def __enter__(self) -> "WaitBar":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, detail: schemas.ExperimentDetail) -> None:
        share, state = step(detail)
        self._progress.update(
            self._task,
            state=state,
            # Without a total the bar only says that it lives.
            total=None if share is None else 1.0,
            completed=share or 0.0,
        )
        if not self.drawn and detail.finished_at is None and detail.status != self._said:
            self._said = detail.status
            note(state_line(detail))


def step(detail: schemas.ExperimentDetail) -> tuple[float | None, str]:
    """How much of its training is done (None: not to be said), and what it is at, in words."""
    if detail.status == "queued":
        place = "" if detail.position is None else f", position {detail.position}"
        return None, f"queued{place}"
    if detail.status != "running":
        return None, detail.status
    where = f" on {detail.gpu_id}" if detail.gpu_id else ""
    if not detail.curve:
        return None, f"starting{where}"
    last = detail.curve[-1]
    share = min(1.0, last.percent / 100)
    if share >= 1:
        return None, f"evaluating{where}, loss {last.loss:.4f}"
    left = detail.time_budget_seconds * (1 - share)
    # At most, since its text may end before its time does.
    return share, f"step {last.step}, loss {last.loss:.4f}, at most {left:.0f} s to train{where}"
