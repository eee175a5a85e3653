"""The keep rule `race`: verdicts that hold under noise between seeds. Pure.

- `state.py`: what the runs of a tag amount to, and the other values.
- `verdicts.py`: one decided run more, and the verdicts that follow. Begin here.
- `readings.py`: whether a run is evidence, and what it says of the noise.
- `drift.py`: disturbed runs and GPUs that drift.
- `beliefs.py`: what is believed of values and effects, and why.
- `queue.py`: what a free GPU runs next.

The rule in words, and what it is worth in simulation: docs/keep-rules.md.
"""

from orchestrator.rules.race.queue import check, next_merge, next_run
from orchestrator.rules.race.state import FinishedRun, Next, State
from orchestrator.rules.race.verdicts import begin, conflicted, step

__all__ = [
    "FinishedRun", "Next", "State", "begin", "check", "conflicted", "next_merge", "next_run",
    "step",
]  # fmt: skip
