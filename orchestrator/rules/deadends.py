"""What not to try again: categories that never paid, and failures that repeat. Pure.

It uses counters and the newest failures; similar ideas are found by services/agents/similar.py.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from orchestrator.domain import INFRA_LOST, Run, Status
from orchestrator.rules import failure, sanitize
from orchestrator.rules.suggest import CategoryCount
from orchestrator.schemas import DeadEnd

TRIED_OFTEN = 5
REPEATED = 2
RECENT_FAILURES = 20  # the newest, of crashes and of time-outs together
LIMIT = 8
_IDS = 3
_CAUSE_BYTES = 100


def dead_ends(
    categories: Mapping[str, CategoryCount], failures: Mapping[str, str]
) -> list[DeadEnd]:
    """At most LIMIT, the most tried first. `failures` are the causes of the newest failed runs by
    id, in order of creation."""
    found = [*_barren(categories), *_repeated(failures)]
    return sorted(found, key=lambda end: -end.tried)[:LIMIT]


def _barren(categories: Mapping[str, CategoryCount]) -> Iterator[DeadEnd]:
    for name, count in categories.items():
        if count.total >= TRIED_OFTEN and not count.kept and not count.near:
            clean = sanitize.line(name, 64)
            text = f"{count.total} experiments in {clean}: none kept, no near miss"
            yield DeadEnd(kind="category", text=text, tried=count.total, category=clean)


def _repeated(failures: Mapping[str, str]) -> Iterator[DeadEnd]:
    alike: dict[str, list[str]] = defaultdict(list)
    for experiment_id, why in failures.items():
        alike[why].append(experiment_id)
    for why, ids in alike.items():
        if len(ids) >= REPEATED:
            text = f"{len(ids)} of the last {len(failures)} failures were alike"
            yield DeadEnd(
                kind="failure",
                text=text,
                tried=len(ids),
                experiment_ids=ids[: -_IDS - 1 : -1],
                untrusted_cause=why,
            )


def causes(runs: Iterable[Run]) -> dict[str, str]:
    """Why these runs failed, by id, without those that the infrastructure lost."""
    return {run.experiment_id: why for run in runs if (why := cause(run)) is not None}


def cause(run: Run) -> str | None:
    """The exception's class, else the first words of the failure: failures with equal causes are
    alike. None for a run that the infrastructure lost."""
    if run.reason == INFRA_LOST:
        return None
    error = run.error or ""
    if run.status is Status.TIMEOUT:
        return "time-out"
    if error.startswith("out of GPU memory"):
        return "out of GPU memory"
    said = failure.read(error)
    words = said.exception or said.message or error.partition("\n")[0]
    return sanitize.line(words, _CAUSE_BYTES) or "no words"
