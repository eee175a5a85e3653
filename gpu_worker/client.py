"""The orchestrator as a worker sees it: typed calls, and three kinds of failure.

`Unavailable` is to be tried again, `LeaseLost` ends the run at hand, `Refused` will not get better
by itself. `persist` tries again for as long as it takes; how long that may be is the caller's
business, by cancelling it. Nothing here knows what a run is.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlsplit

import anyio
import httpx
from pydantic import BaseModel, ValidationError

from orchestrator import schemas

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.05
MINIMUM_TIMEOUT_SECONDS = 2.0
# Below what `autoresearch serve` grants an idle connection: a request sent into one that is being
# closed would be lost. Above the heartbeat, or each one would open a connection of its own.
KEEPALIVE_SECONDS = 30.0

AnswerT = TypeVar("AnswerT", bound=BaseModel)
T = TypeVar("T")


class ClientError(Exception):
    """The orchestrator did not do what was asked; the message says why."""


class Unavailable(ClientError):
    """It cannot be reached, or cannot serve now, or not this token: somebody may yet put that
    right, and meanwhile a run goes on. The same call may be sent again."""


class NoRoom(Unavailable):
    """Its disk takes no files now. What goes to its Redis alone, as a verdict does, need not wait
    for that."""


class Refused(ClientError):
    """It understood, and said no; sending the same again would not help."""


class Unknown(Refused):
    """It knows no such GPU, run or file."""


class LeaseLost(Refused):
    """The run, or the GPU, is somebody else's by now."""


def spread(seconds: float) -> float:
    """Up to a quarter less. Workers that were started together, or cut off together, would else
    call together ever after."""
    return seconds * random.uniform(0.75, 1)  # noqa: S311 - no secret


def until_next(period: float, start: float) -> float:
    """Seconds to the next beat of a rhythm that began at `start` on anyio's clock.

    One that is late does not shift those after it: callers that an outage has brought together, or
    one slow answer, fall apart again.
    """
    return period - (anyio.current_time() - start) % period


class Client:
    """One orchestrator, spoken to on behalf of one GPU."""

    def __init__(self, url: str, token: str | None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url
        self.heartbeat_seconds = 5.0  # until the registration tells
        self._reachable = True
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            limits=httpx.Limits(keepalive_expiry=KEEPALIVE_SECONDS),
            # A proxy for the outside world knows nothing of this machine's own ports.
            trust_env=urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"),
        )

    async def close(self) -> None:
        await self._http.aclose()

    # ------------------------------------------------------------------------ the contract

    async def register(self, gpu: schemas.RegisterGpuRequest) -> schemas.RegisterGpuAnswer:
        return await self._post("/api/pool/register", gpu, schemas.RegisterGpuAnswer)

    async def heartbeat(self, beat: schemas.HeartbeatRequest) -> None:
        await self._post("/api/pool/heartbeat", beat, schemas.Ok)

    async def deregister(self, gpu_id: str) -> None:
        request = schemas.GpuRequest(gpu_id=gpu_id)
        await self._post("/api/pool/deregister", request, schemas.DeregisterAnswer)

    async def claim(self, claim: schemas.ClaimRequest, wait: float) -> schemas.Job | None:
        """The next job; None when there was none for `wait` seconds."""
        wait = spread(wait)
        path = f"/api/job/claim?wait={wait:g}"
        return (await self._post(path, claim, schemas.ClaimAnswer, wait=wait)).job

    async def renew(self, lease: schemas.RenewRequest) -> schemas.LeaseAnswer:
        return await self._post("/api/job/renew", lease, schemas.LeaseAnswer)

    async def progress(self, progress: schemas.ProgressRequest) -> schemas.LeaseAnswer:
        return await self._post("/api/job/progress", progress, schemas.LeaseAnswer)

    async def finish(self, report: schemas.FinishRequest) -> schemas.FinishAnswer:
        return await self._post("/api/job/finish", report, schemas.FinishAnswer)

    async def prepare_py(self, sha256: str) -> bytes:
        """The prepare.py of that hash; whether it has that hash is for the caller to see."""
        return (await self._send("GET", f"/api/prepare/{sha256}")).content

    # ------------------------------------------------------------------------ how it travels

    async def persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until it is answered; between attempts at most one heartbeat passes."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await call()
            except Unavailable:
                await anyio.sleep(spread(min(pause, self.heartbeat_seconds)))
                pause *= 2

    async def _post(
        self, path: str, body: BaseModel, answer: type[AnswerT], wait: float = 0.0
    ) -> AnswerT:
        response = await self._send("POST", path, body.model_dump_json().encode(), wait)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise Unavailable(f"{path} was answered by something else: {error}") from error

    async def _send(
        self, method: str, path: str, content: bytes | None = None, wait: float = 0.0
    ) -> httpx.Response:
        patience = max(MINIMUM_TIMEOUT_SECONDS, self.heartbeat_seconds)
        try:
            response = await self._http.request(
                method,
                path,
                content=content,
                headers={"Content-Type": "application/json"} if content else None,
                timeout=httpx.Timeout(patience, read=patience + wait),
            )
        except httpx.TransportError as error:
            self._note(f"{type(error).__name__}: {error}")
            raise Unavailable(f"cannot reach {self.url}: {error}") from error
        problem = _problem(response, path)
        self._note(str(problem) if isinstance(problem, Unavailable) else None)
        if problem is not None:
            raise problem
        return response

    def _note(self, failure: str | None) -> None:
        """One line when the orchestrator is lost and one when it is back, not one for each call."""
        if failure is not None and self._reachable:
            logger.warning("orchestrator %s cannot serve (%s); trying again", self.url, failure)
        elif failure is None and not self._reachable:
            logger.info("orchestrator %s is back", self.url)
        self._reachable = failure is None


def _problem(response: httpx.Response, path: str) -> ClientError | None:
    status = response.status_code
    if response.is_success:
        return None
    message = f"{path}: {status} {_reason(response)}"
    if status == 404:
        return Unknown(message)
    if status == 409:
        return LeaseLost(message)
    if status == 503 and _told(response, "reason") == "disk":
        return NoRoom(message)
    if status in (401, 403, 408, 429) or status >= 500 or response.is_redirect:
        return Unavailable(message)
    return Refused(message)


def _reason(response: httpx.Response) -> str:
    """The flat `error` of a problem document, or whatever a proxy in between has to say."""
    return _told(response, "error") or response.text[:200]


def _told(response: httpx.Response, name: str) -> str | None:
    try:
        return str(response.json()[name])
    except (ValueError, KeyError, TypeError):
        return None
