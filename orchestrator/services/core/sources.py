"""Where a submitted train.py comes from, and what makes it fit to queue."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import anyio

from orchestrator import schemas
from orchestrator.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from orchestrator.files import Files
from orchestrator.services.core.limited import LimitedWork

MERGE_SECONDS = 30.0
CONFLICT_CHARACTERS = 2000
_CONFLICT = re.compile(r"^<<<<<<< .*?^>>>>>>> .*?$", re.MULTILINE | re.DOTALL)


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

    async def merge(self, ours: str, base: str, theirs: str, ours_id: str, theirs_id: str) -> str:
        """`ours` with the change from `base` to `theirs`.

        Raises `Conflict` with the first place where both change the same lines.
        """
        return await anyio.to_thread.run_sync(_merged, ours, base, theirs, ours_id, theirs_id)

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


def _merged(ours: str, base: str, theirs: str, ours_id: str, theirs_id: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("ours", "base", "theirs")]
        for path, text in zip(paths, (ours, base, theirs), strict=True):
            path.write_text(text, "utf-8", newline="")
        labels = [word for name in (ours_id, "base", theirs_id) for word in ("-L", name)]
        try:
            done = subprocess.run(
                ["git", "merge-file", "-p", "-q", "--diff3", *labels, *map(str, paths)],
                capture_output=True,
                timeout=MERGE_SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            raise Conflict("git, which merges them, is not installed here") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Conflict(f"git merge-file failed: {error}") from error
    merged = done.stdout.decode()
    if done.returncode == 0:
        return merged
    if done.returncode > 127:
        raise Conflict(f"git merge-file failed: {done.stderr.decode(errors='replace').strip()}")
    hunk = _CONFLICT.search(merged)
    raise Conflict(f"both change the same lines:\n{hunk[0] if hunk else ''}"[:CONFLICT_CHARACTERS])
