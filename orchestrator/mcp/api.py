"""The REST API as the tools call it: asynchronous, with wire models as answers."""

import uuid
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

# Added to the wait that a call asks for.
TIMEOUT_SECONDS = 20.0

Model = TypeVar("Model", bound=BaseModel)


class ToolError(Exception):
    """What the agent gets instead of an answer: one line that says what to do."""


class Api:
    """Wraps a client that has the orchestrator's base URL. `token` is an Authorization header that
    each call carries, if the client itself has none."""

    def __init__(self, http: httpx.AsyncClient, token: str | None = None) -> None:
        self._http = http
        self._headers = {} if token is None else {"Authorization": token}

    def as_caller(self, token: str | None) -> "Api":
        """The same API, called with the credential of the request that is served."""
        return Api(self._http, token) if token else self

    async def get(
        self,
        path: str,
        answer: type[Model],
        query: BaseModel | None = None,
        timeout: float | None = None,
    ) -> Model:
        params = query.model_dump(mode="json", exclude_none=True) if query else {}
        if timeout is not None:
            params["timeout"] = timeout
        return _parsed(answer, await self.send("GET", path, wait=timeout or 0, params=params))

    async def post(self, path: str, answer: type[Model], body: BaseModel) -> Model:
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        content = body.model_dump(mode="json", exclude_none=True)
        return _parsed(answer, await self.send("POST", path, json=content, headers=headers))

    async def text(self, path: str, **query: str) -> str:
        response = await self.send("GET", path, params=query)
        return response.content.decode(errors="replace")

    async def send(
        self,
        method: str,
        path: str,
        wait: float = 0,
        accept: tuple[int, ...] = (),
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> httpx.Response:
        """Send a request. Raises ToolError for an error status that is not in `accept`."""
        try:
            response = await self._http.request(
                method,
                path,
                timeout=wait + TIMEOUT_SECONDS,
                headers=self._headers | (headers or {}),
                **options,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ToolError(
                f"No orchestrator answers at {self._http.base_url} ({type(error).__name__})."
                " Start one with `autoresearch up`, or set AUTORESEARCH_ORCHESTRATOR."
            ) from error
        if response.is_success or response.status_code in accept:
            return response
        raise ToolError(_refusal(response))


def _refusal(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        body = {}
    text = f"{response.status_code}: {body.get('error') or response.reason_phrase}"
    if earlier := body.get("earlier"):
        text += f" Its earlier run: {earlier}"
    return text


def _parsed(answer: type[Model], response: httpx.Response) -> Model:
    try:
        return answer.model_validate_json(response.content)
    except ValidationError as error:
        raise ToolError(
            f"The answer is not from an orchestrator of this version: {error}"
        ) from error
