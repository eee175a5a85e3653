"""Tokens with roles: create, list, revoke."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from orchestrator.schemas.base import Answer, Integer, Request, TagName
from orchestrator.schemas.steering import Actor

TEN_YEARS = 10 * 366 * 24 * 3600

Role = Literal["agent", "worker", "admin", "read"]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class CreateTokenRequest(Request):
    """`label` names the token in the audit log; without one it gets a name of its role. Without
    `tags` it is good for all, without `expires_in_seconds` until it is revoked."""

    role: Role
    label: Label | None = None
    tags: Annotated[list[TagName], Field(max_length=100)] = Field(default_factory=list)
    expires_in_seconds: Annotated[Integer, Field(ge=1, le=TEN_YEARS)] | None = None
    by: Actor = "human"

    @model_validator(mode="after")
    def _workers_serve_all_tags(self) -> "CreateTokenRequest":
        if self.role == "worker" and self.tags:
            raise ValueError("a worker takes the jobs of any tag: leave out tags")
        return self


class Token(Answer):
    """A token without its secret. `tags` are null where it is good for all."""

    label: str
    role: Role
    tags: list[str] | None
    created_at: str
    expires_at: str | None


class CreateTokenAnswer(Answer):
    """`secret` is what callers send as `Authorization: Bearer`; it is shown here only."""

    secret: str
    token: Token


class TokensAnswer(Answer):
    """In order of creation."""

    tokens: list[Token]


class RevokeTokenRequest(Request):
    label: Label
    by: Actor = "human"


class RevokeTokenAnswer(Answer):
    revoked: Literal[True] = True
