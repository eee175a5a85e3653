"""Download shards of climbmix over HTTP; what was interrupted continues where it stopped.

- Covers the hub or its mirror (AUTORESEARCH_HUB), retries, downloads side by side, progress.
- Leaves out which shards are wanted and what is made of them (corpus.py).
"""

import contextlib
import math
import multiprocessing
import os
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from multiprocessing.pool import ThreadPool
from pathlib import Path
from ssl import SSLError
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import prepare
from prepare import VALIDATION_SHARD, PrepareError, log

HUB = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
LAST_SHARD = 6542  # climbmix's validation shard; those before it are to train on
SHARD_TOKENS = 50_000_000  # of a shard that a run reads, about
DOWNLOADS_AT_ONCE = 4
PROBE_SECONDS = 4.0  # how long to wait for the hub before it counts as unreachable
STALL_SECONDS = 30.0  # a connection that sends nothing for so long is given up
ATTEMPTS = 6  # in a row without a single new byte
BACKOFF_SECONDS = 0.5  # after the first failure, doubled after each further one, 30 at most
VARIABLES = ("AUTORESEARCH_HUB", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "SSL_CERT_FILE")
NETWORK_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError, SSLError)


class TransientError(Exception):
    """An error of the network or the server that may be gone at the next attempt."""


def shard_name(index: int) -> str:
    return f"shard_{index:05d}.parquet"


def default_shards() -> int:
    """As many as a run on this machine reads once, at its time budget or the usual 300 s."""
    tokens = max(300.0, prepare.TIME_BUDGET) * prepare.PROFILE.tokens_per_second
    return min(LAST_SHARD, math.ceil(tokens / SHARD_TOKENS))


def shard_url(name: str) -> str:
    base = (prepare.env_value("AUTORESEARCH_HUB") or HUB).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise PrepareError(f"AUTORESEARCH_HUB is {base!r}; it must start with http:// or https://.")
    return f"{base}/{name}"


@contextlib.contextmanager
def open_url(url: str, byte_range: str, timeout: float) -> Iterator[Any]:
    """The response to a GET of a range; PrepareError or TransientError, also while it is read."""
    try:
        url.encode("ascii")
        urlsplit(url)
    except ValueError as error:
        raise PrepareError(f"AUTORESEARCH_HUB gives {url!r}, which is no URL: {error}.") from error
    headers = {"Range": f"bytes={byte_range}", "User-Agent": "n-autoresearch"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (shard_url checks it)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            yield response
    except HTTPError as error:
        with error:
            if error.code not in (408, 425, 429) and error.code < 500:
                raise PrepareError(f"{url}: HTTP {error.code} {error.reason}") from error
            raise TransientError(f"HTTP {error.code} {error.reason}") from error
    except NETWORK_ERRORS as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        named = [name for name in VARIABLES if os.environ.get(name) or os.environ.get(name.lower())]
        hint = f" (see {', '.join(named)})" if named else ""
        raise TransientError(f"{reason}{hint}") from error


def remote_size(url: str, timeout: float = STALL_SECONDS) -> int:
    """Bytes of the file at url, from Content-Range, or Content-Length where ranges are ignored."""
    with open_url(url, "0-0", timeout) as response:
        name = "Content-Range" if response.status == 206 else "Content-Length"
        size = response.headers.get(name, "").rpartition("/")[2]
    if not size.isdecimal():
        raise TransientError("the server does not say how long the file is")
    return int(size)


def file_size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def resume_download(url: str, part: Path, total: int, stop: threading.Event) -> None:
    """Append to `part` what it lacks of the `total` bytes of url."""
    if file_size(part) > total:
        part.unlink()
    have = file_size(part)
    if have == total:
        return
    with open_url(url, f"{have}-", STALL_SECONDS) as response:
        resumed = response.status == 206  # else it ignores ranges and sends the whole file
        expected = f"bytes {have}-{total - 1}/{total}"
        if resumed and response.headers.get("Content-Range") != expected:
            part.unlink(missing_ok=True)
            raise TransientError("the server sent another range than the one asked for")
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(1 << 18):
                if stop.is_set():
                    raise PrepareError("stopped, because another download failed")
                file.write(chunk)
    if (have := file_size(part)) != total:
        raise TransientError(f"the connection ended after {have:,} of {total:,} bytes")


def download(name: str, folder: Path, stop: threading.Event) -> None:
    """Fetch a shard, with retries; a partial file is kept for a later call to resume."""
    url, failures = shard_url(name), 0
    with prepare.atomic_write(folder / name) as part:
        while True:
            before = file_size(part)
            try:
                total = remote_size(url)
                if file_size(folder / name) == total:  # a shard that the manifest does not know
                    (folder / name).replace(part)
                resume_download(url, part, total, stop)
                break
            except TransientError as error:
                failures = 1 if file_size(part) > before else failures + 1
                pause = min(30.0, BACKOFF_SECONDS * 2 ** (failures - 1))
                if failures >= ATTEMPTS or stop.wait(pause):
                    raise PrepareError(f"{url}: {error}. Try the same command later.") from error
        try:
            next(prepare.read_texts(part), None)
        except (PrepareError, OSError) as error:  # a proxy's error page, for one
            part.unlink()
            raise PrepareError(f"{url} gave no parquet file with a `text` column.") from error


def download_all(names: Sequence[str], folder: Path) -> None:
    """Fetch shards into `folder`, several at once; the first one that fails for good ends it."""
    stop, finished, terminal = threading.Event(), 0, sys.stdout.isatty()
    # Its threads are daemons: after Ctrl-C nothing waits for a connection that sends nothing.
    with ThreadPool(DOWNLOADS_AT_ONCE) as pool:
        results = pool.imap_unordered(lambda name: download(name, folder, stop), names)
        try:
            while finished < len(names):
                with contextlib.suppress(multiprocessing.TimeoutError):
                    results.next(timeout=0.25)
                    finished += 1
                    if not terminal:
                        log(f"climbmix: {finished} of {len(names)} shards")
                if terminal:
                    files = (folder / f"{name}{end}" for name in names for end in ("", ".part"))
                    size = sum(map(file_size, files)) / 1e6
                    log(f"\rclimbmix: {finished} of {len(names)} shards, {size:,.0f} MB ", end="")
        finally:
            stop.set()
            if terminal:
                log()


def hub_error() -> str | None:
    """Why the hub cannot be used, or None if it answers."""
    url = shard_url(VALIDATION_SHARD)
    with ThreadPool(1) as pool:  # in a thread, because name resolution has no timeout
        try:
            pool.apply_async(remote_size, (url, PROBE_SECONDS)).get(PROBE_SECONDS)
        except multiprocessing.TimeoutError:
            return f"no answer within {PROBE_SECONDS:.0f} s"
        except (PrepareError, TransientError) as error:
            return str(error)
    return None
