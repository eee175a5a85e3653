"""Operator actions on a running search, the ledger of them, and a page's login.

`by` and `reason` are one line of plain text each, and a note is plain text: control and
bidirectional characters are refused, since people and agents get all three unchanged.
"""

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from orchestrator.schemas.base import (
    Answer,
    GpuId,
    Integer,
    Priority,
    PublicStatus,
    Request,
    TagName,
    TagRequest,
)

NOTES_LIMIT = 20
NOTE_CHARACTERS = 2000

_BIDIRECTIONAL = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def _plain_line(value: str, allowed: str = "") -> str:
    for character in value:
        control = unicodedata.category(character) == "Cc" or character in _BIDIRECTIONAL
        if control and character not in allowed:
            raise ValueError(f"holds the control character U+{ord(character):04X}; send plain text")
    return value


def plain_lines(value: str) -> str:
    return _plain_line(value, allowed="\n\t")


def _stripped(max_length: int) -> StringConstraints:
    return StringConstraints(min_length=1, max_length=max_length, strip_whitespace=True)


Actor = Annotated[str, _stripped(64), AfterValidator(_plain_line)]
Reason = Annotated[str, _stripped(500), AfterValidator(_plain_line)]
NoteText = Annotated[str, _stripped(NOTE_CHARACTERS), AfterValidator(plain_lines)]
NoteId = Annotated[str, StringConstraints(pattern=r"^note-\d{1,18}$")]
Cursor = Annotated[str, StringConstraints(pattern=r"^[1-9]\d{0,18}-\d{1,18}$")]

SteeringAction = Literal[
    "pause", "resume", "race", "note", "drop-note", "cancel", "requeue", "priority", "set-strategy",
    "drain", "undrain", "create-token", "revoke-token",
]  # fmt: skip


class OperatorHold(Answer):
    """Who paused a tag or drained a GPU, why, and when."""

    by: str
    reason: str
    at: str


class OperatorRequest(Request):
    reason: Reason
    by: Actor = "human"


class TagSteerRequest(OperatorRequest):
    tag: TagName


class PauseAnswer(Answer):
    """The tag's state now: after a second pause, the reason of the first one."""

    tag: str
    paused: bool
    pause: OperatorHold | None


class RaceAnswer(Answer):
    """The keep rule in force, and the best that is repeated before others are judged by it."""

    tag: str
    keep_rule: str
    best_experiment_id: str | None
    best_val_bpb: float | None


class NoteRequest(TagRequest):
    text: NoteText
    by: Actor = "human"


class Note(Answer):
    """An operator's message to the agents of a tag."""

    id: str
    text: str
    by: str
    at: str


class NoteAnswer(Answer):
    note: Note


class DropNoteRequest(TagRequest):
    note_id: NoteId
    by: Actor = "human"


class DropNoteAnswer(Answer):
    dropped: Literal[True] = True


class NotesAnswer(Answer):
    """Newest first."""

    notes: list[Note]


class CancelRequest(OperatorRequest):
    reason: Reason = "no reason given"


class CancelAnswer(Answer):
    """`cancelling`: its worker has been asked to stop. Otherwise it has ended with `status`."""

    experiment_id: str
    status: PublicStatus
    cancelling: bool


class RequeueRequest(OperatorRequest):
    pass


class RequeueAnswer(Answer):
    """`requeueing`: its worker has been asked to give it back. Otherwise `experiment_id` is a new
    experiment with the source of `repeat_of`, at `position` in the queue."""

    experiment_id: str
    status: PublicStatus
    requeueing: bool
    repeat_of: str | None = None
    position: int | None = None


class PriorityRequest(OperatorRequest):
    priority: Priority


class PriorityAnswer(Answer):
    experiment_id: str
    priority: int
    position: int


class DrainRequest(OperatorRequest):
    gpu_id: GpuId


class DrainAnswer(Answer):
    """The GPU's state now: after a second drain, the reason of the first one."""

    gpu_id: str
    draining: bool
    drain: OperatorHold | None


class LedgerRequest(Request):
    """Without a tag: all entries, including those on GPUs. `cursor` is the last page's
    `next_cursor`."""

    tag: TagName | None = None
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 100
    cursor: Cursor | None = None


class LedgerEntry(Answer):
    """One operator action. `target` is an experiment, a note, a GPU or a token, and null for an
    action on the tag itself. For a note, `reason` is its text. `actor` is the label of the
    credential, null where none was needed; `by` is the name that the caller gave."""

    id: str
    at: str
    by: str
    actor: str | None = None
    action: SteeringAction
    tag: str | None
    target: str | None
    reason: str
    outcome: str


class LedgerAnswer(Answer):
    """Newest first."""

    entries: list[LedgerEntry]
    next_cursor: str | None = None


class LoginRequest(Request):
    token: Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class LoginAnswer(Answer):
    """When the session ends; null if the service has no token."""

    ok: Literal[True] = True
    expires_at: str | None = None
