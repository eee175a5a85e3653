"""The notice that a spot machine is about to be taken away: a file that appears, or a URL's answer.

- Covers AWS (`/latest/meta-data/spot/instance-action`, 404 until then, with or without a session
  token) and GCP (`/computeMetadata/v1/instance/preempted`, FALSE until then).
- Leaves out Azure, whose list of events is always there: a script of yours writes a file.
"""

import logging
import re
import time
from datetime import datetime
from urllib.parse import unquote, urljoin, urlsplit

import anyio
import httpx
from anyio.abc import TaskStatus

from gpu_worker.shutdown import AT_ONCE_SECONDS, Shutdown

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
# Of a notice without a time: what GCP gives, the shortest of the clouds.
SHORTEST_SECONDS = 30.0
_NOT_YET = ("", "FALSE", "NONE")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_TOKEN_SECONDS = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}


class Unreadable(Exception):
    """Nobody knows whether there is a notice."""


async def watch(
    url: str, shutdown: Shutdown, reserve: float, *, task_status: TaskStatus[None]
) -> None:
    """Drain once the notice is there, and keep `reserve` seconds for the end of a run. This counts
    as started when it has looked once: a worker that is started again there takes no run."""
    logged, started = "", False
    # A machine's metadata are behind no proxy.
    async with httpx.AsyncClient(trust_env=False, timeout=POLL_SECONDS) as http:
        while True:
            try:
                left, problem = await seconds_left(url, http), ""
            except Unreadable as error:
                left, problem = None, str(error)
            if problem and problem != logged:
                logger.warning("no spot notice can be read, trying again: %s", problem)
            logged = problem
            if left is not None:
                logger.warning("spot notice: this machine goes in %.0f s", left)
                shutdown.drain(max(left - reserve, AT_ONCE_SECONDS))
            if not started:
                task_status.started()
                started = True
            if left is not None:
                return
            await anyio.sleep(POLL_SECONDS)


async def seconds_left(url: str, http: httpx.AsyncClient) -> float | None:
    """Until the machine goes; None if there is no notice. Raises Unreadable."""
    parts = urlsplit(url)
    try:
        if parts.scheme == "file":
            return _until(await anyio.Path(unquote(parts.path)).read_text(errors="replace"))
        text = await _get(url, http)
    except FileNotFoundError:
        return None
    except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreadable(f"{url}: {type(error).__name__} {error}") from error
    return None if text.strip().upper() in _NOT_YET else _until(text)


async def _get(url: str, http: httpx.AsyncClient) -> str:
    """The text at a URL, empty where there is none."""
    answer = await http.get(url, headers={"Metadata-Flavor": "Google"})
    if answer.status_code == 401:  # AWS wants a session token
        token = await http.put(urljoin(url, "/latest/api/token"), headers=_TOKEN_SECONDS)
        answer = await http.get(url, headers={"X-aws-ec2-metadata-token": token.text})
    if answer.status_code == 404:
        return ""
    return answer.raise_for_status().text


def _until(notice: str) -> float:
    """By this host's clock, which may be wrong: two minutes, the longest notice, at most."""
    found = _TIME.search(notice)
    try:
        moment = datetime.strptime(found.group() if found else "", "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:  # no time, or an impossible one
        return SHORTEST_SECONDS
    return min(max(moment.timestamp() - time.time(), 0.0), 120.0)
