"""Steering: what people do to a running search, and the ledger of it.

Who (`by`) and why (`reason`) are a line of plain text each, and a note is plain text: control and
bidirectional characters are refused, since all three are shown to people and agents as they are.
"""

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from orchestrator.schemas.base import Answer, GpuId, PublicStatus, Request, TagName

NOTES_LIMIT = 20
NOTE_CHARACTERS = 2000

_BIDIRECTIONAL = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def _plain(value: str, allowed: str) -> str:
    for character in value:
        control = unicodedata.category(character) == "Cc" or character in _BIDIRECTIONAL
        if control and character not in allowed:
            raise ValueError(f"holds the control character U+{ord(character):04X}; send plain text")
    return value


def _line(value: str) -> str:
    return _plain(value, "")


def plain_lines(value: str) -> str:
    return _plain(value, "\n\t")


Actor = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, strip_whitespace=True),
    AfterValidator(_line),
]
Reason = Annotated[
    str,
    StringConstraints(min_length=1, max_length=500, strip_whitespace=True),
    AfterValidator(_line),
]
NoteText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=NOTE_CHARACTERS, strip_whitespace=True),
    AfterValidator(plain_lines),
]
NoteId = Annotated[str, StringConstraints(pattern=r"^note-\d{1,18}$")]
Priority = Annotated[int, Field(ge=-1000, le=1000)]
Cursor = Annotated[str, StringConstraints(pattern=r"^[1-9]\d{0,18}-\d{1,18}$")]

SteeringAction = Literal[
    "pause", "resume", "note", "drop-note", "cancel", "requeue", "priority", "set-strategy",
    "drain", "undrain",
]  # fmt: skip


class OperatorHold(Answer):
    """Who paused a tag or drained a GPU, why, and when."""

    by: str
    reason: str
    at: str


class TagSteerRequest(Request):
    tag: TagName
    reason: Reason
    by: Actor = "human"


class PauseAnswer(Answer):
    """How the tag stands now: the first pause counts, and its reason stays."""

    tag: str
    paused: bool
    pause: OperatorHold | None


class NoteRequest(Request):
    tag: TagName
    text: NoteText
    by: Actor = "human"


class Note(Answer):
    """What a person says to the agents of a tag."""

    id: str
    text: str
    by: str
    at: str


class NoteAnswer(Answer):
    note: Note


class DropNoteRequest(Request):
    tag: TagName
    note_id: NoteId
    by: Actor = "human"


class DropNoteAnswer(Answer):
    dropped: Literal[True] = True


class NotesAnswer(Answer):
    """Newest first."""

    notes: list[Note]


class CancelRequest(Request):
    reason: Reason = "no reason given"
    by: Actor = "human"


class CancelAnswer(Answer):
    """`cancelling`: its worker has been asked to stop it. Else it is over, as `status` says."""

    experiment_id: str
    status: PublicStatus
    cancelling: bool


class RequeueRequest(Request):
    reason: Reason
    by: Actor = "human"


class RequeueAnswer(Answer):
    """`requeueing`: its worker has been asked to give it back. Else `experiment_id` is a new one
    with the source of `repeat_of`, at `position` in the queue."""

    experiment_id: str
    status: PublicStatus
    requeueing: bool
    repeat_of: str | None = None
    position: int | None = None


class PriorityRequest(Request):
    priority: Priority
    reason: Reason
    by: Actor = "human"


class PriorityAnswer(Answer):
    experiment_id: str
    priority: int
    position: int


class DrainRequest(Request):
    gpu_id: GpuId
    reason: Reason
    by: Actor = "human"


class DrainAnswer(Answer):
    """How the GPU stands now: the first drain counts, and its reason stays."""

    gpu_id: str
    draining: bool
    drain: OperatorHold | None


class LedgerRequest(Request):
    """Without a tag: all there is, that on GPUs too. `cursor` is the `next_cursor` of a page."""

    tag: TagName | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Cursor | None = None


class LedgerEntry(Answer):
    """Who did what to what, and why. `target` is an experiment, a note or a GPU; nothing where
    the action is on the tag itself. Of a note `reason` is its text."""

    id: str
    at: str
    by: str
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
    """When the session ends; null where the service has no token and asks for none."""

    ok: Literal[True] = True
    expires_at: str | None = None
