"""What all bodies share: limits, checked kinds of text and number, and the form of an error.

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


def _no_boolean(value: object) -> object:
    """Python counts true as 1, but a request that says so is a mistake."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - for pydantic
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
    # For OpenAPI, whose dialect of regular expressions has no look-ahead.
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
# A request's numbers are one of these two, or made from them.
Number = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]
Integer = Annotated[int, BeforeValidator(_no_boolean)]
Amount = Annotated[Number, Field(ge=0, le=2**53)]
Count = Annotated[Integer, Field(ge=0, le=2**53)]
MAX_VAL_BPB = 1e6
ValBpb = Annotated[Number, Field(gt=0, le=MAX_VAL_BPB)]
Seed = Annotated[Integer, Field(ge=0, lt=2**32)]
Priority = Annotated[Integer, Field(ge=-1000, le=1000)]

Mode = Literal["explore", "exploit", "combine", "ablation"]
PublicStatus = Literal[
    "queued", "running", "keep", "discard", "crash", "timeout", "cancelled", "candidate", "repeat",
]  # fmt: skip
Action = Literal["keep_commit", "git_reset"]


class Request(BaseModel):
    """A request body. Unknown fields are an error, so that a misspelled name is noticed."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Answer(BaseModel):
    """An answer body. Clients ignore fields that a newer orchestrator adds."""

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


# Why no GPU takes what is queued; left out where one does.
Blocked = Annotated[str | None, Field(exclude_if=lambda why: why is None)]


class TagRequest(Request):
    tag: TagName


class ExperimentRequest(Request):
    experiment_id: ExperimentId
