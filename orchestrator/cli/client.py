"""The REST API as the commands use it, with the wire models as answers.

Every failure is an exception of cli/errors.py. `watch` and `retried` wait for an orchestrator
that is away for a while (a restart, a paused Redis); other calls do not.
"""

import ipaddress
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from gpu_worker import connection
from orchestrator import schemas
from orchestrator.cli.errors import ApiError, CommandError, ConfigError, UnreachableError
from orchestrator.cli.output import note
from orchestrator.ids import PATTERN

OUTAGE_SECONDS = 60
_LONG_POLL_SECONDS = 20
_LOG_PIECE_BYTES = 1 << 20

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")


def is_loopback(host: str | None) -> bool:
    """True if only this machine can reach a server that is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address((host or "").strip("[]")).is_loopback
    except ValueError:
        return False


def experiment_path(experiment_id: str, *more: str) -> str:
    """ConfigError for what is no id: it would be another path."""
    if re.fullmatch(PATTERN, experiment_id) is None:
        raise ConfigError(f"{experiment_id!r} is no experiment's id, exp-…")
    return "/".join(("/api/experiment", experiment_id, *more))


class Client:
    """Talks to the orchestrator at `url`. Use as a context manager."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca: Path | None = None,
        timeout: float = 30,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.away = False  # the orchestrator gives `watch` no answer
        self._http = httpx.Client(
            **connection.options(self.url, token, ca),
            timeout=httpx.Timeout(timeout, connect=5),
            transport=transport,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def set_timeout(self, seconds: float) -> None:
        """Of each later call, connecting included."""
        self._http.timeout = httpx.Timeout(seconds)

    def get(self, path: str, answer: type[Model], **query: str | float | None) -> Model:
        params = {name: value for name, value in query.items() if value is not None}
        return self._parsed(answer, self._send("GET", path, params=params))

    def post(
        self, path: str, answer: type[Model], body: BaseModel, key: str | None = None
    ) -> Model:
        """Calls with the same idempotency `key` act once; by default each call has its own key."""
        content = body.model_dump(mode="json", exclude_none=True)
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        return self._parsed(answer, self._send("POST", path, json=content, headers=headers))

    def alive(self, timeout: float = 5) -> bool:
        """True if an orchestrator with a working Redis answers within `timeout` seconds."""
        try:
            return self._http.get("/readyz", timeout=timeout).status_code == 200
        except httpx.HTTPError:
            return False

    def experiment(self, experiment_id: str) -> schemas.ExperimentDetail:
        return self.get(experiment_path(experiment_id), schemas.ExperimentDetail)

    def submit(
        self, request: schemas.SubmitRequest, key: str | None = None
    ) -> schemas.SubmitAnswer:
        return self.post("/api/experiment/submit", schemas.SubmitAnswer, request, key)

    def setup(self, request: schemas.SetupRequest) -> schemas.SetupAnswer:
        return self.post("/api/experiment/setup", schemas.SetupAnswer, request)

    def cancel(
        self, experiment_id: str, request: schemas.CancelRequest | None = None
    ) -> schemas.CancelAnswer:
        path = experiment_path(experiment_id, "cancel")
        return self.post(path, schemas.CancelAnswer, request or schemas.CancelRequest())

    def watch(
        self, experiment_id: str, *, every: float = _LONG_POLL_SECONDS
    ) -> Iterator[schemas.ExperimentDetail]:
        """The experiment now, then at least each `every` seconds, until it is decided.

        While the orchestrator is away, the last known state comes again each second.
        """
        detail = self.experiment(experiment_id)
        yield detail
        away_since: float | None = None
        path = experiment_path(experiment_id, "wait")
        while detail.finished_at is None:
            try:
                response = self._send("GET", path, params={"timeout": every}, timeout=every + 15)
                detail = self._parsed(schemas.ExperimentDetail, response)
            except UnreachableError:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > OUTAGE_SECONDS:
                    raise
                time.sleep(1)
            else:
                away_since = None
            self.away = away_since is not None
            yield detail

    def log(self, experiment_id: str, offset: int = 0) -> bytes:
        """At most 1 MiB of the log from byte `offset`; empty when there is nothing (yet)."""
        last = offset + _LOG_PIECE_BYTES - 1
        path = experiment_path(experiment_id, "log")
        headers = {"Range": f"bytes={offset}-{last}", "Accept-Encoding": "identity"}
        response = self._send("GET", path, headers=headers, also=(404, 416))
        if not response.is_success:
            return b""
        whole = response.content
        return whole if response.status_code == 206 else whole[offset : last + 1]

    def source(self, experiment_id: str) -> str:
        """The exact train.py that ran."""
        return self._send("GET", experiment_path(experiment_id, "train.py")).content.decode()

    def diff(self, experiment_id: str, against: str) -> str:
        """Unified diff of the sources, from `against` to the experiment."""
        path = experiment_path(experiment_id, "diff")
        return self._send("GET", path, params={"against": against}).content.decode()

    def tags(self) -> list[schemas.TagInfo]:
        return self.get("/api/report/tags", schemas.TagsAnswer).tags

    def pool(self) -> schemas.PoolAnswer:
        return self.get("/api/pool/list", schemas.PoolAnswer)

    def summary(self, tag: str) -> schemas.SummaryAnswer:
        return self.get("/api/report/summary", schemas.SummaryAnswer, tag=tag)

    def best(self, tag: str) -> schemas.BestAnswer:
        return self.get("/api/experiment/best", schemas.BestAnswer, tag=tag)

    def export_page(self, tag: str, **query: str | float | None) -> schemas.ExportPage:
        """A page in order of creation; `query` may have `after` (an id), `status`, `limit`."""
        return self.get("/api/report/export", schemas.ExportPage, tag=tag, **query)

    def suggestion(self, tag: str) -> schemas.Suggestion:
        return self.get("/api/search/suggest", schemas.Suggestion, tag=tag)

    def strategy(self, tag: str) -> schemas.Strategy:
        return self.get("/api/search/strategy", schemas.Strategy, tag=tag)

    def near_misses(self, tag: str) -> list[schemas.NearMiss]:
        path = "/api/experiment/near-misses"
        return self.get(path, schemas.NearMissAnswer, tag=tag).near_misses

    def history(
        self, tag: str, status: str | None = None, limit: int | None = None
    ) -> schemas.HistoryAnswer:
        path = "/api/experiment/history"
        return self.get(path, schemas.HistoryAnswer, tag=tag, status=status, limit=limit)

    @contextmanager
    def stream(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        """An answer that is read while it is still being written."""
        with self._reached(), self._http.stream("GET", path, **options) as response:
            if not response.is_success:
                response.read()
                raise self._refusal(response)
            yield response

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """UnreachableError for a call that did not get through, or not to its end."""
        try:
            yield
        except (httpx.RequestError, httpx.InvalidURL) as error:
            variable = connection.proxy_variable(self.url)
            through = f" through {variable}" if variable else ""
            raise UnreachableError(
                f"no orchestrator answers at {self.url}{through} "
                f"({error or type(error).__name__}). Start one with `autoresearch up`, or say "
                "where it is with --orchestrator or AUTORESEARCH_ORCHESTRATOR."
            ) from error

    def _send(
        self, method: str, path: str, *, also: tuple[int, ...] = (), **options: Any
    ) -> httpx.Response:
        with self._reached():
            response = self._http.request(method, path, **options)
        if response.is_success or response.status_code in also:
            return response
        raise self._refusal(response)

    def _refusal(self, response: httpx.Response) -> ApiError | UnreachableError:
        try:
            body = dict(response.json())
        except (ValueError, TypeError):
            body = {}
        status = f"{response.status_code} {response.reason_phrase}"
        if (
            "error" not in body and response.status_code < 500
        ):  # 5xx may be a proxy's in front of it
            return UnreachableError(
                f"what listens on {self.url} is not autoresearch (it says {status}); say where the "
                "orchestrator is with --orchestrator or AUTORESEARCH_ORCHESTRATOR"
            )
        text = str(body.get("error") or status)
        if response.status_code >= 502:
            return UnreachableError(f"the orchestrator at {self.url} cannot serve now: {text}")
        if response.status_code == 401:
            text += " (set AUTORESEARCH_TOKEN to the orchestrator's)"
        return ApiError(response.status_code, text, body)

    def _parsed(self, answer: type[Model], response: httpx.Response) -> Model:
        try:
            return answer.model_validate_json(response.content)
        except ValueError as error:
            raise UnreachableError(
                f"what answers at {self.url} is no orchestrator of this version: {error}"
            ) from error


@contextmanager
def explained(client: Client, tag: object) -> Iterator[None]:
    """Add to a refusal that concerns a tag what to do about it on this command line."""
    try:
        yield
    except ApiError as error:
        if error.status == 409 and "existing" in error.body:
            error.message = error.message.replace("send repeat: true", "add --repeat")
        if error.status != 404 or not isinstance(tag, str):
            raise
        names = [t.name for t in client.tags()]
        if tag in names:
            raise
        raise unknown_tag(tag, names) from error


def unknown_tag(tag: str, names: Sequence[str]) -> CommandError:
    close = get_close_matches(tag, names, n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    message = f"no tag '{tag}'. {hint}`autoresearch setup {tag}` creates it."
    return CommandError(message, tag=tag, tags=names)


def retried(
    call: Callable[[], T],
    *,
    seconds: float = OUTAGE_SECONDS,
    pauses: Sequence[float] = (1.0,),
    errors: tuple[type[Exception], ...] = (UnreachableError,),
) -> T:
    """The answer of `call`, which is repeated after one of `errors` for at most `seconds`."""
    deadline = time.monotonic() + seconds
    failures = 0
    while True:
        try:
            return call()
        except errors as error:
            if time.monotonic() > deadline:
                raise
            if not failures:
                note(f"{error} Waiting for it.")
        time.sleep(pauses[min(failures, len(pauses) - 1)])
        failures += 1
