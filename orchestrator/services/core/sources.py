"""Where a submitted train.py comes from, and what makes it fit to queue."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import anyio

from orchestrator import schemas
from orchestrator.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from orchestrator.files import Files
from orchestrator.services.core.limited import LimitedWork


@dataclass(frozen=True)
class Source:
    """A train.py that has been kept, and the label that stands for its commit."""

    sha256: str
    commit_sha: str


class Sources:
    def __init__(self, files: Files, repo: Path | None) -> None:
        self._files = files
        self._limited = LimitedWork()
        self._repo = repo

    async def keep(self, train_py: str | None, commit_sha: str | None) -> Source:
        """Check and keep the source: the text, or else the commit's train.py.

        Raises:
            TooLarge: more than 1 MiB.
            Invalid: not Python, with the line. Nothing that cannot run at all takes GPU time.
        """
        if train_py is None:
            assert commit_sha is not None  # noqa: S101 - the request's schema demands one of them
            train_py = await anyio.to_thread.run_sync(self._from_repo, commit_sha)
        text: str = train_py
        _check_size(text)
        if not await anyio.to_thread.run_sync(self._files.has_source, text):
            await self._limited.check(text)
        sha256 = await anyio.to_thread.run_sync(self._files.put_source, text)
        return Source(sha256, commit_sha or sha256[:7])

    async def diff(self, before_id: str, before: str, after_id: str, after: str) -> str:
        """The unified diff of two experiments' sources. Raises `TooLarge` if it takes too long."""
        return await self._limited.diff(before_id, before, after_id, after)

    def _from_repo(self, commit_sha: str) -> str:
        if self._repo is None:
            raise Conflict(
                "No AUTORESEARCH_REPO is set here, so a commit_sha alone names no source;"
                " send the file's text as train_py."
            )
        if not re.fullmatch(r"[0-9A-Fa-f]{4,64}", commit_sha):
            raise Invalid(f"commit_sha {commit_sha!r} is not a hexadecimal commit id.")
        try:
            shown = subprocess.run(
                ["git", "-C", str(self._repo), "show", f"{commit_sha}:train.py"],
                capture_output=True,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"git cannot read AUTORESEARCH_REPO: {error}.") from error
        if shown.returncode != 0:
            message = shown.stderr.decode(errors="replace").strip().splitlines()
            raise NotFound(
                f"No train.py at commit {commit_sha} of AUTORESEARCH_REPO"
                f" ({message[-1] if message else 'git says nothing'}); push it there or send"
                " the text as train_py."
            )
        try:
            return shown.stdout.decode()
        except UnicodeDecodeError as error:
            raise Invalid(f"train.py at commit {commit_sha} is not UTF-8: {error}.") from error


def _check_size(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise Invalid("train_py holds a lone surrogate, which is not text.") from error
    if size > schemas.SOURCE_LIMIT_BYTES:
        raise TooLarge(f"train_py has {size} bytes; the limit is {schemas.SOURCE_LIMIT_BYTES}.")
