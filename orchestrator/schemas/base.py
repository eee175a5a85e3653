"""What all bodies share: limits, the checked kinds of text and number, and how an error reads.

Requests refuse unknown fields and non-finite numbers.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from orchestrator import ids

SOURCE_LIMIT_BYTES = 1024 * 1024
BODY_LIMIT_BYTES = 256 * 1024


def _no_truth(value: object) -> object:
    """Python counts true as 1; a report that says so is a mistake."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")  # noqa: TRY004 - pydantic's way
    return value


_TAG = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _tag_name(value: str) -> str:
    if not _TAG.fullmatch(value):
        raise ValueError(
            "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit, without '..'"
        )
    return value


TagName = Annotated[
    str,
    AfterValidator(_tag_name),
    # For the description of the service, in a dialect that has no look-ahead.
    Field(
        json_schema_extra={
            "pattern": r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\.?$",
            "maxLength": 64,
        }
    ),
]
ExperimentId = Annotated[str, StringConstraints(pattern=ids.PATTERN)]
GpuId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
CommitSha = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Category = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]
Text = Annotated[str, StringConstraints(max_length=20_000)]
RequiredText = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
Name = Annotated[str, StringConstraints(max_length=200)]
Number = Annotated[float, BeforeValidator(_no_truth), Field(allow_inf_nan=False)]
Amount = Annotated[float, BeforeValidator(_no_truth), Field(ge=0, le=2**53, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_no_truth), Field(ge=0, le=2**53)]
ValBpb = Annotated[float, BeforeValidator(_no_truth), Field(gt=0, le=1e6, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

Mode = Literal["explore", "exploit", "combine", "ablation"]
PublicStatus = Literal["queued", "running", "keep", "discard", "crash", "timeout", "cancelled"]
Action = Literal["keep_commit", "git_reset"]


class Request(BaseModel):
    """A request body: unknown fields are an error, so a misspelt name never passes silently."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Answer(BaseModel):
    """An answer body, as read by clients: fields that a newer orchestrator adds are ignored."""

    model_config = ConfigDict(extra="ignore")


class Problem(Answer):
    """RFC 9457 problem details, and the flat `error` that existing callers read."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    error: str
    errors: list[dict[str, Any]] | None = None
    existing: Any | None = None
    earlier: Any | None = None
