"""The HTTP client of the orchestrator: typed calls, and three kinds of failure.

`Unavailable` is to be tried again, `LeaseLost` ends the current run, `Refused` is final. `persist`
tries again until the caller cancels it. Nothing here knows what a run is.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio
import httpx
from pydantic import BaseModel, ValidationError

from gpu_worker import connection
from orchestrator import schemas

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.05
MINIMUM_TIMEOUT_SECONDS = 2.0
# Shorter than `autoresearch serve` keeps an idle connection: a request sent while the server closes
# it would be lost. Longer than the heartbeat, so that a connection is used more than once.
KEEPALIVE_SECONDS = 30.0

AnswerT = TypeVar("AnswerT", bound=BaseModel)
T = TypeVar("T")


class ClientError(Exception):
    """The orchestrator did not do what was asked; the message says why."""


class Unavailable(ClientError):
    """It cannot be reached, cannot serve now, or refuses the token, which a person may correct. The
    same call may be sent again."""


class DiskFull(Unavailable):
    """Its disk takes no files now. A call that needs only its Redis still works."""


class NotYet(Unavailable):
    """A run that was submitted before this one has to be decided first."""


class Refused(ClientError):
    """It understood and refused; sending the same call again would not help."""


class Unknown(Refused):
    """It knows no such GPU, run or file."""


class LeaseLost(Refused):
    """The run, or the GPU, belongs to another worker now."""


def jitter(seconds: float) -> float:
    """Up to a quarter less, so that workers that started together do not keep calling together."""
    return seconds * random.uniform(0.75, 1)  # noqa: S311 - no secret


class Client:
    """One orchestrator, called on behalf of one GPU."""

    def __init__(self, url: str, token: str | None, ca: Path | None = None) -> None:
        self.url = url
        self.heartbeat_seconds = 5.0  # until the registration is answered
        # Where in the interval this worker's beats are. Workers that started together differ in it,
        # and an outage that made them late together does not shift it.
        self._phase = random.uniform(0, 1e6)  # noqa: S311 - no secret
        self._reachable = True
        self._http = httpx.AsyncClient(
            **connection.options(url, token, ca),
            limits=httpx.Limits(keepalive_expiry=KEEPALIVE_SECONDS),
        )

    async def close(self) -> None:
        await self._http.aclose()

    def until_next_beat(self) -> float:
        """Seconds to the next heartbeat or renewal."""
        period = self.heartbeat_seconds
        return period - (anyio.current_time() + self._phase) % period

    async def register(self, gpu: schemas.RegisterGpuRequest) -> schemas.RegisterGpuAnswer:
        return await self._post("/api/pool/register", gpu, schemas.RegisterGpuAnswer)

    async def heartbeat(self, heartbeat: schemas.HeartbeatRequest) -> schemas.HeartbeatAnswer:
        return await self._post("/api/pool/heartbeat", heartbeat, schemas.HeartbeatAnswer)

    async def deregister(self, gpu_id: str) -> None:
        request = schemas.GpuRequest(gpu_id=gpu_id)
        await self._post("/api/pool/deregister", request, schemas.DeregisterAnswer)

    async def claim(self, claim: schemas.ClaimRequest, wait: float) -> schemas.Job | None:
        """The next job, whose interval is kept from now on; None when there was none for `wait`
        seconds."""
        wait = jitter(wait)
        path = f"/api/job/claim?wait={wait:g}"
        job = (await self._post(path, claim, schemas.ClaimAnswer, wait=wait)).job
        if job is not None and job.heartbeat_seconds is not None:
            self.heartbeat_seconds = job.heartbeat_seconds
        return job

    async def renew(self, lease: schemas.RenewRequest) -> schemas.LeaseAnswer:
        return await self._post("/api/job/renew", lease, schemas.LeaseAnswer)

    async def progress(self, progress: schemas.ProgressRequest) -> schemas.LeaseAnswer:
        return await self._post("/api/job/progress", progress, schemas.LeaseAnswer)

    async def finish(self, report: schemas.FinishRequest) -> schemas.FinishAnswer:
        return await self._post("/api/job/finish", report, schemas.FinishAnswer)

    async def prepare_py(self, sha256: str) -> bytes:
        """The prepare.py stored under that hash; the caller checks the hash."""
        return (await self._send("GET", f"/api/prepare/{sha256}")).content

    async def persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until there is an answer, with pauses of at most one heartbeat."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await call()
            except Unavailable:
                await anyio.sleep(jitter(min(pause, self.heartbeat_seconds)))
                pause *= 2

    async def _post(
        self, path: str, body: BaseModel, answer: type[AnswerT], wait: float = 0.0
    ) -> AnswerT:
        response = await self._send("POST", path, body.model_dump_json().encode(), wait)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise Unavailable(f"{path} was answered by another service: {error}") from error

    async def _send(
        self, method: str, path: str, content: bytes | None = None, wait: float = 0.0
    ) -> httpx.Response:
        timeout = max(MINIMUM_TIMEOUT_SECONDS, self.heartbeat_seconds)
        try:
            response = await self._http.request(
                method,
                path,
                content=content,
                headers={"Content-Type": "application/json"} if content else None,
                timeout=httpx.Timeout(timeout, read=timeout + wait),
            )
        except httpx.RequestError as error:
            variable = connection.proxy_variable(self.url)
            through = f"through {variable}: " if variable else ""
            self._log_change(f"{through}{type(error).__name__}: {error}")
            raise Unavailable(f"cannot reach {self.url}: {error}") from error
        problem = _error(response, path)
        away = isinstance(problem, Unavailable) and not isinstance(problem, NotYet)
        self._log_change(str(problem) if away else None)
        if problem is not None:
            raise problem
        return response

    def _log_change(self, failure: str | None) -> None:
        """Log once when the orchestrator becomes unavailable and once when it is back."""
        if failure is not None and self._reachable:
            logger.warning("orchestrator %s cannot serve (%s); trying again", self.url, failure)
        elif failure is None and not self._reachable:
            logger.info("orchestrator %s is back", self.url)
        self._reachable = failure is None


def _error(response: httpx.Response, path: str) -> ClientError | None:
    if response.is_success:
        return None
    status = response.status_code
    # A proxy in between answers without the `error` of our problem documents.
    said = _field(response, "error") or f"{response.reason_phrase}, not by autoresearch"
    message = f"{path}: {status} {said}"
    if status == 404:
        return Unknown(message)
    if status == 409:
        return LeaseLost(message)
    if status == 503 and _field(response, "reason") == "disk":
        return DiskFull(message)
    if status == 503 and _field(response, "reason") == "earlier":
        return NotYet(message)
    if status in (401, 403, 408, 429) or status >= 500 or response.is_redirect:
        return Unavailable(message)
    return Refused(message)


def _field(response: httpx.Response, name: str) -> str | None:
    try:
        return str(response.json()[name])
    except (ValueError, KeyError, TypeError):
        return None
