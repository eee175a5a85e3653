"""The id of an experiment, `exp-<14 hex digits>-<tag>`, and of an attempt: an id with an epoch.

The digits are the microseconds since the epoch at which the experiment was created, so ids of a tag
sort by creation. `_prelude.lua` makes new ids; tests/store/test_scripts.py holds it to this format.
"""

import re
from dataclasses import dataclass, field

from orchestrator.errors import unknown_experiment

# What a request may send. An id of this shape that this service never gave out is 404, not 422.
PATTERN = r"^exp-[A-Za-z0-9._-]{1,100}$"

_ID = re.compile(r"exp-([0-9a-f]{14})-(.+)")


def id_of(created_us: int, tag: str) -> str:
    return f"exp-{created_us:014x}-{tag}"


def tag_of(experiment_id: str) -> str:
    """Raises `NotFound` for an id that this service never gave out."""
    return _parts(experiment_id)[2]


def created_us_of(experiment_id: str) -> int:
    """Raises `NotFound`, as `tag_of` does."""
    return int(_parts(experiment_id)[1], 16)


def _parts(experiment_id: str) -> re.Match[str]:
    parts = _ID.fullmatch(experiment_id)
    if parts is None:
        raise unknown_experiment(experiment_id)
    return parts


@dataclass(frozen=True)
class AttemptId:
    """One attempt of a run. `epoch` is its fencing token: the next attempt has a higher one.

    `secret` is what its worker shows as the lease's; None where the orchestrator itself acts.
    """

    experiment_id: str
    epoch: int
    secret: str | None = field(default=None, compare=False, repr=False)

    @property
    def tag(self) -> str:
        return tag_of(self.experiment_id)

    def __str__(self) -> str:
        return f"{self.experiment_id}, attempt {self.epoch}"
